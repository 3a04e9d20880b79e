"""PE-AV: towers for audio, video and both, a text tower, and a head for every embedding.

Axes: ``B`` batch, ``T`` samples, ``N`` images, ``S`` text tokens, ``F`` audio tokens, ``Q`` texts, ``E`` embedding
width, ``K`` latent channels.

The published models and the small one in the package are this class with different `PEAVConfig`\\ s. Published
embeddings are not normalised; the small model's are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from .codec import DACEncoder
from .codec_keys import encoder_part
from .config import PEAVConfig
from .errors import UserError
from .inputs import Tokenizer, batch_clips, batch_videos, prepare_video
from .modernbert import ModernBert
from .text import SENTENCE_DIM, sentence_encoder
from .towers import AudioTower, Encoded, FusionTower, Head, VideoTower
from .wording import Wording

__all__ = ["PEAV", "PAIRS", "Head", "PEAVConfig", "PEAVOutput", "frame_logits_of", "latents_of"]

# Rows and columns of each matrix of logits, by the name of its scale and bias.
PAIRS = {
    "text_audio": ("audio", "text_audio"),
    "text_video": ("video", "text_video"),
    "audio_video": ("audio", "video"),
    "text_audio_video": ("audio_video", "text_audio_video"),
    "audio_plus_text": ("audio_plus_text", "video"),
    "video_plus_text": ("video_plus_text", "audio"),
}


@dataclass
class PEAVOutput:
    """What a PE-AV makes of a batch; only what the given inputs and the model's towers allow is there.

    ``embeddings``: ``[B, E]`` by name: audio, video, audio_video, text_audio, text_video, text_audio_video,
    audio_plus_text, video_plus_text. ``logits``: ``[rows, columns]`` by name: text_audio (audio by text),
    text_video (video by text), audio_video (audio by video), text_audio_video (audio-video by text),
    audio_plus_text (by video), video_plus_text (by audio).
    """

    embeddings: dict[str, Tensor] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)
    audio: Encoded | None = None
    video: Encoded | None = None
    audio_video: Encoded | None = None
    text_states: Tensor | None = None  # [B, S, D]


class PEAV(nn.Module):
    """See the module's first lines. ``tokenizer`` is set by `peav.load` where the text tower needs one.

    The codec is a part of the model but never trained with it. The sentence encoder, where that is the text tower,
    is shared by the process and not stored with the weights.
    """

    has_clips = True  # embeds whole clips, which a PE-A-Frame does not

    def __init__(self, config: PEAVConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer: Tokenizer | None = None
        self.audio = AudioTower(config.codec, config.audio, config.token_frames, config.log_input)
        self.text_model = None if config.text is None else ModernBert(config.text)
        audio = config.audio.hidden_size
        text = SENTENCE_DIM if config.text is None else config.text.hidden_size
        self.wording = Wording(text, config.wording) if config.wording else None
        widths = {"audio": audio, "text_audio": text}
        if config.vision and config.video and config.audio_video:
            video = config.video.hidden_size
            self.video: VideoTower | None = VideoTower(config.vision, config.video)
            self.audio_video: FusionTower | None = FusionTower(audio, video, config.audio_video)
            widths |= {"video": video, "audio_video": config.audio_video.hidden_size}
            widths |= {"text_video": text, "text_audio_video": text}
            widths |= {"audio_plus_text": audio + text, "video_plus_text": video + text}
        else:
            self.video = self.audio_video = None
        pairs = [name for name, (rows, columns) in PAIRS.items() if rows in widths and columns in widths]
        if config.frames:
            widths |= {"frame": audio, "text_frame": text}
            pairs.append("text_frame")
            if self.video is not None:
                widths["video_frame"] = self.video.proj.out_features
                pairs.append("video_frame")
        for name, width in widths.items():
            self.add_module(f"{name}_head", Head(width, config.output_dim))
        for name in pairs:
            # Temperature and bias of SigLIP for unit vectors: the first step sees almost all pairs as negatives.
            self.register_parameter(f"{name}_logit_scale", nn.Parameter(torch.full((1,), 10.0)))
            self.register_parameter(f"{name}_logit_bias", nn.Parameter(torch.full((1,), -10.0)))

    # -- what it is -------------------------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.codec.sample_rate

    @property
    def output_dim(self) -> int:
        """E."""
        return self.config.output_dim

    @property
    def device(self) -> torch.device:
        return self.audio.data_proj.weight.device

    @property
    def modalities(self) -> frozenset[str]:
        """Which of audio, text and video it embeds."""
        return frozenset({"audio", "text"} | ({"video"} if self.config.sees else set()))

    @property
    def has_frames(self) -> bool:
        """Whether :meth:`frame_logits` is there."""
        return self.config.frames

    @property
    def frame_seconds(self) -> float:
        """Length of an audio frame of :meth:`frame_logits` in seconds."""
        return self.config.frame_seconds

    @property
    def identity(self) -> str:
        """Short hash of configuration and weights: embeddings of equal identity may be compared with each other."""
        return identity_of(self, self.config)

    @property
    def codec(self) -> DACEncoder:
        """The analysis half of the codec, whose latents the audio tower reads."""
        return self.audio.codec

    def use_codec(self, codec: nn.Module) -> None:
        """Take over the analysis half of ``codec``, which must have this model's codec configuration."""
        self.codec.load_state_dict(encoder_part(codec.state_dict(), self.config.codec.codebook_dim))

    # -- parts ------------------------------------------------------------------------------------------------

    def head(self, name: str, x: Tensor) -> Tensor:
        """Embeddings ``[..., E]`` of pooled tower outputs; ``name`` as in `PEAVOutput`, or of the frame level: frame,
        text_frame and video_frame, which read frames of the audio tower, text vectors and frames of the video tower."""
        found = getattr(self, f"{name}_head")(x)
        return F_.normalize(found.float(), dim=-1) if self.config.normalise else found

    def logits(self, name: str, rows: Tensor, columns: Tensor) -> Tensor:
        """Log-odds ``[rows, columns]`` that embeddings belong together; ``name`` as in `PEAVOutput`.

        Files of perception_models hold no scales; there these are plain dot products. Scales that were never
        trained are zero in published files.
        """
        return rows @ columns.T * self.scalar(f"{name}_logit_scale") + self.scalar(f"{name}_logit_bias")

    def scalar(self, name: str) -> Tensor:
        """A temperature or bias ``[1]`` by its name, such as text_audio_logit_scale."""
        return self.get_parameter(name)

    def audio_embedding(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, E]`` of latents ``[B, K, F]``."""
        return self.head("audio", self.audio(latents, mask).pooled)

    def text_embedding(self, vectors: Tensor, text_for: str = "audio") -> Tensor:
        """``[B, E]`` of text vectors ``[B, D]``, to compare with ``text_for``."""
        return self.head(f"text_{text_for}", self._worded(vectors))

    def _worded(self, vectors: Tensor) -> Tensor:
        return vectors if self.wording is None else self.wording(vectors)

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """``[B, D]``: what the text heads read of each text.

        Raises:
            ValueError: ``texts`` is no list of at least one text.
        """
        weight = self.audio.data_proj.weight
        if self.text_model is None:
            if isinstance(texts, str) or not len(texts):
                raise ValueError(f"text={texts!r}; give a list with at least one phrase")
            return sentence_encoder()(texts).clone().to(weight)
        return self._text_states(texts)[:, 0]

    def _text_states(self, texts: Sequence[str]) -> Tensor:
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer; load it with peav.load, or give token ids")
        assert self.text_model is not None
        token_ids, token_mask = (x.to(self.device) for x in self.tokenizer(texts))
        return self.text_model(token_ids, token_mask)

    # -- all of it --------------------------------------------------------------------------------------------

    def forward(
        self,
        *,
        token_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        text_vectors: Tensor | None = None,
        waveform: Tensor | None = None,
        waveform_mask: Tensor | None = None,
        video: Tensor | None = None,
        video_mask: Tensor | None = None,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
        vision_features: Tensor | None = None,
        compatible: bool = False,
    ) -> PEAVOutput:
        """Every embedding that the inputs allow, and the logits between them.

        Masks are true or 1 where an input is real; None when all of it is.

        Args:
            token_ids, token_mask: ``[B, S]``.
            text_vectors: ``[B, D]``, see :meth:`text_vectors`, instead of tokens.
            waveform, waveform_mask: ``[B, 1, T]`` at `sample_rate` and ``[B, T]``.
            video, video_mask: ``[B, N, 3, height, width]`` in -1..1 and ``[B, N]``.
            latents, latent_mask: ``[B, K, F]`` and ``[B, F]``, the codec's latents instead of a waveform.
            vision_features: ``[B, N, V]``, unit vectors of the vision tower instead of a video.
            compatible: treat ragged batches as the published code does, see `peav.towers`. By default an item's
                embeddings do not depend on the others.

        Raises:
            ValueError: nothing was given, shapes do not fit, one input came in two forms, or the model lacks a tower.
        """
        out = PEAVOutput()
        pooled: dict[str, Tensor] = {}
        if waveform is not None or latents is not None:
            latents, latent_mask = latents_of(self.audio, waveform, waveform_mask, latents, latent_mask, compatible)
            out.audio = self.audio(latents, latent_mask)
            pooled["audio"] = out.audio.pooled
        if video is not None or vision_features is not None:
            out.video = self._seen(video, video_mask, vision_features, compatible)
            pooled["video"] = out.video.pooled
        if out.audio is not None and out.video is not None:
            clips, videos = len(out.audio.pooled), len(out.video.pooled)
            if clips != videos:
                raise ValueError(f"{clips} clips and {videos} videos; give pairs")
            assert self.audio_video is not None
            out.audio_video = self.audio_video(out.audio, out.video, compatible=compatible)
            pooled["audio_video"] = out.audio_video.pooled
        if token_ids is not None:
            if text_vectors is not None or self.text_model is None:
                raise ValueError("give text_vectors alone; this model reads no tokens, or both were given")
            out.text_states = self.text_model(token_ids, token_mask)
            text_vectors = out.text_states[:, 0]
        if text_vectors is not None:
            pooled |= self._with_text(pooled, self._worded(text_vectors))
        if not pooled:
            raise ValueError("nothing to embed; give token_ids, waveform or video")
        out.embeddings = {name: self.head(name, x) for name, x in pooled.items()}
        for name, (rows, columns) in PAIRS.items():
            if rows in out.embeddings and columns in out.embeddings:
                out.logits[name] = self.logits(name, out.embeddings[rows], out.embeddings[columns])
        return out

    def _seen(
        self, video: Tensor | None, mask: Tensor | None, features: Tensor | None, compatible: bool
    ) -> Encoded:
        if self.video is None:
            raise ValueError("this model has no towers for video; load one that has, such as facebook/pe-av-small")
        if video is not None and features is not None:
            raise ValueError("give either video or vision_features")
        if video is not None:
            features = self.video.features(video, None if compatible else mask)
        assert features is not None
        return self.video(features, mask)

    def _with_text(self, pooled: dict[str, Tensor], text: Tensor) -> dict[str, Tensor]:
        """What text adds: itself for every head, and joined with what it comes with."""
        targets = ("audio", "video", "audio_video") if self.config.sees else ("audio",)
        found = dict.fromkeys((f"text_{name}" for name in targets), text)
        if self.config.sees:
            for name in ("audio", "video"):
                # Joined only where each clip has its text; retrieval may have more of one than of the other.
                if name in pooled and len(pooled[name]) == len(text):
                    found[f"{name}_plus_text"] = torch.cat((pooled[name], text), dim=-1)
        return found

    @torch.inference_mode()
    def embed(
        self,
        *,
        text: Sequence[str] | None = None,
        audio: Sequence[Tensor] | None = None,
        video: Sequence[Tensor] | None = None,
        text_for: str = "audio",
        num_frames: int | None = None,
        normalise: bool = False,
    ) -> Tensor:
        """Embeddings ``[B, E]`` of texts, clips, videos, or pairs of two of them.

        An item's embedding does not depend on what it is batched with.

        Args:
            text: phrases.
            audio: mono clips ``[T_i]`` at `sample_rate`.
            video: uint8 images ``[N_i, 3, height, width]``, any size.
            text_for: what texts alone are compared with: "audio", "video" or "audio_video".
            num_frames: look at so many images of each video, evenly; by default what the model was made for, which
                is all of them or a fixed number.
            normalise: scale to unit length.

        Raises:
            ValueError: none or all three were given, one is empty, their numbers differ, or the model lacks a tower.
        """
        given = [name for name, x in (("audio", audio), ("video", video), ("text", text)) if x is not None]
        if len(given) not in (1, 2):
            raise ValueError("give one or two of text=[...], audio=[...] and video=[...]")
        if text_for not in ("audio", "video", "audio_video"):
            raise ValueError(f'text_for={text_for!r}; choose "audio", "video" or "audio_video"')
        if given != ["audio"] and not self.config.sees and not (given == ["text"] and text_for == "audio"):
            wanted = f"texts for {text_for}" if given == ["text"] else " and ".join(given)
            raise ValueError(f"this model embeds audio or text; for {wanted} load one that sees")
        counts = {name: len(x) for name, x in (("audio", audio), ("video", video), ("text", text)) if x is not None}
        if len(set(counts.values())) > 1:
            raise ValueError(f"pairs need equal numbers, got {counts}")
        inputs: dict[str, Tensor] = {}
        if audio is not None:
            inputs["waveform"], inputs["waveform_mask"] = batch_clips(audio)
        if video is not None:
            assert self.config.vision is not None
            size, number = self.config.vision.image_size, num_frames or self.config.video_frames
            inputs["video"], inputs["video_mask"] = batch_videos([prepare_video(v, size, number) for v in video])
        if text is not None:
            inputs["text_vectors"] = self.text_vectors(text)
        name = {"text": f"text_{text_for}", "audio text": "audio_plus_text", "video text": "video_plus_text"}.get(
            " ".join(given), "_".join(given)
        )
        found = self(**{key: x.to(self.device) for key, x in inputs.items()}).embeddings[name]
        return F_.normalize(found.float(), dim=-1) if normalise else found

    @torch.inference_mode()
    def frame_logits(self, audio: Sequence[Tensor], text: Sequence[str]) -> list[Tensor]:
        """Log-odds that each text describes each frame: ``[Q, F_i]`` for every clip.

        Args:
            audio: mono clips ``[T_i]`` at `sample_rate`.
            text: what to look for.

        Raises:
            UserError: the model has no frame-level head.
            ValueError: a list is empty, or a clip is not mono.
        """
        if not self.has_frames:
            raise UserError("this model has no frame-level head; use one that has, such as facebook/pe-a-frame-small")
        waveform, mask = (x.to(self.device) for x in batch_clips(audio))
        found = self.audio(*self.audio.latents(waveform, mask))
        frames = self.head("frame", found.frames)
        texts = self.text_embedding(self.text_vectors(text), "frame")
        return frame_logits_of(self.frame_pairs(frames, texts), found.mask)

    def frame_pairs(self, frames: Tensor, text: Tensor) -> Tensor:
        """Log-odds ``[B, Q, F]`` of frame embeddings ``[B, F, E]`` and text embeddings ``[Q, E]``."""
        products = torch.einsum("bfe,qe->bqf", frames, text)
        return products * self.scalar("text_frame_logit_scale") + self.scalar("text_frame_logit_bias")


def latents_of(
    tower: AudioTower,
    waveform: Tensor | None,
    waveform_mask: Tensor | None,
    latents: Tensor | None,
    latent_mask: Tensor | None,
    compatible: bool,
) -> tuple[Tensor, Tensor | None]:
    """Latents and their mask, from a waveform unless they are given.

    Raises:
        ValueError: not exactly one of the two is given.
    """
    if (waveform is None) == (latents is None):
        raise ValueError("give either waveform or latents")
    if waveform is not None:
        return tower.latents(waveform, waveform_mask, compatible=compatible)
    assert latents is not None
    return latents, latent_mask


def frame_logits_of(logits: Tensor, mask: Tensor | None) -> list[Tensor]:
    """``[B, Q, F]`` with padding to ``[Q, F_i]`` each."""
    return [row if mask is None else row[:, keep] for row, keep in zip(logits, logits if mask is None else mask,
                                                                       strict=True)]


def identity_of(model: nn.Module, config: PEAVConfig) -> str:
    """Twelve hexadecimal digits over configuration and weights, buffers included."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
