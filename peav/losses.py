"""Contrastive loss between two sets of embeddings.

Axes: ``B`` batch of this process, ``E`` embedding width, ``W`` processes, ``K`` keys per item.

Negatives may lie in other processes (`sharded_sigmoid_contrastive`), and the ``[B, W B]`` logits need not exist at
once (``chunk_size``). Convention: every process returns *its rows' terms over its own batch size*, so that the mean
of the losses over processes is the loss of the joint batch, and gradients averaged over processes, as
`peav.training.average_gradients` does, are the gradients of that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F_
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.utils.checkpoint import checkpoint

from .gather import check_alike, gather_rows, place


def sigmoid_contrastive(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    bias: Tensor,
    same: Tensor | None = None,
    *,
    keys: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Pairwise sigmoid loss (SigLIP, arXiv 2303.15343): every pair of rows is one yes-or-no question.

    ``-sum(logsigmoid(y * (a @ b.T * scale + bias))) / B`` with ``y`` +1 for matching rows and -1 for all others
    (not 0: a zero would make each negative a constant ``log 2`` without gradient).

    Args:
        a, b: embeddings ``[B, E]``; row i of ``a`` matches row i of ``b``.
        scale, bias: scalars of this pair of modalities.
        same: ``[B, B]`` bool, true where an off-diagonal pair matches too (the same caption twice in a batch);
            such pairs are left out.
        keys: ``[B]`` or ``[B, K]`` int64, see `match_keys`; another way to say ``same``.
        chunk_size: rows whose logits exist at once, in the backward pass too; None for all. Value and gradients do
            not depend on it.

    Raises:
        ValueError: shapes differ.
    """
    _check(a, b, keys)
    return sum_of_terms(a, b, scale, bias, 0, same, keys, keys, chunk_size) / len(a)


def sharded_sigmoid_contrastive(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    keys: Tensor | None = None,
    chunk_size: int | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """`sigmoid_contrastive` whose negatives are the ``b`` of all processes; see the module's convention.

    Each process compares its own rows of ``a`` with everybody's ``b``. Embeddings travel once forward, and their
    gradients once back; logits never do. In a single process it is `sigmoid_contrastive`. All processes must call
    it, and run its backward pass, together.

    Raises:
        ValueError: shapes differ, here or between processes.
    """
    _check(a, b, keys)
    rank, world = place(group)
    if world == 1:
        return sigmoid_contrastive(a, b, scale, bias, keys=keys, chunk_size=chunk_size)
    K = 0 if keys is None else keys.reshape(len(a), -1).shape[1]
    check_alike({"batch": len(a), "width": a.shape[1], "keys": K}, a.device, group)
    all_b = gather_rows(b, group)
    all_keys = None if keys is None else gather_rows(keys, group)
    return sum_of_terms(a, all_b, scale, bias, rank * len(a), None, keys, all_keys, chunk_size) / len(a)


def match_keys(items: Sequence[str | Iterable[str] | None], kind: str = "", size: int | None = None) -> Tensor:
    """Keys ``[B, K]`` int64 of captions or sets of labels: two items match where they share a key.

    Keys are hashes, alike in every process, so duplicates are found across processes without sending text. Case and
    white space make no difference. 0 stands for no key.

    Args:
        items: a caption, several labels, or None, each.
        kind: what they are; items of different kinds never match.
        size: K, which must be alike in all processes; by default the longest item's.

    Raises:
        ValueError: an item has more than ``size`` labels.
    """
    rows = [[] if item is None else [item] if isinstance(item, str) else sorted(set(item)) for item in items]
    longest = max((len(row) for row in rows), default=0)
    if size is not None and longest > size:
        raise ValueError(f"an item has {longest} labels, but size={size}")
    keys = torch.zeros(len(rows), max(longest, 1) if size is None else size, dtype=torch.int64)
    for i, row in enumerate(rows):
        for k, text in enumerate(row):
            keys[i, k] = _hashed(f"{kind}\n{' '.join(text.casefold().split())}")
    return keys


def matches(keys: Tensor, others: Tensor) -> Tensor:
    """``[A, B]`` bool: whether items with keys ``[A]`` or ``[A, K]`` and ``[B]`` or ``[B, K]`` share one."""
    found = torch.zeros(len(keys), len(others), dtype=torch.bool, device=keys.device)
    for key in keys.reshape(len(keys), -1).T:
        for other in others.reshape(len(others), -1).T:
            found |= (key[:, None] == other[None]) & (key[:, None] != 0)
    return found


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True) or 1


def _check(a: Tensor, b: Tensor, keys: Tensor | None) -> None:
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"embeddings must both be [B, E]; got {tuple(a.shape)} and {tuple(b.shape)}")
    if keys is not None and len(keys) != len(a):
        raise ValueError(f"keys has {len(keys)} rows for {len(a)} embeddings")


def sum_of_terms(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    bias: Tensor,
    first: int,
    same: Tensor | None,
    keys: Tensor | None,
    all_keys: Tensor | None,
    chunk_size: int | None,
) -> Tensor:
    """Sum over rows i of ``a [R, E]`` and all rows of ``b [C, E]``, where row ``first + i`` of ``b`` matches."""
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}; give at least 1, or None")

    def block(rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor, start: int) -> Tensor:
        own = slice(start, start + len(rows))
        skip = None if same is None else same[own]
        if keys is not None and all_keys is not None:
            found = matches(keys[own], all_keys)
            skip = found if skip is None else skip | found
        return _block(rows, columns, scale, bias, first + start, skip)

    size = len(a) if chunk_size is None else chunk_size
    if size >= len(a):
        return block(a, b, scale, bias, 0)
    # Checkpointed, so the backward pass makes each chunk's logits again instead of finding all of them kept.
    return torch.stack([
        checkpoint(block, a[i : i + size], b, scale, bias, i, use_reentrant=False, preserve_rng_state=False)
        for i in range(0, len(a), size)
    ]).sum()  # fmt: skip


def _block(rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor, first: int, skip: Tensor | None) -> Tensor:
    # Thousands of terms near zero are added up, which half precision cannot do.
    with torch.autocast(rows.device.type, enabled=False):
        logits = at_least_single(rows) @ at_least_single(columns).T * scale + bias
        positive = torch.zeros_like(logits, dtype=torch.bool)
        positive.diagonal(first).fill_(True)
        terms = -F_.logsigmoid(torch.where(positive, logits, -logits))
        if skip is not None:
            terms = terms.masked_fill(skip & ~positive, 0.0)
        return terms.sum()


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in float32, or float64 if that is what it is."""
    return x if x.dtype == torch.float64 else x.float()
