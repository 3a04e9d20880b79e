"""The Judge: from a mixture, what was separated from it and the prompt to scores, frame by frame.

Axes: ``B`` batch, ``T`` samples, ``D`` latent channels, ``F`` latent frames, ``N`` tokens (40 ms), ``S`` text tokens,
``W`` width of a text vector.

The published Judge and the small one in the package are this class with different :class:`JudgeConfig`\\ s::

    mixture, target ── codec ── data_proj ── transformer ──┐ cat_audio_proj ─┐
    text ── text_proj1 ── text_proj2 ── layer_norm ────────────────────────┴─ proj_audio_and_text
         ── finetune_data_proj ── finetune_transformer ── head ── four scores per token, averaged
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from peav.codec import CodecConfig, DACEncoder
from peav.codec_keys import encoder_part
from peav.inputs import Tokenizer
from peav.modernbert import ModernBert, ModernBertConfig
from peav.text import SENTENCE_DIM, sentence_encoder
from peav.towers import Encoded, Head
from peav.transformer import TemporalTransformer, TransformerConfig

from .estimate import CLIP, MORE, Estimate, Estimator
from .features import band_features, joint_log_features, token_mask, tokens

SURELY_ABSENT = 4.0  # log-odds
SCORES = ("overall", "recall", "precision", "faithfulness")  # in the order of the head's outputs


@dataclass(frozen=True)
class JudgeConfig:
    """What a Judge is made of. The published one is all defaults; the small one differs where it says so.

    Parts:
        ``codec``, ``transformer``, ``finetune_transformer``, ``bottleneck_dim``: always there. ``text``: None for
        the frozen sentence encoder of `peav.text`, which is not stored with the weights. ``presence``: a fifth
        output, the log-odds that the mixture holds the sound.

    Inputs:
        ``token_frames``: latent frames per token. ``log_input``: feed log magnitudes on the mixture's scale (see
        `judge.features`), which a lapped latent needs, instead of the latents. ``residual``: let the first
        transformer also hear what is left of the mixture; the codec must be close to additive. ``match``: width of a
        space in which every token is compared with the text before the second transformer (`Match`), as an embedder
        does; 0 leaves it to the second transformer alone. ``bands``: so many bands in which mixture and target are
        also compared directly (`judge.features.band_features`), past the first transformer; 0 for none. ``estimate``:
        so many bands in which the target is compared with what a separator would have made (`judge.estimate`); 0 to do
        without one. ``overall``: width of a second head for overall, which also hears `MORE` (0: none). ``listen``:
        False leaves out the first transformer, the words and what joins them, so that all that is known of the prompt
        comes from the estimator. ``window_seconds``: the longest sound that is judged in one piece.
    """

    codec: CodecConfig
    transformer: TransformerConfig
    finetune_transformer: TransformerConfig
    text: ModernBertConfig | None = None
    bottleneck_dim: int = 256
    token_frames: int = 1
    log_input: bool = False
    residual: bool = False
    match: int = 0
    bands: int = 0
    estimate: int = 0
    overall: int = 0
    listen: bool = True
    presence: bool = False
    window_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.bottleneck_dim < 1 or self.token_frames < 1:
            raise ValueError(
                f"bottleneck_dim={self.bottleneck_dim} and token_frames={self.token_frames} must be at least 1"
            )
        if min(self.match, self.bands, self.estimate) < 0:
            raise ValueError(
                f"match={self.match}, bands={self.bands} and estimate={self.estimate} must be 0 or more"
            )
        if self.estimate and self.text is not None:
            raise ValueError("estimate needs the sentence encoder; leave text out")
        if self.overall and not self.estimate:
            raise ValueError(f"overall={self.overall} needs an estimator; give estimate as well")
        if not self.listen and not (self.estimate and self.bands):
            raise ValueError("listen=False leaves nothing to judge by without estimate and bands")
        if not self.listen and self.match:
            raise ValueError(f"match={self.match} needs the first transformer, which listen=False leaves out")
        if not self.window_seconds >= 1:
            raise ValueError(f"window_seconds={self.window_seconds} must be at least 1")

    @property
    def streams(self) -> int:
        """How many sounds the first transformer hears: mixture, target and perhaps the rest."""
        return 3 if self.residual else 2

    @property
    def token_samples(self) -> int:
        """Samples per token."""
        return self.codec.hop_length * self.token_frames

    @property
    def text_dim(self) -> int:
        """W."""
        return SENTENCE_DIM if self.text is None else self.text.hidden_size

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"codec": self.codec.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JudgeConfig:
        """From `to_dict`, or what JSON made of it.

        Raises:
            KeyError, TypeError, ValueError: fields are missing, unknown or contradict each other.
        """
        known = {field.name for field in fields(cls)}
        if set(values) - known:
            raise TypeError(f"unknown settings {sorted(set(values) - known)}")
        made = dict(values)
        made["codec"] = CodecConfig.from_dict(made["codec"])
        for name in ("transformer", "finetune_transformer"):
            made[name] = TransformerConfig(**made[name])
        if made.get("text") is not None:
            text: dict[str, Any] = {**made["text"], "full_attention": tuple(made["text"]["full_attention"])}
            made["text"] = ModernBertConfig(**text)
        return cls(**made)


@dataclass
class JudgeOutput:
    """What a Judge says of a batch, scores in the order of :data:`SCORES`, about 1 to 5."""

    scores: Tensor  # [B, 4], mean over the tokens of each clip
    frames: Tensor  # [B, N, 4], meaningless in the padding
    presence: Tensor | None  # [B], log-odds that the mixture holds the sound; None without that output
    mask: Tensor | None = None  # [B, N] bool, true on tokens of the clip; None when all are


class Match(nn.Module):
    """How well every token of every stream fits the text: products of unit vectors, one by one and summed.

    The two heads are those of a PE-A-Frame, whose sum is the log-odds that the text describes the frame.
    """

    def __init__(self, width: int, text_dim: int, match: int, streams: int, output_dim: int) -> None:
        super().__init__()
        self.audio_head, self.text_head = Head(width, match), Head(text_dim, match)
        self.projection = nn.Linear(streams * (match + 1), output_dim, bias=False)

    def audio(self, tokens: Tensor) -> Tensor:
        """Unit vectors ``[..., N, match]`` of tokens ``[..., N, width]``."""
        return F_.normalize(self.audio_head(tokens), dim=-1)

    def text(self, vectors: Tensor) -> Tensor:
        """Unit vectors ``[..., match]`` of text vectors ``[..., W]``."""
        return F_.normalize(self.text_head(vectors), dim=-1)

    def forward(self, audio: Sequence[Tensor], text: Tensor) -> Tensor:
        """``[..., N, output_dim]`` of streams ``[..., N, match]`` and texts ``[..., match]``."""
        products = [stream * text[..., None, :] for stream in audio]
        # Entries of unit vectors are tiny; these factors bring both kinds to about one.
        scaled = [part for p in products for part in (p * p.shape[-1], 10 * p.sum(-1, keepdim=True))]
        return self.projection(torch.cat(scaled, dim=-1))


class JudgeModel(nn.Module):
    """See the module's first lines. ``tokenizer`` is set where the text part needs one.

    The codec is a part of the model but never trained with it, and neither is the estimator, where there is one
    (:meth:`use_estimator`). The sentence encoder, where that is the text part, is shared by the process and not stored
    with the weights.
    """

    mean: Tensor  # [4], what scores are made of: frame output * std + mean
    std: Tensor

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer: Tokenizer | None = None
        width, final = config.transformer.hidden_size, config.finetune_transformer.hidden_size
        channels = config.codec.codebook_dim * (2 if config.log_input else 1)
        self.codec = DACEncoder(config.codec).requires_grad_(False)
        self.text_model = None if config.text is None else ModernBert(config.text)
        if config.listen:
            self.data_proj = nn.Linear(channels * config.token_frames, width)
            self.transformer = TemporalTransformer(config.transformer)
            self.text_proj1 = nn.Linear(config.text_dim, width, bias=False)
            self.cat_audio_proj = nn.Linear(config.streams * width, config.bottleneck_dim)
            self.text_proj2 = nn.Linear(width, config.bottleneck_dim)
            self.layer_norm = nn.LayerNorm(config.bottleneck_dim, eps=1e-5)
            self.proj_audio_and_text = nn.Linear(2 * config.bottleneck_dim, config.bottleneck_dim)
        self.match = (
            Match(width, config.text_dim, config.match, config.streams, config.bottleneck_dim) if config.match else None
        )
        self.bands = (
            nn.Sequential(nn.Linear(7 * config.bands * config.token_frames, width), nn.SiLU(),
                          nn.Linear(width, config.bottleneck_dim)) if config.bands else None
        )  # fmt: skip
        self.estimator: Estimator | None = None
        self.compare = self.clip_head = None
        if config.estimate:
            features = Estimator.width(config.estimate) + len(CLIP)
            self.compare = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, config.bottleneck_dim))
            self.clip_head = nn.Sequential(
                nn.Linear(len(CLIP), 2 * len(CLIP)), nn.SiLU(), nn.Linear(2 * len(CLIP), len(SCORES) + 1)
            )  # scores and presence
        self.overall_head = None
        if config.overall:
            self.overall_head = nn.Sequential(
                nn.Linear(3 * (len(CLIP) + len(MORE)), config.overall), nn.SiLU(), nn.Linear(config.overall, 1))
        self.finetune_data_proj = nn.Linear(config.bottleneck_dim, final)
        self.finetune_transformer = TemporalTransformer(config.finetune_transformer)
        self.head = nn.Linear(final, len(SCORES), bias=False)
        self.presence_head = nn.Linear(final, 1) if config.presence else None
        self.register_buffer("mean", torch.full((len(SCORES),), 3.0))
        self.register_buffer("std", torch.ones(len(SCORES)))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.codec.sample_rate

    @property
    def frame_seconds(self) -> float:
        """Length of a token in seconds."""
        return self.config.token_samples / self.sample_rate

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def use_codec(self, codec: nn.Module) -> None:
        """Take over the analysis half of ``codec``, which must have this model's codec configuration."""
        self.codec.load_state_dict(encoder_part(codec.state_dict(), self.config.codec.codebook_dim))

    def use_estimator(self, estimator: Estimator) -> None:
        """Compare with what this one separates.

        Raises:
            ValueError: this model compares with nothing, or the estimator has another codec.
        """
        if not self.config.estimate:
            raise ValueError("this model has no use for an estimator: its config says estimate=0")
        if estimator.embedder.config.codec != self.config.codec:
            raise ValueError("the estimator has another codec than the Judge")
        self.estimator = estimator.to(self.device)

    def estimated(self, mixture: Tensor, targets: Tensor, text: Tensor) -> Estimate:
        """`Estimate` for latents ``[B, D, F]`` and ``[B, M, D, F]`` and text vectors ``[B, Q, W]``.

        Raises:
            ValueError: there is no estimator.
        """
        if self.estimator is None:
            raise ValueError("this model has no estimator yet; load it with judge.load, or call use_estimator")
        return self.estimator(mixture, targets, text, self.config.estimate, self.config.token_frames)

    @torch.no_grad()
    def latents(self, waveform: Tensor) -> Tensor:
        """``[B, D, F]`` of ``[B, 1, T]`` at :attr:`sample_rate`."""
        return self.codec.latents(waveform.to(self.head.weight))

    def text_states(self, token_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Text vectors ``[B, W]`` of tokens ``[B, S]``: the first row of the text tower's states.

        Raises:
            ValueError: this model's text part is the sentence encoder, which reads texts.
        """
        if self.text_model is None:
            raise ValueError("this model reads no tokens; give texts to text_vectors")
        return self.text_model(token_ids, mask)[:, 0]

    @torch.no_grad()
    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Text vectors ``[B, W]``.

        Raises:
            ValueError: ``texts`` is no list of at least one text, or the model has no tokenizer.
        """
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"texts={texts!r}; give a list with at least one phrase")
        if self.text_model is None:
            return sentence_encoder()(texts).clone().to(self.head.weight)
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer; load it with judge.load, or give token ids to text_states")
        return self.text_states(*(x.to(self.device) for x in self.tokenizer(texts)))

    def forward(
        self, mixture: Tensor, target: Tensor, text: Tensor, mask: Tensor | None = None, *, masked: bool = False
    ) -> JudgeOutput:
        """Scores of a batch.

        Args:
            mixture, target: latents ``[B, D, F]``, see :meth:`latents`.
            text: text vectors ``[B, W]``.
            mask: ``[B, F]`` bool, true on frames of the clip, which come first; None when all are. As published,
                it only says which tokens are averaged: padding takes part in both transformers, so a clip's scores
                depend on its batch.
            masked: keep padding out of the transformers too, so that they do not.

        Raises:
            ValueError: shapes do not fit; or padding is given to a model with an estimator, which judges clips of one
                length at a time.
        """
        B, D, F = mixture.shape
        if target.shape != mixture.shape or self.config.codec.codebook_dim != D:
            raise ValueError(
                f"latents of shapes {tuple(mixture.shape)} and {tuple(target.shape)}; give both as "
                f"[B, {self.config.codec.codebook_dim}, F]"
            )
        if text.shape != (B, self.config.text_dim):
            raise ValueError(f"text has shape {tuple(text.shape)}; give [{B}, {self.config.text_dim}]")
        if mask is not None and mask.shape != (B, F):
            raise ValueError(f"mask has shape {tuple(mask.shape)}; give [{B}, {F}]")
        mask = None if mask is None else mask.bool()
        if mask is not None and self.config.estimate:
            if not bool(mask.all()):
                raise ValueError("this model judges no padding; give clips of one length, or call judge")
            mask = None
        valid = None if mask is None else token_mask(mask, self.config.token_frames)
        hearing = valid if masked else None

        bands = self.banded(mixture, target, mask)
        x = self._listened(mixture, target, text, bands, mask, hearing) if self.config.listen else bands
        assert x is not None
        estimate = self.estimated(mixture, target[:, None], text[:, None]) if self.config.estimate else None
        if estimate is not None:
            x = x + self.compared(estimate).flatten(0, 2)
        out = self.finetune_transformer(self.finetune_data_proj(x), hearing)

        clip = None if estimate is None else estimate.clip.flatten(0, 2)
        frames, presence = self.told(out, clip)
        if valid is None:
            scores = frames.mean(1)
        else:
            weight = valid[..., None].to(frames)
            scores = (frames * weight).sum(1) / weight.sum(1).clamp_min(1)
        return JudgeOutput(scores, frames, presence, valid)

    def banded(self, mixture: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """What comparing latents ``[B, D, F]`` band by band says of every token, ``[B, N, bottleneck_dim]``."""
        if self.bands is None:
            return None
        return self.bands(self.band_tokens(mixture, target, mask))

    def band_tokens(self, mixture: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """`band_features` of latents ``[B, D, F]`` as tokens ``[B, N, 7 * bands * token_frames]``."""
        compared = band_features(mixture, target, self.config.bands, mask)
        return tokens(compared, self.config.token_frames).to(self.head.weight)

    def _listened(
        self, mixture: Tensor, target: Tensor, text: Tensor, bands: Tensor | None, mask: Tensor | None,
        hearing: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Tokens ``[B, N, bottleneck_dim]`` that know of the sounds and of the text."""
        streams = self._streams(mixture, target, mask)
        stacked = torch.cat([tokens(x, self.config.token_frames) for x in streams]).to(self.head.weight)
        everywhere = None if hearing is None else hearing.repeat(len(streams), 1)
        heard = self.transformer(self.data_proj(stacked), everywhere).frames.chunk(len(streams))
        # Published order: the separated track first.
        audio = self.cat_audio_proj(torch.cat((heard[1], heard[0], *heard[2:]), dim=-1))
        if bands is not None:
            audio = audio + bands
        words = self.layer_norm(self.text_proj2(self.text_proj1(text)))[:, None].expand_as(audio)
        x = self.proj_audio_and_text(torch.cat((audio, words), dim=-1))
        if self.match is not None:
            x = x + self.match([self.match.audio(stream) for stream in heard], self.match.text(text))
        return x

    def compared(self, estimate: Estimate) -> Tensor:
        """What the comparison adds to the tokens of every pair, ``[B, Q, M, N, bottleneck_dim]``."""
        assert self.compare is not None
        clip = estimate.clip[..., None, : len(CLIP)].expand(*estimate.tokens.shape[:-1], -1)
        return self.compare(torch.cat((estimate.tokens, clip), dim=-1).to(self.head.weight))

    def told(self, out: Encoded, clip: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scores per token ``[B, N, 4]`` and presence ``[B]`` from the second transformer's output.

        ``clip [B, C]`` of an `Estimate` has a say of its own, so that what holds of the clip need not be carried by
        every token, and the only say in overall: there the tokens tell when, not how much. What they know of the level
        does not carry over to unseen recordings (docs/judge-training.md).
        """
        frames = self.head(out.frames).float()
        presence = None if self.presence_head is None else self.presence_head(out.pooled).float()[:, 0]
        if clip is None or self.clip_head is None:
            return frames * self.std.float() + self.mean.float(), presence
        direct = self.clip_head(clip[:, : len(CLIP)].to(self.head.weight)).float()
        if self.overall_head is not None:
            direct = torch.cat((self.joint_overall(clip, direct[:, :1]), direct[:, 1:]), dim=-1)
        when = frames[..., :1] - frames[..., :1].mean(1, keepdim=True)
        frames = torch.cat((when, frames[..., 1:]), dim=-1) + direct[:, None, : len(SCORES)]
        frames = frames * self.std.float() + self.mean.float()
        if presence is not None:
            presence = presence + direct[:, -1]
            # Overall is learned of sounds that are there. Of one that surely is not, it is by definition how quiet the
            # output is (`judge.targets`): a point for 10 dB.
            absent = torch.sigmoid(-2 * (presence + SURELY_ABSENT))[:, None, None].detach()
            quiet = (1 - clip[:, CLIP.index("output")].float()).clamp(1, 5)[:, None, None]
            frames = torch.cat(((1 - absent) * frames[..., :1] + absent * quiet, frames[..., 1:]), dim=-1)
        return frames, presence

    def overall_of(self, clip: Tensor) -> Tensor:
        """What the head for overall says, ``[B, 1]``, before it is brought to its scale, of ``clip [B, C]`` of an
        `Estimate`; the other half of overall is the clip head's."""
        assert self.overall_head is not None
        x = clip.to(self.head.weight)
        return self.overall_head(torch.cat((x, x.square(), x.abs()), dim=-1)).float()

    def joint_overall(self, clip: Tensor, told: Tensor) -> Tensor:
        """Overall ``[B, 1]`` of both heads, ``told`` being the clip head's."""
        # Each is right where the other errs: of separators' outputs the new one, of spoiled true stems the old one.
        return (self.overall_of(clip) + told) / 2

    def _streams(self, mixture: Tensor, target: Tensor, mask: Tensor | None) -> Sequence[Tensor]:
        """What the first transformer hears, ``[B, C, F]`` each: mixture, target and perhaps the rest."""
        latents = (mixture, target, mixture - target) if self.config.residual else (mixture, target)
        return joint_log_features(*latents, mask=mask) if self.config.log_input else latents

    @torch.inference_mode()
    def judge(self, mixtures: Sequence[Tensor], targets: Sequence[Tensor], text: Tensor) -> list[JudgeOutput]:
        """One output with B = 1 for each pair of clips; none depends on what it is batched with.

        Clips of equal frame count share a batch, and a mixture that is given several times is encoded once.

        Args:
            mixtures, targets: mono clips ``[T_i]`` at :attr:`sample_rate`, in pairs of one length.
            text: text vectors ``[B, W]``.

        Raises:
            ValueError: numbers or lengths differ, or a clip is empty.
        """
        if not len(mixtures) == len(targets) == len(text):
            raise ValueError(f"{len(mixtures)} mixtures, {len(targets)} targets and {len(text)} texts; give as many")
        for i, (mixture, target) in enumerate(zip(mixtures, targets, strict=True)):
            if mixture.shape != target.shape:
                raise ValueError(f"pair {i} has shapes {tuple(mixture.shape)}, {tuple(target.shape)}; give one length")
        clips = {id(clip): clip for clip in (*mixtures, *targets)}
        encoded = self.codec.encode_clips([clip.to(self.head.weight) for clip in clips.values()])
        latents = dict(zip(clips, encoded, strict=True))
        groups: dict[int, list[int]] = {}
        for i, mixture in enumerate(mixtures):
            groups.setdefault(latents[id(mixture)].shape[-1], []).append(i)
        found: dict[int, JudgeOutput] = {}
        for members in groups.values():
            out = self(
                torch.stack([latents[id(mixtures[i])] for i in members]),
                torch.stack([latents[id(targets[i])] for i in members]),
                text[members].to(self.head.weight),
            )
            for row, i in enumerate(members):
                presence = None if out.presence is None else out.presence[row : row + 1]
                found[i] = JudgeOutput(out.scores[row : row + 1], out.frames[row : row + 1], presence)
        return [found[i] for i in range(len(mixtures))]
