"""A shard: some files' embeddings, written once and never changed.

``NAME.npy`` holds the vectors, float32 ``[R, E]``; ``NAME.jsonl`` one line per file; ``NAME.rows.npy`` says for each
row where in the second its file's line begins (byte), which line that is, and which of the file's rows it is, int64
``[R, 3]``. So a row leads to its file without reading the rest, and a million rows need no Python objects.

Axes: ``R`` rows, ``E`` embedding width.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import disk

SUFFIXES = (".npy", ".rows.npy", ".jsonl")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as it was when it was embedded.

    ``path``: below the index's root, with "/" on every system. ``digest``: of its bytes. ``seconds``: its length as
    far as it was embedded. ``spans``: of each row start and end in seconds, None for the whole file; no rows at all
    where there was nothing to hear.
    """

    path: str
    size: int  # bytes
    mtime_ns: int
    digest: str
    seconds: float
    spans: tuple[tuple[float, float] | None, ...]

    @property
    def silent(self) -> bool:
        """Whether there was nothing to embed in it."""
        return not self.spans

    def to_line(self) -> bytes:
        """One line of JSON."""
        values = {
            "path": self.path,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "digest": self.digest,
            "seconds": round(self.seconds, 3),
            "silent": self.silent,
            "spans": [span and [round(time, 3) for time in span] for span in self.spans],
        }
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """From `to_line`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        v = json.loads(line)
        spans = tuple(None if span is None else (float(span[0]), float(span[1])) for span in v["spans"])
        return cls(v["path"], int(v["size"]), int(v["mtime_ns"]), v["digest"], float(v["seconds"]), spans)


@dataclass(frozen=True)
class ShardInfo:
    """What the index says of a shard. ``dead``: lines whose files were embedded again later, or are gone."""

    name: str
    entries: int
    rows: int
    dead: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"name": self.name, "entries": self.entries, "rows": self.rows, "dead": list(self.dead)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ShardInfo:
        """From `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        name = values["name"]
        if not isinstance(name, str) or Path(name).name != name:  # never a file elsewhere
            raise ValueError(f"shard {name!r}")
        return cls(name, int(values["entries"]), int(values["rows"]), tuple(map(int, values["dead"])))


class Shard:
    """An open shard; its vectors stay on the disk until they are looked at.

    Everything is opened here, so that a shard that is merged into another by somebody else can be read to the end.

    Raises:
        OSError, ValueError: a file is missing or is not what the index says.
    """

    def __init__(self, folder: Path, info: ShardInfo, width: int) -> None:
        self.info = info
        vectors, rows, lines = (folder / (info.name + suffix) for suffix in SUFFIXES)
        self.vectors = _array(vectors, np.dtype(np.float32), (info.rows, width))
        self._rows = _array(rows, np.dtype(np.int64), (info.rows, 3))
        with lines.open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._lines[-1:] != b"\n":
            raise ValueError(f"{lines.name} ends in the middle of a line")
        self._dead = np.array(sorted(info.dead), dtype=np.int64)

    def row(self, row: int) -> tuple[Entry, int]:
        """The file that a row is of, and which of its rows it is."""
        at, _, place = (int(x) for x in self._rows[row])
        return Entry.from_line(self._lines[at : self._lines.find(b"\n", at)]), place

    def wanted(self, start: int, end: int, windows: bool | None) -> np.ndarray:
        """Which of the rows from ``start`` to ``end`` are live, bool; of windows, of whole files, or (None) both."""
        rows = self._rows[start:end]
        keep = np.ones(len(rows), dtype=bool)
        if len(self._dead):
            keep &= ~np.isin(rows[:, 1], self._dead)
        if windows is not None:
            keep &= (rows[:, 2] > 0) == windows
        return keep

    def entries(self) -> Iterator[tuple[int, int, Entry]]:
        """Line number, first row and file of all that are live."""
        dead = set(self.info.dead)
        at = row = 0
        for number in range(self.info.entries):
            end = self._lines.find(b"\n", at)
            entry = Entry.from_line(self._lines[at:end])
            if number not in dead:
                yield number, row, entry
            at, row = end + 1, row + len(entry.spans)


def write_shard(folder: Path, name: str, items: Sequence[tuple[Entry, np.ndarray]], width: int) -> ShardInfo:
    """Put files and their vectors ``[rows, E]`` on the disk. Nobody sees them before the index names them."""
    vectors = np.empty((sum(len(entry.spans) for entry, _ in items), width), dtype=np.float32)
    rows = np.empty((len(vectors), 3), dtype=np.int64)
    lines = bytearray()
    row = 0
    for number, (entry, own) in enumerate(items):
        if len(own) != len(entry.spans):
            raise ValueError(f"{entry.path}: {len(own)} vectors for {len(entry.spans)} spans")
        end = row + len(own)
        vectors[row:end] = own
        rows[row:end, 0], rows[row:end, 1], rows[row:end, 2] = len(lines), number, np.arange(len(own))
        lines += entry.to_line()
        row = end
    arrays = (vectors, rows)
    for suffix, array in zip(SUFFIXES[:2], arrays, strict=True):
        disk.write_whole(folder / (name + suffix), lambda file, array=array: np.save(file, array))  # type: ignore[misc]
    disk.write_whole(folder / (name + SUFFIXES[2]), lambda file: file.write(bytes(lines)))
    return ShardInfo(name, len(items), len(vectors))


def _array(path: Path, dtype: np.dtype, shape: tuple[int, int]) -> np.ndarray:
    # Nothing is mapped where there are no rows; an empty file cannot be.
    found = np.load(path, mmap_mode="r" if shape[0] else None, allow_pickle=False)
    if found.dtype != dtype or found.shape != shape:
        raise ValueError(f"{path.name} holds {found.dtype} {found.shape}, not {dtype} {shape}")
    return found
