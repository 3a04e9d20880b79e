"""What networks see of a latent."""

from __future__ import annotations

import torch
import torch.nn.functional as F_
from torch import Tensor


def log_features(latent: Tensor) -> Tensor:
    """Level-independent features ``[B, 2D, F]`` of a latent ``[B, D, F]``.

    The log power of every channel, as it is and averaged over three frames, relative to the clip's mean power. A
    lapped latent's magnitude flickers with phase; the average is close to the true envelope.
    """
    power = latent.float().square()
    power = power / power.mean((1, 2), keepdim=True).clamp_min(1e-12)
    smooth = F_.avg_pool1d(power, 3, stride=1, padding=1, count_include_pad=False)
    # 1e-5 is a floor at -50 dB; shift and scale bring typical channels (about -20 dB) near zero and one.
    return torch.cat(((power + 1e-5).log(), (smooth + 1e-5).log()), dim=1) / 3 + 1.5
