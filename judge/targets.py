"""What a separation deserves, from the true stem: the four scores that the network learns to tell without it.

Axes: ``M`` outputs of one mixture, ``T`` samples, ``P`` blocks of time, 4 scores in the order of :data:`NAMES`.

The output ``y`` is taken apart on the STFT into tiles of :data:`BLOCK_FRAMES` frames and a band of frequency. In each
tile ``Y = a S + b N + E`` with one complex gain each for the true stem ``S`` and for the rest of the mixture ``N``
(least squares): the decomposition of BSS Eval (Vincent et al., IEEE TASLP 2006) with gains that may change over time
and frequency, as those of a mask do. With energies summed over the tiles:

============  =====================================================  =========================  ======  ======
score         measured, dB                                           in words                   1 at    5 at
============  =====================================================  =========================  ======  ======
overall       SI-SDR = |g s|^2 / (|y - g s|^2 + 1e-4 |s|^2)          all errors together        -15 dB   25 dB
recall        |S|^2 / (1 - min(|a|, 1))^2 |S|^2                      how little of it is lost     0 dB   20 dB
precision     |a S|^2 / |b N|^2 (SIR)                                how little else is heard   -10 dB   30 dB
faithfulness  (|a S|^2 + |b N|^2) / |E|^2 (SAR)                      how little was added         0 dB   20 dB
============  =====================================================  =========================  ======  ======

Between the two ends a score is linear in dB, beyond them it stays at 1 or 5. A score that the output cannot be given
is NaN and is not learned from:

- *Silent output of a sound that is there* (:data:`SILENT_DB` below the mixture): overall and recall are 1, precision
  and faithfulness NaN.
- *A sound that is not in the mixture*: only silence is right. With the output ``L`` dB below the mixture, overall is
  that of an SI-SDR of ``L - 15`` dB and precision that of a SIR of ``L - 10`` dB, so both are 1 for the whole mixture
  and 5 from 40 dB on; recall and faithfulness are NaN. For a silent output all four are 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("overall", "recall", "precision", "faithfulness")
RANGES = {"overall": (-15.0, 25.0), "recall": (0.0, 20.0), "precision": (-10.0, 30.0), "faithfulness": (0.0, 20.0)}
VERSION = 1  # of all that is written above; stored with what was made by it
SILENT_DB = 50.0  # an output this far below its mixture counts as silent
WINDOW_SECONDS = 0.0853
BLOCK_FRAMES = 8  # hops of a quarter window: 171 ms
BAND_BINS = 6  # at least, of a band; wide enough that two gains are not fitted to a handful of numbers
SMOOTH = 1e-3  # of a measure's mean energy per block: what lies below it says nothing about its block
MOST_GAIN = 4.0  # of a and b
_LIMIT = 60.0  # dB


@dataclass
class Targets:
    """``scores [M, 4]`` in 1..5 or NaN; ``blocks [M, P, 4]`` the same block by block, whose mean over ``P`` is the
    score to within the limits of the scale; ``db [M, 4]`` before the scale; ``si_sdr [M]`` dB, NaN without a target."""

    scores: Tensor
    blocks: Tensor
    db: Tensor
    si_sdr: Tensor


def to_scores(db: Tensor) -> Tensor:
    """Decibels ``[..., 4]`` on the scale of 1 to 5."""
    low, high = (torch.tensor([RANGES[name][i] for name in NAMES], dtype=db.dtype) for i in (0, 1))
    return (1 + 4 * (db - low) / (high - low)).clamp(1, 5)


def measure(outputs: Tensor, target: Tensor, mixture: Tensor, sample_rate: int) -> Targets:
    """Scores of ``outputs [M, T]`` for the true stem ``target [T]`` (all zeros: not there) in ``mixture [T]``.

    Raises:
        ValueError: the shapes differ, or the mixture is silent.
    """
    if outputs.dim() != 2 or target.dim() != 1 or not outputs.shape[-1] == len(target) == len(mixture):
        raise ValueError(f"outputs {tuple(outputs.shape)}, target {tuple(target.shape)} and mixture "
                         f"{tuple(mixture.shape)}; give [M, T], [T] and [T]")  # fmt: skip
    if float(mixture.abs().max()) == 0:
        raise ValueError("nothing can be separated from a silent mixture")
    outputs, target, mixture = outputs.float(), target.float(), mixture.float()
    # One scale for all three changes no score and keeps squares far from the ends of what floats can hold.
    scale = 0.5 / mixture.abs().max()
    outputs, target, mixture = outputs * scale, target * scale, mixture * scale
    below = _ratio(mixture.square().sum(), outputs.square().sum(-1))
    silent = below >= SILENT_DB
    window = torch.hann_window(window_length(sample_rate))
    Y = _stft(outputs, window)
    if float(target.square().sum()) <= 1e-10 * float(mixture.square().sum()):
        db, local, weight = _absent(Y, below, mixture, window)
        scores = to_scores(db)
        scores[silent] = 5.0
        si_sdr = torch.full_like(below, math.nan)
    else:
        db, local, weight, si_sdr = _present(Y, outputs, target, mixture, window)
        scores = to_scores(db)
        scores[silent] = torch.tensor([1.0, 1.0, math.nan, math.nan], dtype=scores.dtype)
    return Targets(scores.float(), _blocks(scores, local, weight).float(), db.float(), si_sdr.float())


def window_length(sample_rate: int) -> int:
    """Samples of the analysis window, a multiple of four."""
    return max(16, 4 * round(sample_rate * WINDOW_SECONDS / 4))


def block_samples(sample_rate: int) -> int:
    """Samples from one block to the next; the first is centred half a block after the start."""
    return BLOCK_FRAMES * window_length(sample_rate) // 4


def at_frames(blocks: Tensor, frames: int, frame_seconds: float, sample_rate: int) -> Tensor:
    """Blocks ``[M, P, 4]`` at ``frames`` frames of a model, ``[M, F, 4]``: each frame takes the block it lies in."""
    middles = (torch.arange(frames) + 0.5) * frame_seconds * sample_rate
    return blocks[:, (middles / block_samples(sample_rate)).long().clamp(max=blocks.shape[1] - 1)]


def _present(Y: Tensor, outputs: Tensor, target: Tensor, mixture: Tensor, window: Tensor
             ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    S, N = _stft(target[None], window)[0], _stft((mixture - target)[None], window)[0]
    bands = _bands(len(S)).to(S.real)
    stem, kept, lost, leaked, added = _decompose(Y, S, N, bands)
    energy = target.square().sum()
    gain = outputs @ target / energy
    wanted, error = gain.square() * energy, (outputs - gain[:, None] * target).square().sum(-1)
    si_sdr = _ratio(wanted, error)
    si_sdr[wanted + error == 0] = -_LIMIT
    G, R = gain[:, None, None] * S, Y - gain[:, None, None] * S
    wanted_local, error_local = _over_time(_power(G).sum(1)), _over_time(_power(R).sum(1))
    floor = 1e-4 * stem
    db = torch.stack((_ratio(wanted, error + 1e-4 * energy), _ratio(stem.sum().expand(len(Y)), lost.sum(-1)),
                      _ratio(kept.sum(-1), leaked.sum(-1)), _ratio((kept + leaked).sum(-1), added.sum(-1))), dim=-1)
    stem = stem.expand(len(Y), -1)
    local = torch.stack((_local(wanted_local, error_local + floor), _local(stem, lost), _local(kept, leaked),
                         _local(kept + leaked, added)), dim=-1)
    weight = torch.stack([_weight(e) for e in (wanted_local + error_local + floor, stem, kept + leaked,
                                               kept + leaked + added)], dim=-1)
    return db, local, weight, si_sdr


def _absent(Y: Tensor, below: Tensor, mixture: Tensor, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    whole = _over_time(_power(_stft(mixture[None], window)).sum(1)).expand(len(Y), -1)
    out = _over_time(_power(Y).sum(1))
    nothing = torch.full_like(below, math.nan)
    offsets = {name: RANGES[name][0] for name in ("overall", "precision")}
    db = torch.stack((below + offsets["overall"], nothing, below + offsets["precision"], nothing), dim=-1)
    ratio = _local(whole, out)
    local = torch.stack((ratio + offsets["overall"], torch.full_like(ratio, math.nan), ratio + offsets["precision"],
                         torch.full_like(ratio, math.nan)), dim=-1)  # fmt: skip
    return db, local, _weight(whole)[..., None].expand_as(local)


def _decompose(Y: Tensor, S: Tensor, N: Tensor, bands: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Energies per block: stem ``[P]``; kept, lost, leaked, added ``[M, P]``."""
    def tiles(x: Tensor) -> Tensor:  # [..., bins, frames] to sums over tiles [..., bands, P]
        return _over_time(bands.to(x.dtype) @ x)

    ss, nn, sn = tiles(_power(S)), tiles(_power(N)), tiles(S.conj() * N)
    sy, ny, yy = tiles(S.conj() * Y), tiles(N.conj() * Y), tiles(_power(Y))
    # A thousandth on the diagonal: gains of two signals that are alike in a tile are shared, not opposed.
    tiny = 1e-9 * (ss.sum() + nn.sum()) / ss.numel() + 1e-20
    s_, n_ = 1.001 * ss + tiny, 1.001 * nn + tiny
    determinant = s_ * n_ - sn.abs().square()
    a = (n_ * sy - sn * ny) / determinant
    b = (s_ * ny - sn.conj() * sy) / determinant
    # Where stem or rest are almost silent, their gain would explain anything; more than that is something else.
    a, b = (gain * (MOST_GAIN / gain.abs().clamp_min(MOST_GAIN)) for gain in (a, b))
    kept, leaked = a.abs().square() * ss, b.abs().square() * nn
    cross = 2 * (a.conj() * b * sn).real
    added = (yy + kept + leaked + cross - 2 * (a.conj() * sy + b.conj() * ny).real).clamp_min(0)
    lost = (1 - a.abs().clamp(max=1)).square() * ss
    return ss.sum(0), kept.sum(1), lost.sum(1), leaked.sum(1), added.sum(1)


