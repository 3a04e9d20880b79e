"""How well scores tell frames, clips and spans of a sound from the rest.

Axes: ``N`` clips or frames, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Span = tuple[float, float]  # start and end in seconds
COLLAR = 0.2  # seconds that a detected start or end may be away from the true one, as in DCASE
SHARE = 0.2  # ... or this share of the true event's length for its end, whichever is more


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the receiver operating characteristic of scores ``[N]`` for truth ``[N]`` bool.

    The chance that a positive scores above a negative, a draw counting half (Mann-Whitney). NaN if there are no
    positives or no negatives, because then nothing can be told apart.

    Raises:
        ValueError: shapes differ, or a score is not finite.
    """
    scores, truth = _checked(scores, truth, 1)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle = last - (counts - 1) / 2  # mean of the ranks that equal scores share, from 1 on
    return float((middle[place[truth]].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision of scores ``[N]``: precision at each threshold, weighted by the recall that it adds.

    Equal scores share one threshold, so their order cannot matter. NaN without positives.

    Raises:
        ValueError: shapes differ, or a score is not finite.
    """
    scores, truth = _checked(scores, truth, 1)
    positives = int(truth.sum())
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(truth[order])
    ends = np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)  # last of each run of equal scores
    precision = found[ends] / (ends + 1)
    return float((precision * np.diff(found[ends], prepend=0)).sum() / positives)


def per_class(metric, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``metric`` of each column of scores and truth ``[N, C]``; NaN where it is not defined."""
    scores, truth = _checked(scores, truth, 2)
    return np.array([metric(scores[:, c], truth[:, c]) for c in range(scores.shape[1])])


def mean_defined(values: np.ndarray) -> float:
    """Mean over what is not NaN; NaN if nothing is left."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")


@dataclass
class Counts:
    """Events of one class: found rightly, found wrongly, missed."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.right + other.right, self.wrong + other.wrong, self.missed + other.missed)

    @property
    def f1(self) -> float:
        """``2 right / (2 right + wrong + missed)``; NaN if there was nothing and nothing was found."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else float("nan")


def match_spans(
    found: Sequence[Span], true: Sequence[Span], collar: float = COLLAR, share: float = SHARE
) -> Counts:
    """Event-based counts of one class in one clip (Mesaros et al. 2016, as in the DCASE challenges).

    A found span is right for a true one if its start is within ``collar`` seconds and its end within ``collar`` or
    ``share`` of the true span's length, whichever is more. Each span is used once, and as many as possible are
    matched.
    """
    fits = [
        [
            i
            for i, (start, end) in enumerate(true)
            if abs(a - start) <= collar + 1e-9 and abs(b - end) <= max(collar, share * (end - start)) + 1e-9
        ]
        for a, b in found
    ]
    partner: dict[int, int] = {}  # true span -> found span

    def place(j: int, seen: set[int]) -> bool:
        # Augmenting paths (Kuhn): a found span may take a true one if its holder finds another.
        for i in fits[j]:
            if i not in seen:
                seen.add(i)
                if i not in partner or place(partner[i], seen):
                    partner[i] = j
                    return True
        return False

    right = sum(place(j, set()) for j in range(len(found)))
    return Counts(right, len(found) - right, len(true) - right)


def frame_truth(spans: Sequence[Span], frames: int, frame_seconds: float) -> np.ndarray:
    """``[frames]`` bool: whether the middle of each frame lies in one of the spans."""
    middles = (np.arange(frames) + 0.5) * frame_seconds
    truth = np.zeros(frames, dtype=bool)
    for start, end in spans:
        truth |= (middles >= start) & (middles < end)
    return truth


def _checked(scores: np.ndarray, truth: np.ndarray, axes: int) -> tuple[np.ndarray, np.ndarray]:
    scores, truth = np.asarray(scores, dtype=np.float64), np.asarray(truth).astype(bool)
    if scores.ndim != axes or scores.shape != truth.shape:
        raise ValueError(f"scores {scores.shape} and truth {truth.shape}; give both with {axes} axes")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite; an embedding or a logit holds NaN or infinity")
    return scores, truth
