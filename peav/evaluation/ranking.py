"""Ranks of right answers in a retrieval, with ties counted as what they are: a draw.

Axes: ``A`` queries, ``B`` candidates, ``E`` embedding width.

A query is answered by the best placed of its right candidates. Where candidates score alike their order is drawn by
lot, and every figure is the expectation over all such draws. So a model that embeds everything alike gets R@1 = 1/B
and the middle rank, not R@1 = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CHUNK = 512  # queries scored at a time; with 50 000 candidates 200 MB
# Two candidates whose scores differ by less than this share of the row's largest score are a draw: matrix products
# of equal vectors differ in their last bits, depending on where in the matrix they stand.
DRAW = 1e-9

Relevance = Callable[[int, int], Tensor]  # (first query, last query + 1) -> [A', B] bool


@dataclass(frozen=True)
class Ranks:
    """Where the right answers of each query stand. Three arrays ``[A]`` of int64.

    ``above``: candidates that score higher than the best right one. ``tied``: candidates that score like it, itself
    included. ``right``: how many of those are right.
    """

    above: np.ndarray
    tied: np.ndarray
    right: np.ndarray

    def __len__(self) -> int:
        return len(self.above)

    def hits(self, k: int) -> np.ndarray:
        """Chance ``[A]`` that one of the first ``k`` answers is right.

        Of the ``t`` tied candidates ``j = k - above`` are among the first ``k``; all of these are wrong with
        probability ``C(t - r, j) / C(t, j)``.

        Raises:
            ValueError: ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k={k}; give 1 or more")
        places = np.clip(k - self.above, 0, self.tied)
        missed = np.ones(len(self))
        # Product over the places of (wrong ones left) / (ones left): exact, and no large factorials.
        for place in range(int(places.max(initial=0))):
            left = np.maximum(self.tied - place, 1)
            wrong = np.maximum(self.tied - self.right - place, 0)
            missed = np.where(place < places, missed * (wrong / left), missed)
        return 1.0 - missed

    def recall(self, k: int) -> float:
        """R@k: the share of queries with a right answer among the first ``k``."""
        return float(self.hits(k).mean())

    def expected(self) -> np.ndarray:
        """Expected rank ``[A]`` of the first right answer; 1 is the best.

        The smallest of ``r`` places drawn from ``t`` is ``(t + 1) / (r + 1)`` on average.
        """
        return self.above + (self.tied + 1) / (self.right + 1)

    def median(self) -> float:
        """MedR: the median of the expected ranks."""
        return float(np.median(self.expected()))


def ranks_of(scores: Tensor, relevant: Tensor) -> Ranks:
    """Ranks from scores ``[A, B]``, higher is better, and which candidates are right, ``[A, B]`` bool.

    Raises:
        ValueError: shapes differ, a score is not a number, or a query has no right answer.
    """
    if scores.ndim != 2 or scores.shape != relevant.shape or not scores.numel():
        raise ValueError(f"scores {tuple(scores.shape)} and relevant {tuple(relevant.shape)}; give [A, B] both")
    if not bool(scores.isfinite().all()):
        raise ValueError("a score is not finite, so nothing can be ranked; an embedding holds NaN or infinity")
    relevant = relevant.bool()
    if not bool(relevant.any(1).all()):
        lost = int((~relevant.any(1)).nonzero()[0])
        raise ValueError(f"query {lost} has no right answer among the candidates; leave it out")
    scores = scores.double()
    best = scores.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
    slack = scores.abs().amax(1, keepdim=True) * DRAW
    above = scores > best + slack
    tied = ~above & (scores >= best - slack)
    parts = (above, tied, tied & relevant)
    return Ranks(*(part.sum(1).cpu().numpy().astype(np.int64) for part in parts))


def rank(
    queries: Tensor,
    candidates: Tensor,
    relevant: Relevance,
    *,
    temperature: float | None = None,
    chunk: int = CHUNK,
) -> Ranks:
    """Ranks of candidates ``[B, E]`` for queries ``[A, E]`` by their dot product, in bounded memory.

    Args:
        relevant: which candidates are right, for a stretch of the queries.
        temperature: score by the dual softmax with it, see `dual_softmax`; None: by the dot product.

    Raises:
        ValueError: as `ranks_of`, or the temperature is not above 0.
    """
    queries, candidates = queries.double(), candidates.double()
    prior = None
    if temperature is not None:
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}; give a number above 0")
        prior = torch.full((len(candidates),), -torch.inf, dtype=torch.double, device=candidates.device)
        for _, rows in _products(queries, candidates, chunk):
            prior = torch.logaddexp(prior, (temperature * rows).logsumexp(0))
    found = []
    for start, rows in _products(queries, candidates, chunk):
        if prior is not None and temperature is not None:
            # The row's own normaliser is the same for all candidates of a query and cannot change their order.
            rows = 2 * temperature * rows - prior
        found.append(ranks_of(rows, relevant(start, start + len(rows)).to(rows.device)))
    if not found:
        raise ValueError("no queries; give at least one")
    return Ranks(*(np.concatenate([getattr(part, name) for part in found]) for name in ("above", "tied", "right")))


def dual_softmax(scores: Tensor, temperature: float) -> Tensor:
    """Log of the dual softmax of scores ``[A, B]`` (CAMoE, arXiv 2109.04290): how sure query and candidate are of
    each other.

    ``log softmax over candidates + log softmax over queries`` of ``temperature * scores``. The second term takes
    from candidates that are near to every query. It needs all queries at once, so figures with it are not those of a
    search with one query. The paper multiplies the second softmax with the scores themselves, which turns the order
    around where scores are negative; the first softmax stands for them here.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}; give a number above 0")
    logits = temperature * scores.double()
    return logits.log_softmax(1) + logits.log_softmax(0)


def _products(queries: Tensor, candidates: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(queries), chunk):
        yield start, queries[start : start + chunk] @ candidates.T