def _blocks(scores: Tensor, local: Tensor, weight: Tensor) -> Tensor:
    """Scores per block: what was measured there as far as anything sounds, else the clip's; with the clip's mean."""
    whole = scores[:, None].expand_as(local)
    blocks = torch.where(local.isnan(), whole, weight * to_scores(local) + (1 - weight) * whole)
    # The network's score is the mean of its frames, so the two have to agree.
    for _ in range(3):  # shifting against the ends of the scale leaves a little, which the next round takes
        blocks = (blocks + whole - blocks.mean(1, keepdim=True)).clamp(1, 5)
    return blocks


def _bands(bins: int) -> Tensor:
    """Which bin belongs to which band, ``[bands, bins]`` of 0 and 1; widths grow by a sixth."""
    edges = [0]
    while edges[-1] < bins:
        edges.append(edges[-1] + max(BAND_BINS, round(edges[-1] / 6)))
    if bins - edges[-2] < BAND_BINS and len(edges) > 2:
        del edges[-2]
    index = torch.arange(bins)
    return torch.stack([(index >= a) & (index < b) for a, b in zip(edges, edges[1:], strict=False)]).float()


def _stft(x: Tensor, window: Tensor) -> Tensor:
    n = len(window)
    return torch.stft(x, n, n // 4, window=window, center=True, pad_mode="constant", return_complex=True)


def _power(x: Tensor) -> Tensor:
    return x.real.square() + x.imag.square()


def _over_time(x: Tensor) -> Tensor:
    """Sums over blocks of frames ``[..., frames] -> [..., P]``; the last block may be shorter."""
    x = torch.nn.functional.pad(x, (0, -x.shape[-1] % BLOCK_FRAMES))
    return x.unflatten(-1, (-1, BLOCK_FRAMES)).sum(-1)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """``10 log10(a / b)``, at most 60 dB either way."""
    bound = 10 ** (_LIMIT / 10)
    return 10 * ((a + 1e-20) / (b + 1e-20)).clamp(1 / bound, bound).log10()


def _local(a: Tensor, b: Tensor) -> Tensor:
    """`_ratio` per block ``[M, P]``, over three blocks, since half a second is about what a listener judges by."""
    return _ratio(_spread(a), _spread(b))


def _weight(energy: Tensor) -> Tensor:
    energy = _spread(energy)
    return energy / (energy + SMOOTH * energy.mean(-1, keepdim=True) + 1e-20)


def _spread(x: Tensor) -> Tensor:
    weights = torch.tensor([[[0.25, 0.5, 0.25]]], dtype=x.dtype)
    return torch.nn.functional.conv1d(torch.nn.functional.pad(x[:, None], (1, 1), mode="replicate"), weights)[:, 0]
