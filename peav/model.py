"""The embedder: audio and text in one space.

Axes: ``B`` batch, ``D`` latent channels, ``F`` latent frames, ``N`` tokens (one per ``token_frames`` latent frames),
``E`` embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from .codec import CodecConfig, DACEncoder
from .codec_keys import encoder_part
from .latents import log_features
from .text import SENTENCE_DIM, sentence_encoder
from .transformer import TemporalTransformer, TransformerConfig


@dataclass(frozen=True)
class EmbedderConfig:
    """Sizes of the embedder.

    ``token_frames``: latent frames per token (published 1, at 25 frames per second). ``log_input``: feed the tower
    log magnitudes, which a lapped latent needs, instead of the latent itself, as published. ``normalise``: unit
    embeddings; the published models leave them as they are.
    """

    codec: CodecConfig
    tower: TransformerConfig
    output_dim: int = 256
    token_frames: int = 2
    log_input: bool = True
    normalise: bool = True
    text_dim: int = SENTENCE_DIM

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"codec": self.codec.to_dict(), "tower": self.tower.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EmbedderConfig:
        return cls(**{**values, "codec": CodecConfig.from_dict(values["codec"]),
                      "tower": TransformerConfig(**values["tower"])})


class Head(nn.Module):
    """LayerNorm, then a linear map without bias: from a tower's width to the shared space."""

    def __init__(self, width: int, output_dim: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.projection = nn.Linear(width, output_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.layer_norm(x))


class AudioTower(nn.Module):
    """Latents to a pooled vector and tokens, at the tower's width."""

    def __init__(self, config: EmbedderConfig):
        super().__init__()
        self.config = config
        channels = config.codec.codebook_dim * (2 if config.log_input else 1)
        self.data_proj = nn.Linear(channels * config.token_frames, config.tower.hidden_size)
        self.transformer = TemporalTransformer(config.tower)

    def forward(self, latent: Tensor, mask: Tensor | None = None):
        """``latent [B, D, F]``, ``mask [B, N]`` over tokens; the last token is filled up with silence."""
        x = log_features(latent) if self.config.log_input else latent
        x = F_.pad(x, (0, -x.shape[-1] % self.config.token_frames), mode="replicate")
        B, D, F = x.shape
        tokens = x.view(B, D, -1, self.config.token_frames).permute(0, 2, 3, 1).flatten(2)
        return self.transformer(self.data_proj(tokens), mask)


class PEAV(nn.Module):
    """Audio tower over the codec's latents, heads for audio and text.

    The codec is a part of the model but never trained with it. The sentence encoder is frozen, shared by the
    process and not stored with the weights.
    """

    def __init__(self, config: EmbedderConfig):
        super().__init__()
        self.config = config
        self.codec = DACEncoder(config.codec).requires_grad_(False)
        self.audio = AudioTower(config)
        self.audio_head = Head(config.tower.hidden_size, config.output_dim)
        self.text_audio_head = Head(config.text_dim, config.output_dim)
        # log-temperature and bias of SigLIP: the first step sees almost all pairs as negatives, as they are
        self.text_audio_log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.text_audio_bias = nn.Parameter(torch.tensor(-10.0))

    def use_codec(self, codec: DACEncoder) -> None:
        """Take over the analysis half of ``codec``, which must have this model's codec configuration."""
        self.codec.load_state_dict(encoder_part(codec.state_dict(), self.config.codec.codebook_dim))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.codec.sample_rate

    def audio_embedding(self, latent: Tensor) -> Tensor:
        """``[B, E]`` of latents ``[B, D, F]``."""
        return self._finish(self.audio_head(self.audio(latent).pooled))

    def text_embedding(self, sentences: Tensor) -> Tensor:
        """``[B, E]`` of sentence vectors ``[B, 384]``."""
        return self._finish(self.text_audio_head(sentences))

    def text_audio_logits(self, audio: Tensor, text: Tensor) -> Tensor:
        """``[B_audio, B_text]``: log-odds that a text describes an audio."""
        return audio @ text.T * self.text_audio_log_scale.exp() + self.text_audio_bias

    def _finish(self, x: Tensor) -> Tensor:
        return F_.normalize(x.float(), dim=-1) if self.config.normalise else x

    @torch.inference_mode()
    def embed(self, *, text: Sequence[str] | None = None, audio: Sequence[Tensor] | None = None) -> Tensor:
        """Embeddings ``[B, E]`` of texts, or of mono clips ``[T_i]`` at :attr:`sample_rate`.

        Each clip is encoded as if it were alone, so what it is batched with does not matter.

        Raises:
            ValueError: not exactly one of ``text`` and ``audio`` was given, or it is empty.
        """
        if (text is None) == (audio is None):
            raise ValueError("give either text=[...] or audio=[...]")
        if text is not None:
            if isinstance(text, str) or not len(text):
                raise ValueError(f"text={text!r}; give a list with at least one phrase")
            return self.text_embedding(sentence_encoder()(text).clone().to(self.audio_head.projection.weight))
        if not audio:
            raise ValueError("audio is empty; give a list with at least one clip [T]")
        return torch.cat([self.audio_embedding(z[None]) for z in self.codec.encode_clips(list(audio))])
