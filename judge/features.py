"""What a Judge sees of latents that are not fed to it as they are.

Axes: ``B`` batch, ``D`` latent channels, ``F`` latent frames, ``N`` tokens of ``token_frames`` frames each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F_
from torch import Tensor

FLOOR = 1e-6  # of the mixture's mean power: what lies 60 dB below it counts as nothing


def joint_log_features(
    mixture: Tensor, *others: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Log features ``[B, 2D, F]`` of the mixture and of sounds cut from it, all on the mixture's own scale.

    As `peav.latents.log_features`, the log power of every channel, as it is and averaged over three frames; but
    relative to the mean power of the *mixture* in all of them. So the level of the recording does not matter,
    while a target that is too quiet, or a leak 30 dB below the rest, does.

    Args:
        mixture, others: latents ``[B, D, F]``.
        mask: ``[B, F]`` bool, true on frames of the clip, which come first; None when all are. Frames of the
            padding repeat the clip's last one.

    Raises:
        ValueError: the latents differ in shape.
    """
    if any(other.shape != mixture.shape for other in others):
        raise ValueError(f"latents of shapes {[tuple(x.shape) for x in (mixture, *others)]}; they must agree")
    keep = None if mask is None else mask[:, None, :].to(torch.float32)
    power = mixture.float().square()
    if keep is None:
        scale = power.mean((1, 2), keepdim=True)
    else:
        scale = (power * keep).sum((1, 2), keepdim=True) / (keep.sum((1, 2), keepdim=True) * power.shape[1])
    scale = scale.clamp_min(1e-12)
    return tuple(_log(x.float().square() / scale, keep) for x in (mixture, *others))


def band_features(mixture: Tensor, target: Tensor, bands: int, mask: Tensor | None = None) -> Tensor:
    """Mixture, target and what is left of the mixture compared band by band, ``[B, 7 * bands, F]``.

    Of each band: the log power of the three on the mixture's scale; how much of the mixture's power is in the target,
    and in target and rest together (more than all of it is something added, less is something shared out); mean and
    spread over the band's channels of the target's share (a spread is what warbles). Channels must be ordered by
    frequency and the codec close to additive, as a lapped one is.

    Args:
        mixture, target, mask: as for `joint_log_features`.
    """
    keep = None if mask is None else mask[:, None, :].to(torch.float32)
    mixture, target = mixture.float(), target.float()
    powers = [x.square() for x in (mixture, target, mixture - target)]
    if keep is None:
        scale = powers[0].mean((1, 2), keepdim=True)
    else:
        count = keep.sum((1, 2), keepdim=True) * mixture.shape[1]
        scale = (powers[0] * keep).sum((1, 2), keepdim=True) / count
    whole, part, rest = (_average(p / scale.clamp_min(1e-12), keep, 5) for p in powers)
    weights = band_weights(mixture.shape[1], bands).to(mixture)
    in_whole, in_part, in_rest = (weights @ p for p in (whole, part, rest))
    share = ((part + 1e-3) / (whole + 1e-3)).log()
    mean = weights @ share
    spread = (weights @ share.square() - mean.square()).clamp_min(1e-6).sqrt()
    found = [(p + FLOOR).log() / 3 + 2 for p in (in_whole, in_part, in_rest)]
    found += [((p + 1e-4) / (in_whole + 1e-4)).log() / 2 for p in (in_part, in_part + in_rest)]
    features = torch.cat((*found, mean / 2, spread), dim=1)
    return features if mask is None else _hold_last(features, mask.bool())


def band_weights(channels: int, bands: int) -> Tensor:
    """Which channel counts how much for which band, ``[bands, channels]``, rows summing to one. Even widths below, then
    growing in proportion to the frequency, as in hearing."""
    # Edges a * sinh(i / c): linear for small i, exponential for large ones; the first band is about two channels wide.
    steps = torch.linspace(0, 1, bands + 1, dtype=torch.float64)
    bend = 4.0
    edges = channels * torch.sinh(bend * steps) / torch.sinh(torch.tensor(bend, dtype=torch.float64))
    index = torch.arange(channels, dtype=torch.float64)
    # Channels on an edge belong to both sides by the share that lies there; so narrow bands are never empty.
    overlap = torch.minimum(edges[1:, None], index + 1) - torch.maximum(edges[:-1, None], index)
    overlap = overlap.clamp_min(0)
    return (overlap / overlap.sum(1, keepdim=True)).float()


def _average(power: Tensor, keep: Tensor | None, frames: int) -> Tensor:
    """Mean over ``frames`` frames around each; those outside the clip do not count."""
    if keep is None:
        return F_.avg_pool1d(power, frames, 1, frames // 2, count_include_pad=False)
    count = F_.avg_pool1d(keep, frames, 1, frames // 2)
    return F_.avg_pool1d(power * keep, frames, 1, frames // 2) / count.clamp_min(1e-6)


def _log(power: Tensor, keep: Tensor | None) -> Tensor:
    smooth = _average(power, keep, 3)
    # Shift and scale bring typical channels (about -20 dB) near zero and one.
    features = torch.cat(((power + FLOOR).log(), (smooth + FLOOR).log()), dim=1) / 3 + 2
    return features if keep is None else _hold_last(features, keep[:, 0] > 0)


def _hold_last(x: Tensor, mask: Tensor) -> Tensor:
    """``x [B, C, F]`` with its last valid frame repeated through the padding."""
    last = mask.sum(1).clamp_min(1) - 1
    index = torch.minimum(torch.arange(x.shape[-1], device=x.device), last[:, None])
    return x.gather(2, index[:, None].expand_as(x))


def tokens(x: Tensor, token_frames: int) -> Tensor:
    """``[B, C, F]`` to ``[B, N, token_frames * C]``; the last token is filled up by repeating the last frame."""
    if token_frames > 1:
        x = F_.pad(x, (0, -x.shape[-1] % token_frames), mode="replicate")
    return x.unflatten(-1, (-1, token_frames)).permute(0, 2, 3, 1).flatten(2)


def token_mask(mask: Tensor, token_frames: int) -> Tensor:
    """``[B, F]`` to ``[B, N]``: tokens that hold at least one frame of the clip."""
    padded = F_.pad(mask, (0, -mask.shape[-1] % token_frames))
    return padded.unflatten(-1, (-1, token_frames)).any(-1)
