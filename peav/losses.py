"""Contrastive loss between two sets of embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F_
from torch import Tensor


def sigmoid_contrastive(a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, same: Tensor | None = None) -> Tensor:
    """Pairwise sigmoid loss (SigLIP, arXiv 2303.15343): every pair of rows is one yes-or-no question.

    ``-sum(logsigmoid(y * (a @ b.T * scale + bias))) / B`` with ``y`` +1 for matching rows and -1 for all others
    (not 0: a zero would make each negative a constant ``log 2`` without gradient).

    Args:
        a, b: embeddings ``[B, E]``; row i of ``a`` matches row i of ``b``.
        scale, bias: scalars of this pair of modalities.
        same: ``[B, B]`` bool, true where an off-diagonal pair matches too (the same caption twice in a batch);
            such pairs are left out.

    Raises:
        ValueError: shapes differ.
    """
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"embeddings must both be [B, E]; got {tuple(a.shape)} and {tuple(b.shape)}")
    logits = a @ b.T * scale + bias
    diagonal = torch.eye(len(a), dtype=torch.bool, device=a.device)
    signs = torch.where(diagonal, 1.0, -1.0).to(logits.dtype)
    terms = -F_.logsigmoid(signs * logits)
    if same is not None:
        terms = terms.masked_fill(same & ~diagonal, 0.0)
    return terms.sum() / len(a)
