"""Where an object is in each picture and how it lies, as numbers.

Axes: ``N`` frames, ``H`` and ``W`` pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

GEOMETRY = 9  # numbers of `geometry`


def geometry(frames: Tensor, masks: Tensor) -> Tensor:
    """Where an object is and how it lies, ``[N, 9]``: middle (x, y; -1 to 1), size (square root of its share of the
    picture, log), how it is stretched and turned (two second moments over their sum), colour (3), and 1 where it is
    seen; zeros where it is not.

    Args:
        frames: uint8 ``[N, 3, H, W]``.
        masks: bool ``[N, H, W]``.
    """
    N, _, H, W = frames.shape
    weight = masks.float()
    area = weight.sum((1, 2))
    safe = area.clamp_min(1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    cx, cy = ((weight * axis).sum((1, 2)) / safe for axis in (x, y))
    dx, dy = x - cx[:, None, None], y - cy[:, None, None]
    xx, yy, xy = ((weight * product).sum((1, 2)) / safe for product in (dx * dx, dy * dy, dx * dy))
    spread = (xx + yy).clamp_min(1e-6)
    colour = (frames.float() * weight[:, None]).sum((2, 3)) / safe[:, None] / 127.5 - 1
    size = (area / (H * W)).clamp_min(1e-4).log() / 2 + 2
    found = torch.stack((cx, cy, size, (xx - yy) / spread, 2 * xy / spread, *colour.T, torch.ones(N)), dim=1)
    return torch.where(area[:, None] >= 4, found, torch.zeros(()))
