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


def _log(power: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        smooth = F_.avg_pool1d(power, 3, stride=1, padding=1, count_include_pad=False)
    else:
        count = F_.avg_pool1d(keep, 3, stride=1, padding=1)
        smooth = F_.avg_pool1d(power * keep, 3, stride=1, padding=1) / count.clamp_min(1e-6)
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
