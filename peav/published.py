"""The published PE-AV and PE-A-Frame, loaded from their own files.

Axes: ``B`` batch, ``T`` samples, ``N`` images, ``S`` tokens, ``E`` embedding width.

>>> model = load_published("pe-av-small")                      # doctest: +SKIP
>>> model.embed(text=["a dog barking"]) @ model.embed(audio=[clip]).T      # doctest: +SKIP

Embeddings are not normalised, as published; pass ``normalise=True`` for unit vectors.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F_
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .checkpoints import configured, read_json
from .errors import UserError, shown
from .model import Head
from .modernbert import ModernBert
from .published_config import PublishedConfig
from .published_frame import FrameOutput, PublishedFrame, find_spans, latents_of
from .published_inputs import Tokenizer, batch_clips, batch_videos, prepare_video
from .published_keys import HEADS, LOGITS, PERCEPTION_MODELS, Kind, kind_of, to_ours
from .towers import AudioTower, Encoded, FusionTower, VideoTower

__all__ = [
    "FrameOutput",
    "PEAVOutput",
    "PublishedConfig",
    "PublishedFrame",
    "PublishedPEAV",
    "find_spans",
    "load_published",
]

# Rows and columns of each matrix of logits, by the name of its scale and bias.
_PAIRS = {
    "text_audio": ("audio", "text_audio"),
    "text_video": ("video", "text_video"),
    "audio_video": ("audio", "video"),
    "text_audio_video": ("audio_video", "text_audio_video"),
    "audio_plus_text": ("audio_plus_text", "video"),
    "video_plus_text": ("video_plus_text", "audio"),
}
# Where a published folder may say how many images a video has.
_PROCESSORS = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")


@dataclass
class PEAVOutput:
    """What a PE-AV makes of a batch; only what the given inputs allow is there.

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


