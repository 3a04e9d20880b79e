"""Watermark branch of the published codec: hides a few bits in a decoded waveform.

A small causal network reads the clean waveform, takes the message in at its narrowest point and returns what
to add. Nothing in this project needs it; it exists so that the published decoder can be reproduced, and it
runs only when somebody passes a message.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class WatermarkConfig:
    """Sizes of the watermark branch; the defaults are the published ones."""

    rates: tuple[int, ...] = (8, 5, 4, 2)  # strides from the narrow end to the waveform
    hidden: int = 512  # width at the narrow end, halved by every rate
    channels: int = 32  # width next to the waveform
    latent_dim: int = 128  # width where the message is added
    nbits: int = 16
    lstm_layers: int = 2
    alpha: float = 0.25  # share of the branch in the output

    def __post_init__(self) -> None:
        for name in ("hidden", "channels", "latent_dim", "nbits", "lstm_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"watermark {name}={getattr(self, name)} must be 1 or more")
        if any(rate < 1 for rate in self.rates):
            raise ValueError(f"watermark rates={self.rates} must all be 1 or more")
        if self.channels % 2 or self.hidden != self.channels * 2 ** len(self.rates):
            raise ValueError(
                f"watermark hidden={self.hidden} must be channels={self.channels} doubled by each of "
                f"{len(self.rates)} rates, and channels must be even"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"rates": list(self.rates)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WatermarkConfig:
        """Inverse of `to_dict`. Unknown names are refused."""
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(f"unknown watermark settings {unknown}; known: {sorted(names)}")
        return cls(**values | {"rates": tuple(values.get("rates", cls.rates))})


class CausalConv(nn.Conv1d):
    """Convolution that sees no later sample: ``[B, C, T] -> [B, C', ceil(T / stride)]``."""

    def forward(self, x: Tensor) -> Tensor:
        stride = self.stride[0]
        left = self.kernel_size[0] - stride
        return super().forward(F.pad(x, (left, -x.shape[-1] % stride)))


class CausalUpsample(nn.ConvTranspose1d):
    """Transposed convolution that spreads each frame only forwards: ``[B, C, F] -> [B, C', F * stride]``."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[..., : x.shape[-1] * self.stride[0]]


class EluUnit(nn.Module):
    """Residual unit through half the channels, ``[B, C, T] -> [B, C, T]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = CausalConv(width, width // 2, 3)
        self.conv2 = nn.Conv1d(width // 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.elu(self.conv1(F.elu(x))))


class SkipLstm(nn.Module):
    """LSTM over time with its input added, ``[B, C, T] -> [B, C, T]``."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x.permute(2, 0, 1))
        return x + out.permute(1, 2, 0)


class WatermarkLevel(nn.Module):
    """One resolution: the way in (`unit_in`, `down`) and the way back (`up`, `unit_out`)."""

    def __init__(self, wide: int, narrow: int, rate: int) -> None:
        super().__init__()
        self.unit_in = EluUnit(narrow)
        self.down = CausalConv(narrow, wide, 2 * rate, stride=rate)
        self.up = CausalUpsample(wide, narrow, 2 * rate, stride=rate)
        self.unit_out = EluUnit(narrow)


class Watermark(nn.Module):
    """What to add to a clean waveform ``[B, 1, T]`` to make it carry bits ``[B, nbits]``."""

    def __init__(self, config: WatermarkConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = CausalConv(1, config.channels, 7)
        # Listed as in the decoder they ride on: level 0 is the narrow end, the last touches the waveform.
        widths = [config.hidden // 2**i for i in range(len(config.rates) + 1)]
        self.levels = nn.ModuleList(
            WatermarkLevel(wide, narrow, rate)
            for wide, narrow, rate in zip(widths[:-1], widths[1:], config.rates, strict=True)
        )
        self.lstm_in = SkipLstm(config.hidden, config.lstm_layers)
        self.to_latent = CausalConv(config.hidden, config.latent_dim, 7)
        self.message = nn.Embedding(2 * config.nbits, config.latent_dim)
        self.from_latent = CausalConv(config.latent_dim, config.hidden, 7)
        self.lstm_out = SkipLstm(config.hidden, config.lstm_layers)
        self.head = CausalConv(config.channels, 1, 7)

    @property
    def hop_length(self) -> int:
        """Samples per step of the narrow end."""
        return math.prod(self.config.rates)

    def forward(self, clean: Tensor, message: Tensor) -> Tensor:
        x = self.stem(clean)
        levels: list[Any] = list(self.levels)
        for level in reversed(levels):
            x = level.down(F.elu(level.unit_in(x)))
        x = self.to_latent(F.elu(self.lstm_in(x)))
        x = x + self._embed(message, clean.shape[0])[:, :, None]
        x = self.lstm_out(self.from_latent(x))
        for level in levels:
            x = level.unit_out(level.up(F.elu(x)))
        return self.head(F.elu(x))[..., : clean.shape[-1]]

    def _embed(self, message: Tensor, batch: int) -> Tensor:
        """Sum over bits i of row ``2 * i + bit_i``: ``[B, nbits] -> [B, latent_dim]``."""
        nbits = self.config.nbits
        if message.shape != (batch, nbits):
            raise ValueError(f"message has shape {tuple(message.shape)}; give bits [{batch}, {nbits}]")
        bits = message.to(self.message.weight.device).long()
        if not bool(((message == 0) | (message == 1)).all()):
            raise ValueError(f"message is made of 0 and 1, got {sorted(set(message.flatten().tolist()))}")
        rows = 2 * torch.arange(nbits, device=bits.device) + bits
        return self.message(rows).sum(dim=1)
