"""Which candidate is best, over a whole recording.

Every measure is brought to its own scale within the candidates before they are added up; see `judge.rank`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from judge.model import SCORES
from judge.rank import ranking
from judge.verdict import Verdict, limited, measures

from .result import Candidate, Quality

# That a candidate is the first one counts most: it has to be clearly behind to be passed over. Beside that, what the
# Judge says; without one, how much it sounds like the prompt. Measured by benchmarks/reranking.py: without the order,
# choices were worse than the first candidate by half a decibel.
WITH_JUDGE = {"overall": 0.5, "recall": 0.5, "order": 1.0, "similarity": 0.1}
ALONE = {"similarity": 1.0, "order": 1.5}


def order(candidates: int) -> list[float]:
    """1 for the first hypothesis, which learned from everything and is the best one on average; 0 for the others."""
    return [1.0] + [0.0] * (candidates - 1)


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

    def candidates(self, verdicts: Sequence[Verdict] | None = None) -> list[Candidate]:
        """What is known of each; ``verdicts`` are the Judge's, if it was asked."""
        similarity = [mean.value for mean in self._similarity]
        confidence = [mean.value for mean in self._confidence]
        known = {"similarity": similarity, "confidence": confidence, "order": order(len(similarity))}
        told = [verdict.scores for verdict in verdicts or ()]
        if verdicts and all(told):
            values = ranking({**measures(verdicts), **known}, WITH_JUDGE)
        else:
            values, told = ranking(known, ALONE), [None] * len(similarity)
        return [
            Candidate(value, similarity[k], confidence[k], quality=_limited(told[k])) for k, value in enumerate(values)
        ]


def best(candidates: Sequence[Candidate]) -> int:
    """Index of the highest score; the first one of equals."""
    return max(range(len(candidates)), key=lambda k: candidates[k].score)


def _limited(scores: tuple[float, ...] | None) -> Quality:
    known = limited(scores)
    return Quality(*(math.nan if (value := known[name]) is None else value for name in SCORES))


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
