"""What a run found: figures, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    ``task``: retrieval, classification or frames. ``name``: the direction, the input, or the class. ``values``: by
    metric; shares from 0 to 1, ranks from 1. ``counts``: how many queries, candidates, classes and so on.
    """

    task: str
    name: str
    values: Mapping[str, float]
    counts: Mapping[str, int] = field(default_factory=dict)
