"""The loss on the order of scores, for all that only ever compare."""

from __future__ import annotations

import torch.nn.functional as F_
from torch import Tensor


def order_loss(told: Tensor, true: Tensor, dim: int, apart: float = 0.15, sharpness: float = 3.0) -> Tensor:
    """Logistic loss on pairs along ``dim`` whose true scores are ``apart`` or more (RankNet, Burges et al. 2005).

    Pairs of which a score is NaN do not count; without any, the loss is 0.
    """
    difference = true.unsqueeze(dim) - true.unsqueeze(dim + 1)
    counts = difference > apart  # false for NaN; each pair once, the better one first
    margin = (told.unsqueeze(dim) - told.unsqueeze(dim + 1))[counts]
    return F_.softplus(-sharpness * margin).sum() / max(margin.numel(), 1)
