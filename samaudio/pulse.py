"""When does this object sound? What its movement says of the loudness of its sound.

A drummer's arm, a mouth, a bow: things move as they sound. `Pulse` reads how an object moves through the picture, and
answers with a contour that is compared with that of a sound by its correlation. It knows nothing of what the object
looks like or of what its sound is like, which is what the towers compare; so it is right where they are not, between
two objects that look alike.

Axes: ``B`` objects, ``N`` looks at a film, `RATE` per second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from peav.checkpoints import Part

from .visual.geometry import GEOMETRY

RATE = 8.0  # looks per second that it was trained with
_WINDOW = 0.08  # seconds of sound that one look shows
_FASTER = 4.0  # differences between looks are smaller than what they are differences of


@dataclass(frozen=True)
class PulseConfig:
    """``width`` channels; one block for each of the ``dilations``, over looks."""

    width: int = 64
    dilations: tuple[int, ...] = (1, 2, 4)
    dropout: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))


class Pulse(Part):
    """`samaudio.visual.geometry.geometry` of an object through a film ``[B, N, 9]`` to a contour ``[B, N]``."""

    format, sizes = "pulse", PulseConfig

    def __init__(self, config: PulseConfig = PulseConfig()):
        super().__init__()
        self.config = config
        W = config.width
        self.enter = nn.Conv1d(4 * GEOMETRY, W, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(1, W) for _ in config.dilations)
        self.mix = nn.ModuleList(nn.Conv1d(W, 2 * W, 3, padding=d, dilation=d) for d in config.dilations)
        self.leave = nn.Conv1d(W, 1, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, geometry: Tensor) -> Tensor:
        x = self.enter(changes(geometry).transpose(1, 2))
        for norm, mix in zip(self.norms, self.mix, strict=True):
            value, gate = mix(norm(x)).chunk(2, dim=1)
            x = x + self.dropout(value * F_.silu(gate))
        return self.leave(x)[:, 0]


def changes(geometry: Tensor) -> Tensor:
    """``[B, N, 9]`` to ``[B, N, 36]``: each number less its mean, how it changes, by how much, and how abruptly.

    Where an object is out of sight, and across such gaps, all are zero.
    """
    seen = geometry[..., -1:]
    mean = (geometry * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp_min(1)
    step, turn = torch.zeros_like(geometry), torch.zeros_like(geometry)
    step[:, 1:] = (geometry[:, 1:] - geometry[:, :-1]) * seen[:, 1:] * seen[:, :-1]
    turn[:, 1:-1] = (step[:, 2:] - step[:, 1:-1]) * seen[:, 2:] * seen[:, :-2]
    return torch.cat(((geometry - mean) * seen, _FASTER * step, _FASTER * step.abs(), _FASTER * turn.abs()), dim=-1)


def agreement(pulses: Tensor, loudness: Tensor) -> Tensor:
    """Correlations ``[B, S]`` of contours ``[B, N]`` and ``[S, N]``; 0 of one that never changes."""
    return _standard(pulses) @ _standard(loudness).T


def _standard(contours: Tensor) -> Tensor:
    centred = contours - contours.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True).clamp_min(1e-3)


def envelope(samples: np.ndarray, rate: int, times: np.ndarray) -> np.ndarray:
    """Loudness ``[N]``, 0 to 1, of ``samples [T]`` around each time in seconds.

    Amplitude over 80 ms to the power 0.7, as a share of the loudest of these moments; silence stays 0.
    """
    energy = np.concatenate(([0.0], np.cumsum(samples.astype(np.float64) ** 2)))
    begin = np.round((times - _WINDOW / 2) * rate).astype(int).clip(0, len(samples))
    end = np.round((times + _WINDOW / 2) * rate).astype(int).clip(0, len(samples))
    power = (energy[end] - energy[begin]) / (_WINDOW * rate)
    loudness = np.sqrt(power.clip(0)) ** 0.7
    loudest = float(loudness.max())
    return loudness / loudest if loudest > 1e-6 else np.zeros(len(times))
