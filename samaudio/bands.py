"""A mask for frequencies that the model cannot hear."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

HEARD = (0.70, 0.95)  # of the model's Nyquist frequency: the band that speaks for everything above it
HANDOVER = 0.90  # from here on the model's own mask fades out, as resampling leaves it less and less to hear
SMOOTHING = 5  # frames


def extend(mask: Tensor, power: Tensor, sample_rate: int, model_rate: int) -> Tensor:
    """Continue a mask above the model's band, frame by frame.

    A sound's highest band tells best what happens above it, so all bins up there get its mean mask,
    weighted by the mixture's energy and averaged over :data:`SMOOTHING` frames.

    Args:
        mask, power: the mask and the mixture's power, ``[C, bins, frames]`` over 0 to ``sample_rate / 2`` Hz.
    """
    if sample_rate <= model_rate:
        return mask
    C, bins, _ = mask.shape
    nyquists = torch.linspace(0, sample_rate / model_rate, bins, device=mask.device)  # frequency / model's Nyquist
    band = (nyquists >= HEARD[0]) & (nyquists <= HEARD[1])
    if not bool(band.any()):
        band = nyquists == nyquists[nyquists <= 1].max()
    weight = power[:, band] + 1e-12
    above = _smooth((mask[:, band] * weight).mean(1)) / _smooth(weight.mean(1))
    share = ((nyquists - HANDOVER) / (HEARD[1] - HANDOVER)).clamp(0, 1)[:, None]
    return mask.lerp(above[:, None].expand(C, bins, -1), share)


def _smooth(x: Tensor) -> Tensor:
    return avg_pool1d(x, SMOOTHING, stride=1, padding=SMOOTHING // 2, count_include_pad=False)
