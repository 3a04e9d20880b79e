"""Which of several candidates is best.

What the network says and how similar a candidate is to the prompt are on different scales, and how much candidates
differ depends on the recording. So every measure is brought to its own scale within the candidates first: with mean
``m`` and standard deviation ``s`` of a measure over the candidates, candidate ``k`` is ranked by

    sum over measures of  weight * (value_k - m) / max(s, least)

``least`` is a spread that is too small to mean anything (:data:`LEAST_SPREAD`): candidates that hardly differ in a
measure are not told apart by its noise. A single candidate, and candidates that are all alike, get 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean, pstdev

from peav.errors import UserError, shown

LEAST_SPREAD = {
    "overall": 0.05, "recall": 0.05, "precision": 0.05, "faithfulness": 0.05, "similarity": 0.01,
}  # fmt: skip
_TINY = 1e-9  # the same for any other measure


@dataclass(frozen=True)
class RankWeights:
    """How much each measure counts; 0 leaves it out, below 0 turns it around.

    The defaults are measured (docs/judge.md): similarity hardly ever makes better what overall says. It tells apart
    candidates that have no overall, as for a prompt that is not words.

    Raises:
        UserError: a weight is not finite, or all are 0.
    """

    overall: float = 1.0
    recall: float = 0.0
    precision: float = 0.0
    faithfulness: float = 0.0
    similarity: float = 0.1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                raise UserError(f"the weight of {name} is {value}; give a number such as 0.5")
        if not any(asdict(self).values()):
            raise UserError("all ranking weights are 0; give at least one, for example overall=1")

    def to_dict(self) -> dict[str, float]:
        """By name, as :func:`ranking` takes them."""
        return asdict(self)

    @classmethod
    def parse(cls, text: str) -> RankWeights:
        """From ``overall=1,similarity=0.5``; what is not named counts nothing.

        Raises:
            UserError: a name is unknown, or a value no number.
        """
        names = [field.name for field in fields(cls)]
        given = dict.fromkeys(names, 0.0)
        for item in text.split(","):
            name, _, value = (part.strip() for part in item.partition("="))
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if name not in names or math.isnan(number):
                raise UserError(
                    f"weight '{shown(item, 40)}' is not understood; give NAME=NUMBER, comma-separated, "
                    f"of {', '.join(names)}"
                )
            given[name] = number
        return cls(**given)


def ranking(measures: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> list[float]:
    """What each candidate is ranked by, higher is better; see the top of this module for the formula.

    Args:
        measures: by name, a value for each candidate. Unknown ones (NaN) count as the worst that is known; a measure
            that is unknown of all of them is left out.
        weights: by name; measures without a weight are left out, and weights without a measure too.

    Raises:
        ValueError: measures have different numbers of values.
    """
    sizes = {len(values) for values in measures.values()}
    if len(sizes) != 1:
        raise ValueError(f"measures of {sorted(sizes)} candidates; give one value for each candidate")
    totals = [0.0] * sizes.pop()
    for name, weight in weights.items():
        if name in measures and weight:
            for k, value in enumerate(normalised(measures[name], LEAST_SPREAD.get(name, _TINY))):
                totals[k] += weight * value
    return totals


def normalised(values: Sequence[float], least: float = _TINY) -> list[float]:
    """Values in standard deviations from their mean, with ``least`` as the smallest deviation."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return [0.0] * len(values)
    middle, spread = fmean(known), max(pstdev(known), least)
    return [((value if math.isfinite(value) else min(known)) - middle) / spread for value in values]


def order(values: Sequence[float], silent: Sequence[bool]) -> list[int]:
    """Candidates from best to worst, silent ones last; the first one of equals first."""
    return sorted(range(len(values)), key=lambda k: (silent[k], -values[k], k))
