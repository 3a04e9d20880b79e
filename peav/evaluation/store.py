"""Embeddings that were computed before, on disk or for this run: one SQLite file per model.

A second run finds what the first one computed, also if the first one was stopped. Two models never share a file,
because it carries the model's identity in its name.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import numpy as np

from ..errors import UserError, shown

_PENDING = 64  # results kept back until they are written together


class Store:
    """Float32 arrays by key; in memory without a folder.

    Args:
        folder: where the file is; made if it is missing.
        identity: of the model, as in the file's name.

    Raises:
        UserError: the folder cannot be written to, or the file in it is damaged.
    """

    def __init__(self, folder: str | os.PathLike | None = None, identity: str = "") -> None:
        self._memory: dict[str, np.ndarray] = {}
        self._pending: dict[str, np.ndarray] = {}
        self._file: sqlite3.Connection | None = None
        if folder is None:
            return
        self._path = Path(folder) / f"{identity}.sqlite"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self._path, timeout=60.0)  # several runs may share it
            self._file.execute("CREATE TABLE IF NOT EXISTS arrays (key TEXT PRIMARY KEY, shape TEXT, data BLOB)")
            self._file.commit()
        except (OSError, sqlite3.Error) as error:
            raise self._problem(error) from None

    def get(self, key: str) -> np.ndarray | None:
        """What was put under ``key``, or None."""
        if key in self._memory:
            return self._memory[key]
        if self._file is None or key in self._pending:
            return self._pending.get(key)
        try:
            row = self._file.execute("SELECT shape, data FROM arrays WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._problem(error) from None
        if row is None:
            return None
        shape = tuple(int(side) for side in row[0].split(",") if side)
        if len(row[1]) != 4 * int(np.prod(shape)):
            raise self._problem("an entry has the wrong length")
        return np.frombuffer(row[1], dtype="<f4").reshape(shape)

    def put(self, key: str, value: np.ndarray) -> None:
        """Keep ``value`` under ``key``."""
        value = np.ascontiguousarray(value, dtype="<f4")
        if self._file is None:
            self._memory[key] = value
            return
        self._pending[key] = value
        if len(self._pending) >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Write what was put, in one step."""
        if self._file is None or not self._pending:
            return
        rows = [(key, ",".join(map(str, v.shape)), v.tobytes()) for key, v in self._pending.items()]
        try:
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO arrays VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise self._problem(error) from None
        self._pending.clear()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()

    def _problem(self, error: object) -> UserError:
        return UserError(
            f"{shown(self._path)}: the cache cannot be used ({shown(error, 60)}); delete the file, or choose another "
            "folder"
        )


def key_of(*parts: object) -> str:
    """A key from anything with a stable text."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")).hexdigest()


def file_key(path: Path) -> str:
    """What tells a file from others and from itself after a change: place, size and time of the last change."""
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
