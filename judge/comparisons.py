"""What a Judge that does not listen is told of whole collections, computed once and kept.

Comparing costs as much as separating three times, and nothing of it is learned. So every output of a collection is
compared once, by every question, and learning from that a hundred times takes minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from peav.console import progress

from .collection import Collection
from .grid import Compared, Words, compare, encoded
from .model import JudgeModel


class Comparisons:
    """`Compared` of every mixture of the collections, in half precision: about 1.5 MB for three questions, ten outputs
    and 3 s.

    Args:
        most: of each collection; None for all.

    Raises:
        ValueError: there is no estimator.
    """

    def __init__(self, model: JudgeModel, collections: Sequence[Collection], most: int | None = None, batch: int = 4):
        self.collections = list(collections)
        self._rows: list[list[Compared]] = []
        words = Words(model)
        counts = [min(len(c), most or len(c)) for c in collections]
        done = 0
        with progress("comparing") as advance:
            for collection, count in zip(collections, counts, strict=True):
                rows: list[Compared] = []
                for first in range(0, count, batch):
                    examples = [collection[i].example for i in range(first, min(first + batch, count))]
                    found = compare(model, *encoded(model, examples, words))
                    rows += [Compared(*parts) for parts in zip(*(x.half().cpu() for x in _parts(found)), strict=True)]
                    done += len(examples)
                    advance(done, sum(counts))
                self._rows.append(rows)

    def count(self, collection: int) -> int:
        """Mixtures of one collection."""
        return len(self._rows[collection])

    def of(self, collection: int, mixture: int) -> Compared:
        """One mixture's, without the axis of mixtures."""
        return self._rows[collection][mixture]

    def batch(self, places: Tensor, outputs: Tensor | None = None) -> Compared:
        """Those of mixtures ``places [B, 2]`` (number of the collection, number of the mixture in it), and of these
        ``outputs [B, M]``, by default all."""
        rows = [self.of(*place) for place in places.tolist()]
        if outputs is None:
            return Compared(*(torch.stack(x) for x in zip(*map(_parts, rows), strict=True)))
        kept = [(row.bands[m], row.tokens[:, m], row.clip[:, m]) for row, m in zip(rows, outputs, strict=True)]
        return Compared(*(torch.stack(x) for x in zip(*kept, strict=True)))


def _parts(known: Compared) -> tuple[Tensor, Tensor, Tensor]:
    return known.bands, known.tokens, known.clip
