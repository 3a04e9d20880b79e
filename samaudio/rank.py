"""Which candidate is best, over a whole recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev

from .result import Candidate

SIMILARITY_WEIGHT = 1.0  # what came out sounds like the prompt
CONFIDENCE_WEIGHT = 1.0  # what the separator itself expects


class Tally:
    """Sums up the chunks of a recording; each counts by the energy of what was taken out of it."""

    def __init__(self, candidates: int):
        self.presence = 0.0  # the highest of any chunk: a sound that is there once is there
        self._similarity = [_Mean() for _ in range(candidates)]
        self._confidence = [_Mean() for _ in range(candidates)]

    def add(self, presence: float, similarity: Sequence[float], confidence: Sequence[float], energy: float) -> None:
        self.presence = max(self.presence, presence)
        for means, values in ((self._similarity, similarity), (self._confidence, confidence)):
            for mean, value in zip(means, values, strict=True):
                mean.add(value, energy + 1e-12)  # the constant lets silence count when there is nothing else

    def candidates(self) -> list[Candidate]:
        similarity = [mean.value for mean in self._similarity]
        confidence = [mean.value for mean in self._confidence]
        return [
            Candidate(SIMILARITY_WEIGHT * s + CONFIDENCE_WEIGHT * c, similarity[k], confidence[k])
            for k, (s, c) in enumerate(zip(standardised(similarity), standardised(confidence), strict=True))
        ]


def best(candidates: Sequence[Candidate]) -> int:
    """Index of the highest score; the first one of equals."""
    return max(range(len(candidates)), key=lambda k: candidates[k].score)


def standardised(values: Sequence[float]) -> list[float]:
    """Values in standard deviations from their mean; zeros for unknown (NaN) and for equal values."""
    known = [v for v in values if math.isfinite(v)]
    spread = pstdev(known) if known else 0.0
    if spread < 1e-9:
        return [0.0] * len(values)
    middle = fmean(known)
    return [(v - middle) / spread if math.isfinite(v) else 0.0 for v in values]


class _Mean:
    """Weighted mean that leaves out NaN; NaN without values."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, value: float, weight: float) -> None:
        if math.isfinite(value):
            self._sum += weight * value
            self._weight += weight

    @property
    def value(self) -> float:
        return self._sum / self._weight if self._weight else math.nan
