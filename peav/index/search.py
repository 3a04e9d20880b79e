"""Nearest rows of an index, by comparing with all of them in blocks.

Cosine is the default, although the published embeddings are not normalised and the logits that they were trained with
are dot products: the vector of a file is a mean over its windows, which is the shorter the more the windows differ,
so by dot product a file in which much happens would rank behind one that is the same all through.

Axes: ``R`` rows, ``E`` embedding width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peav.errors import UserError, shown

from .settings import Settings
from .shards import Entry, Shard
from .store import open_shards

SCORES = ("cosine", "dot")
MANY = 1_000_000  # rows; beyond it the approximate search is worth its preparation
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Hit:
    """One result. ``start`` and ``end`` in seconds, None for the whole file; ``row`` is its number in the index."""

    path: str  # below the index's root
    score: float
    start: float | None
    end: float | None
    row: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {"path": self.path, "score": self.score, "start": self.start, "end": self.end}


class Index:
    """An index, open for searching: as it was at that moment, whatever is written meanwhile.

    >>> index = Index.open("sounds.index")                                      # doctest: +SKIP
    >>> index.search(model.embed(text=["a dog barking"])[0], k=5)               # doctest: +SKIP
    """

    def __init__(self, folder: Path, settings: Settings, shards: Sequence[Shard], generation: int) -> None:
        self.folder, self.settings, self.generation = folder, settings, generation
        self.shards = list(shards)
        self._first = np.cumsum([0] + [shard.info.rows for shard in shards])  # row number of each shard's first

    @classmethod
    def open(cls, folder: str | os.PathLike) -> Index:
        """Open the index in a folder.

        Raises:
            UserError: there is none, or it is damaged or of another version.
        """
        contents, shards = open_shards(Path(folder))
        return cls(Path(folder), contents.settings, shards, contents.generation)

    @property
    def rows(self) -> int:
        """Rows on the disk, those that are out of date included."""
        return int(self._first[-1])

    @property
    def files(self) -> int:
        """Files in the index, silent ones included."""
        return sum(shard.info.entries - len(shard.info.dead) for shard in self.shards)

    def entries(self) -> Iterator[Entry]:
        """All files."""
        for shard in self.shards:
            for _, _, entry in shard.entries():
                yield entry

    def file(self, path: str) -> Path:
        """Where a file of the index is."""
        return Path(self.settings.root, path)

    def vector(self, row: int) -> np.ndarray:
        """Vector ``[E]`` of a row."""
        number = int(np.searchsorted(self._first, row, side="right")) - 1
        return np.array(self.shards[number].vectors[row - self._first[number]])

    def find(self, path: str, time: float | None = None) -> int:
        """The row of a file; of the window at a time in seconds.

        Raises:
            UserError: there is no such file, it is silent, or it has no window there.
        """
        for first, shard in zip(self._first, self.shards, strict=False):
            for _, row, entry in shard.entries():
                if entry.path == path:
                    return int(first) + row + _place(entry, time)
        raise UserError(f"{shown(path)}: is not in the index; names are relative to {shown(self.settings.root, 60)}")

    def search(
        self,
        vector: Any,
        k: int = 10,
        *,
        score: str = "cosine",
        windows: bool | None = None,
        per_file: bool = True,
        approximate: bool | None = None,
        exclude: str | None = None,
    ) -> list[Hit]:
        """The ``k`` nearest rows, best first; rows that are equally near in the order of the index.

        Args:
            vector: ``[E]``, array or tensor, of the index's model.
            score: "cosine" or "dot".
            windows: look at windows or at whole files; by default at windows if the index has them.
            per_file: of each file only the best row.
            approximate: with faiss, exact scores for candidates that may miss some; by default beyond `MANY` rows
                where faiss is installed.
            exclude: path of a file that is not wanted, such as the one that is the query.

        Raises:
            UserError: faiss is not installed, or the vector is of another width, zero or not finite.
            ValueError: an option is unknown.
        """
        if score not in SCORES:
            raise ValueError(f"score {score!r}; choose cosine or dot")
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least 1")
        query = self._query(vector, score)
        windows = self.settings.window is not None if windows is None else windows
        if windows and self.settings.window is None:
            raise UserError(f"{shown(self.folder)}: has no windows; index with --window SECONDS into another --out")
        nearest = self._nearest(approximate)
        wanted, most = k + (exclude is not None), self.rows
        while True:
            rows, scores = nearest(self, query, min(wanted, most), score, windows)
            hits = self._hits(rows, scores, per_file, exclude)
            # Many rows may be of one file, so ask for more until there are enough files.
            if len(hits) >= k or len(rows) < wanted or wanted >= most:
                return hits[:k]
            wanted *= 4

    def uses_faiss(self, approximate: bool | None = None) -> bool:
        """Whether `search` would be approximate."""
        if approximate is not None:
            return approximate
        if self.rows <= MANY:
            return False
        from .approximate import installed

        return installed()

    def _nearest(self, approximate: bool | None):
        if self.uses_faiss(approximate):
            from .approximate import nearest

            return nearest
        return nearest_exactly

    def _query(self, vector: Any, score: str) -> np.ndarray:
        detached = vector.detach().cpu().float() if hasattr(vector, "detach") else vector
        query = np.asarray(detached, dtype=np.float32)
        if query.shape != (self.settings.output_dim,):
            raise UserError(
                f"{shown(self.folder)}: holds vectors of {self.settings.output_dim} numbers, the query has shape "
                f"{list(query.shape)}; embed it with {self.settings.named}"
            )
        length = float(np.linalg.norm(query))
        if not np.isfinite(length) or not length:
            raise UserError("the query's embedding is zero or not finite, so nothing can be near it")
        return query / length if score == "cosine" else query

    def _hits(self, rows: np.ndarray, scores: np.ndarray, per_file: bool, exclude: str | None) -> list[Hit]:
        hits = []
        seen = {exclude}
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            number = int(np.searchsorted(self._first, row, side="right")) - 1
            entry, place = self.shards[number].row(row - int(self._first[number]))
            if entry.path in seen:
                continue
            if per_file:
                seen.add(entry.path)
            start, end = entry.spans[place] or (None, None)
            hits.append(Hit(entry.path, score, start, end, row))
        return hits

    def blocks(self, windows: bool | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers ``[r]`` and vectors ``[r, E]`` of all live rows, in pieces of bounded size; see `Shard.wanted`."""
        size = max(1, _BLOCK_BYTES // (4 * self.settings.output_dim))
        for first, shard in zip(self._first, self.shards, strict=False):
            for start in range(0, shard.info.rows, size):
                end = min(start + size, shard.info.rows)
                keep = shard.wanted(start, end, windows)
                if keep.all():
                    yield int(first) + np.arange(start, end), shard.vectors[start:end]
                elif keep.any():
                    yield int(first) + start + np.flatnonzero(keep), shard.vectors[start:end][keep]


def nearest_exactly(
    index: Index, query: np.ndarray, k: int, score: str, windows: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers and scores of the ``k`` nearest, best first. See `Index.search`."""
    rows, scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    for numbers, vectors in index.blocks(windows):
        found = scores_of(vectors, query, score)
        if len(found) > k:
            # All that reach the k-th score, so that among equals the first row wins below.
            best = np.flatnonzero(found >= np.partition(found, len(found) - k)[len(found) - k])
            numbers, found = numbers[best], found[best]
        rows, scores = ranked(np.concatenate((rows, numbers)), np.concatenate((scores, found)), k)
    return rows, scores


def scores_of(vectors: np.ndarray, query: np.ndarray, score: str) -> np.ndarray:
    """Scores ``[r]`` of vectors ``[r, E]``; for cosine the query has length one."""
    products = vectors @ query
    if score == "dot":
        return products
    lengths = np.sqrt(np.einsum("re,re->r", vectors, vectors))
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def ranked(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best, best first, and the lower row number first among equals."""
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def _place(entry: Entry, time: float | None) -> int:
    """Which of a file's rows it is at a time."""
    if entry.silent:
        raise UserError(f"{shown(entry.path)}: is silent, so nothing is like it")
    if time is None:
        return 0
    for place, span in enumerate(entry.spans):
        if span is not None and span[0] <= time < span[1]:
            return place
    raise UserError(f"{shown(entry.path)}: has no window at {time:g} s in this index; it lasts {entry.seconds:.2f} s")