class PublishedPEAV(nn.Module):
    """Towers for audio, video and both, a text tower, and a head for every embedding.

    `tokenizer` is set by `load_published`.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        if config.vision is None or config.video is None or config.audio_video is None:
            raise ValueError("config has no video; it is that of a PublishedFrame")
        self.config = config
        self.tokenizer: Tokenizer | None = None
        self.audio = AudioTower(config.codec, config.audio)
        self.video = VideoTower(config.vision, config.video)
        self.audio_video = FusionTower(config.audio.hidden_size, config.video.hidden_size, config.audio_video)
        self.text_model = ModernBert(config.text)
        audio, video, text = config.audio.hidden_size, config.video.hidden_size, config.text.hidden_size
        widths = (audio, video, config.audio_video.hidden_size, text, text, text, audio + text, video + text)
        for name, width in zip(HEADS, widths, strict=True):
            self.add_module(name, Head(width, config.output_dim))
        for name in LOGITS:
            self.register_parameter(f"{name}_logit_scale", nn.Parameter(torch.ones(1)))
            self.register_parameter(f"{name}_logit_bias", nn.Parameter(torch.zeros(1)))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.codec.sample_rate

    def head(self, name: str, x: Tensor) -> Tensor:
        """Embeddings ``[B, E]``, `name` as in `PEAVOutput`, of pooled tower outputs."""
        return getattr(self, f"{name}_head")(x)

    def logits(self, name: str, rows: Tensor, columns: Tensor) -> Tensor:
        """Log-odds ``[rows, columns]`` that embeddings belong together, `name` as in `PEAVOutput`.

        Files of perception_models hold no scales; there these are plain dot products. Scales that were never
        trained are zero in published files.
        """
        return rows @ columns.T * getattr(self, f"{name}_logit_scale") + getattr(self, f"{name}_logit_bias")

    def forward(
        self,
        *,
        token_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
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
            waveform, waveform_mask: ``[B, 1, T]`` at `sample_rate` and ``[B, T]``.
            video, video_mask: ``[B, N, 3, height, width]`` in -1..1 and ``[B, N]``.
            latents, latent_mask: ``[B, K, F]`` and ``[B, F]``, the codec's latents instead of a waveform.
            vision_features: ``[B, N, V]``, unit vectors of the vision tower instead of a video.
            compatible: treat ragged batches as the published code does, see `peav.towers`. By default an item's
                embeddings do not depend on the others.

        Raises:
            ValueError: nothing was given, shapes do not fit, or one input came in two forms.
        """
        out = PEAVOutput()
        pooled: dict[str, Tensor] = {}
        if waveform is not None or latents is not None:
            latents, latent_mask = latents_of(self.audio, waveform, waveform_mask, latents, latent_mask, compatible)
            out.audio = self.audio(latents, latent_mask)
            pooled["audio"] = out.audio.pooled
        if video is not None and vision_features is not None:
            raise ValueError("give either video or vision_features")
        if video is not None:
            vision_features = self.video.features(video, None if compatible else video_mask)
        if vision_features is not None:
            out.video = self.video(vision_features, video_mask)
            pooled["video"] = out.video.pooled
        if out.audio is not None and out.video is not None:
            clips, videos = len(out.audio.pooled), len(out.video.pooled)
            if clips != videos:
                raise ValueError(f"{clips} clips and {videos} videos; give pairs")
            out.audio_video = self.audio_video(out.audio, out.video, compatible=compatible)
            pooled["audio_video"] = out.audio_video.pooled
        if token_ids is not None:
            out.text_states = self.text_model(token_ids, token_mask)
            text = out.text_states[:, 0]
            for name in ("audio", "video"):
                # Joined only where each clip has its text; retrieval may have more of one than of the other.
                if name in pooled and len(pooled[name]) == len(text):
                    pooled[f"{name}_plus_text"] = torch.cat((pooled[name], text), dim=-1)
            pooled |= dict.fromkeys(("text_audio", "text_video", "text_audio_video"), text)
        if not pooled:
            raise ValueError("nothing to embed; give token_ids, waveform or video")
        out.embeddings = {name: self.head(name, x) for name, x in pooled.items()}
        for name, (rows, columns) in _PAIRS.items():
            if rows in out.embeddings and columns in out.embeddings:
                out.logits[name] = self.logits(name, out.embeddings[rows], out.embeddings[columns])
        return out

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

        Args:
            text: phrases.
            audio: mono clips ``[T_i]`` at `sample_rate`.
            video: uint8 images ``[N_i, 3, height, width]``, any size.
            text_for: what texts alone are compared with: "audio", "video" or "audio_video".
            num_frames: look at so many images of each video, evenly; by default what the model was made for, which
                is all of them or a fixed number.
            normalise: scale to unit length.

        Raises:
            ValueError: none or all three were given, their numbers differ, or `text_for` is unknown.
        """
        given = [name for name, x in (("audio", audio), ("video", video), ("text", text)) if x is not None]
        if len(given) not in (1, 2):
            raise ValueError("give one or two of text=[...], audio=[...] and video=[...]")
        if text_for not in ("audio", "video", "audio_video"):
            raise ValueError(f'text_for={text_for!r}; choose "audio", "video" or "audio_video"')
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
            if self.tokenizer is None:
                raise ValueError("this model has no tokenizer; use load_published, or forward with token ids")
            inputs["token_ids"], inputs["token_mask"] = self.tokenizer(text)
        name = {"text": f"text_{text_for}", "audio text": "audio_plus_text", "video text": "video_plus_text"}.get(
            " ".join(given), "_".join(given)
        )
        device = self.audio.data_proj.weight.device
        found = self(**{key: x.to(device) for key, x in inputs.items()}).embeddings[name]
        return F_.normalize(found.float(), dim=-1) if normalise else found


def load_published(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    text_after_norm: bool = False,
) -> PublishedPEAV | PublishedFrame:
    """A published PE-AV or PE-A-Frame, ready to embed; which of them, and its layout, is seen from the weights.

    Args:
        folder: ``config.json``, the weights and the tokenizer, as downloaded.
        dtype: of the weights.
        device: where to put them.
        text_after_norm: take the text vector after the text tower's final norm, as transformers does from 5.1.0
            on. The checkpoints were made for the state before it.

    Raises:
        UserError: a file is missing or damaged, or weights are missing, left over or of another size.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}: no such folder; download the model first")
    settings = read_json(folder / "config.json")
    state = _read_weights(folder)
    kind = kind_of(state)
    if text_after_norm and kind.layout == PERCEPTION_MODELS:
        raise UserError("text_after_norm is a habit of transformers; files of perception_models name a layer instead")
    state, origin = to_ours(state, kind)
    processor = next((p for name in _PROCESSORS if (p := folder / name).is_file()), None)
    config = configured(
        lambda values: PublishedConfig.from_published(
            values,
            state,
            kind,
            processor=None if processor is None else read_json(processor),
            text_after_norm=text_after_norm,
        ),
        settings,
        folder,
    )
    with torch.device("meta"):
        model = PublishedFrame(config) if config.frame_level else PublishedPEAV(config)
    _fill(model, _needed(state, config, kind), origin, folder, dtype)
    model.tokenizer = Tokenizer(folder)
    return model.to(device).eval()


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of the folder: safetensors, whole or in shards, else a plain ``.pt`` or ``.bin``."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    elif index.is_file():
        files = [folder / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
    else:
        names = ("checkpoint.pt", "model.pt", "pytorch_model.bin")
        files = [folder / name for name in names if (folder / name).is_file()][:1]
    if not files:
        raise UserError(f"{shown(folder)}: model.safetensors missing; the folder is incomplete, fetch it again")
    state: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise UserError(f"{shown(file)}: no such file; the folder is incomplete, fetch it again")
        try:
            if file.suffix == ".safetensors":
                state |= load_file(file)
            else:
                content = torch.load(file, map_location="cpu", weights_only=True)
                state |= {name: t for name, t in content.items() if isinstance(t, Tensor)}
        except (SafetensorError, OSError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(f"{shown(file)}: is damaged ({shown(error, 60)}); fetch it again") from None
    return state


def _needed(state: Mapping[str, Tensor], config: PublishedConfig, kind: Kind) -> dict[str, Tensor]:
    """Drop text layers past the one that is read, and give logits without scales the dot product."""
    kept = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "text_model":
            if parts[1] == "layers" and parts[2].isdigit() and int(parts[2]) >= config.text.num_layers:
                continue
            if parts[1] == "final_norm" and not config.text.final_norm:
                continue
        kept[name] = tensor
    if kind == Kind(PERCEPTION_MODELS, frame_level=False):
        kept |= {f"{name}_logit_scale": torch.ones(1) for name in LOGITS}
        kept |= {f"{name}_logit_bias": torch.zeros(1) for name in LOGITS}
    return kept


def _fill(
    model: nn.Module, state: Mapping[str, Tensor], origin: Mapping[str, str], folder: Path, dtype: torch.dtype
) -> None:
    """Give `model`, built without memory, its weights; any difference in names or sizes is a UserError."""
    own = model.state_dict()
    found = {
        "missing": sorted(own.keys() - state.keys()),
        "left over": sorted(origin.get(name, name) for name in state.keys() - own.keys()),
        "of another size": [
            f"{origin.get(name, name)} {list(state[name].shape)} for {list(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if own[name].shape != state[name].shape
        ],
    }
    told = [f"{len(names)} {what}: {', '.join(names[:2])}" for what, names in found.items() if names]
    if told:
        raise UserError(f"{shown(folder, 60)}: the weights do not fit: {'; '.join(told)}")
    model.load_state_dict({name: t.to(dtype).contiguous() for name, t in state.items()}, assign=True)
