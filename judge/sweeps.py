"""One fault at a time, from hardly there to as bad as it gets, and what a Judge says of it.

Axes: ``N`` mixtures, ``L`` levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import degrade
from .collection import Collection
from .grid import Words, judge_grid
from .model import SCORES, JudgeModel
from .targets import measure, window_length


@dataclass(frozen=True)
class Sweep:
    """``score`` has to fall along ``levels``; ``make(stem, rest, level, rate)`` is the output at one of them."""

    name: str
    score: str
    unit: str
    levels: tuple[float, ...]
    make: Callable[[Tensor, Tensor, float, int], Tensor]


def _stretch(s: Tensor, share: float, rate: int) -> Tensor:
    return degrade.suppress_stretch(s, 0.0, share * len(s) / rate, 80.0, rate)


def _band(s: Tensor, share: float, rate: int) -> Tensor:
    # From the bottom up: a share of the octaves between 40 Hz and half the rate.
    return degrade.suppress_band(s, 1.0, 40.0 * (rate / 80) ** share, 80.0, rate) if share else s


def _musical(s: Tensor, share: float, rate: int) -> Tensor:
    return degrade.musical_noise(s, np.random.default_rng(0), share, 60.0, window_length(rate))


SWEEPS = (
    Sweep("leakage", "precision", "level of the rest, dB", (-30, -25, -20, -15, -10, -5, 0, 5),
          lambda s, n, v, rate: degrade.leak(s, n, v)),
    Sweep("suppression", "recall", "taken off the stem, dB", (0, 2, 4, 6, 9, 12, 16, 20),
          lambda s, n, v, rate: degrade.suppress(s, v)),
    Sweep("gap", "recall", "share of the time that is missing", (0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9),
          lambda s, n, v, rate: _stretch(s, v, rate)),
    Sweep("band", "recall", "share of the octaves that is missing", (0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
          lambda s, n, v, rate: _band(s, v, rate)),
    Sweep("musical noise", "faithfulness", "share of the bins that is gone", (0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8),
          lambda s, n, v, rate: _musical(s, v, rate)),
    Sweep("noise", "faithfulness", "white noise against the stem, dB", (-25, -20, -15, -10, -5, 0, 5, 10),
          lambda s, n, v, rate: degrade.noise(s, np.random.default_rng(0), -v)),
)  # fmt: skip


@dataclass
class Curve:
    """Means over the mixtures ``told [L, 4]`` and ``true [L, 4]`` of all scores; ``falls`` whether the mean of the
    sweep's own score falls at every step, ``steps`` the share of single steps at which it does where the truth does."""

    sweep: Sweep
    told: np.ndarray
    true: np.ndarray
    falls: bool
    steps: float


@torch.inference_mode()
def run(model: JudgeModel, collection: Collection, sweep: Sweep, most: int) -> Curve:
    """The sweep over the first ``most`` stems of a collection, each asked for by its first question."""
    words, told, true = Words(model), [], []
    for i in range(min(most, len(collection))):
        example, rate = collection[i].example, collection.sample_rate
        stem, rest = example.stems[0], example.mixture - example.stems[0]
        if not example.questions[0].present or float(rest.abs().max()) < 1e-3 * float(stem.abs().max()):
            continue  # nothing that could leak
        outputs = torch.stack([sweep.make(stem, rest, level, rate) for level in sweep.levels])
        latent = model.latents(example.mixture[None, None].to(model.device))
        text = words([example.questions[0].phrase])[None].to(model.device)
        grid = judge_grid(model, latent, model.latents(outputs[:, None].to(model.device))[None], text)
        told.append(grid.scores[0, 0].cpu().numpy())
        true.append(measure(outputs, stem, example.mixture, rate).scores.numpy())
    which = SCORES.index(sweep.score)
    mine, wanted = np.stack(told), np.stack(true)
    mean = mine.mean(0)
    falling = np.diff(wanted[..., which], axis=1) < -0.05
    steps = np.diff(mine[..., which], axis=1)[falling] < 0
    return Curve(sweep, mean, np.nanmean(wanted, 0), bool((np.diff(mean[:, which]) < 0).all()), float(steps.mean()))
