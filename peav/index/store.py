"""An index on the disk: shards, and one small file that says which of them count.

``index.json`` is the whole truth: what the embeddings are of (`Settings`), the shards, and which of their lines are
out of date. It is replaced in one step, after the shards that it names are on the disk; so whatever stops a writer,
the index is what it was after its last commit. What a stopped writer left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from peav.errors import UserError, shown

from . import disk
from .lock import NAME as LOCK
from .lock import locked
from .settings import FORMAT, VERSION, Settings
from .shards import Entry, Shard, ShardInfo, write_shard

INDEX = "index.json"
SHARD_BYTES = 64 * 2**20  # of vectors in a merged shard
MOST_SMALL = 8  # shards that are not full, before they are merged
_SHARD = re.compile(r"(\d{6}-[0-9a-f]{8})(\.npy|\.rows\.npy|\.jsonl)")
_OURS = re.compile(rf"{LOCK}|\.index\.partial-.*|.*\.faiss|{_SHARD.pattern}", re.DOTALL)


@dataclass(frozen=True)
class Contents:
    """What ``index.json`` says."""

    settings: Settings
    shards: tuple[ShardInfo, ...] = ()
    generation: int = 0  # of how many commits it is the last


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index, of whatever version."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads((folder / INDEX).read_bytes()).get("format") == FORMAT
    return False


def read_contents(folder: Path) -> Contents:
    """What ``index.json`` says.

    Raises:
        UserError: there is none, or it is of another kind or version, or damaged.
    """
    try:
        values = json.loads((folder / INDEX).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{shown(folder)}: is no index; make one with peav index FOLDER --out INDEX") from None
    except OSError as error:
        raise UserError(f"{shown(folder)}: cannot be read ({error.strerror}); check its permissions") from None
    except ValueError:
        raise _damaged(folder) from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{shown(folder)}: its {INDEX} is not that of an index; give another folder")
    if values.get("version") != VERSION:
        raise UserError(
            f"{shown(folder)}: is an index of version {shown(values.get('version'), 20)}, this program reads "
            f"{VERSION}; update the program, or index anew"
        )
    try:
        shards = tuple(ShardInfo.from_dict(shard) for shard in values["shards"])
        return Contents(Settings.from_dict(values["settings"]), shards, int(values["generation"]))
    except (KeyError, TypeError, ValueError):
        raise _damaged(folder) from None


def open_shards(folder: Path) -> tuple[Contents, list[Shard]]:
    """Everything that there is, opened at one moment.

    Raises:
        UserError: as `read_contents`, and for a missing or damaged shard.
    """
    while True:
        contents = read_contents(folder)
        try:
            return contents, [Shard(folder, info, contents.settings.output_dim) for info in contents.shards]
        except (OSError, ValueError) as error:
            if read_contents(folder).generation != contents.generation:
                continue  # merged by a writer in between
            why = shown(error, 60)
            raise UserError(f"{shown(folder)}: a shard is missing or damaged ({why}); run peav index again") from None


def _damaged(folder: Path) -> UserError:
    return UserError(f"{shown(folder)}: its {INDEX} is damaged; remove the folder and index anew")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a committed file is."""

    shard: int
    line: int
    row: int
    entry: Entry


class Writer:
    """The one that may change an index; see `writing`. Changes count from `commit` on.

    Attributes:
        settings: None for a new folder, until `begin`.
        mended: shards that could not be read and were given up; their files are to be embedded again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mended = 0
        self._generation = 0
        self._pending: dict[str, tuple[Entry, np.ndarray]] = {}
        self._removed: set[str] = set()
        self._shards: list[Shard] = []
        self._dead: list[set[int]] = []
        self._places: dict[str, _Place] = {}
        self.settings: Settings | None = None
        if (folder / INDEX).exists():
            self._load()
        self._clean()

    def _load(self) -> None:
        contents = read_contents(self.folder)
        self.settings, self._generation = contents.settings, contents.generation
        for info in contents.shards:
            try:
                shard = Shard(self.folder, info, contents.settings.output_dim)
                entries = list(shard.entries())
            except (OSError, ValueError, KeyError, TypeError):
                self.mended += 1
                continue
            self._add(shard, entries)
        if self.mended:
            self._guarded(self._publish)

    def _add(self, shard: Shard, entries: list[tuple[int, int, Entry]]) -> None:
        number = len(self._shards)
        self._shards.append(shard)
        self._dead.append(set(shard.info.dead))
        for line, row, entry in entries:
            self._places[entry.path] = _Place(number, line, row, entry)

    def _clean(self) -> None:
        """Remove what a stopped writer left."""
        names = {shard.info.name for shard in self._shards}
        for path in self.folder.iterdir():
            match = _SHARD.fullmatch(path.name)
            if path.name.startswith(".index.partial-") or (match is not None and match[1] not in names):
                disk.remove(path)

    def begin(self, settings: Settings) -> None:
        """Say what the embeddings are of; for a new index, or to change the place of the root."""
        self.settings = settings
        self._publish()

    @property
    def entries(self) -> dict[str, Entry]:
        """All files by path, also what is not committed yet."""
        found = {path: place.entry for path, place in self._places.items() if path not in self._removed}
        return found | {path: entry for path, (entry, _) in self._pending.items()}

    @property
    def pending_rows(self) -> int:
        """Rows that a stop would lose."""
        return sum(len(vectors) for _, vectors in self._pending.values())

    def vectors(self, path: str) -> np.ndarray:
        """Vectors ``[rows, E]`` of a file."""
        if path in self._pending:
            return self._pending[path][1]
        place = self._places[path]
        return np.array(self._shards[place.shard].vectors[place.row : place.row + len(place.entry.spans)])

    def put(self, entry: Entry, vectors: np.ndarray) -> None:
        """Add a file or replace what is known of it; ``vectors [rows, E]`` finite.

        Raises:
            ValueError: the vectors do not fit.
        """
        assert self.settings is not None
        if vectors.shape != (len(entry.spans), self.settings.output_dim) or not np.isfinite(vectors).all():
            raise ValueError(f"{entry.path}: vectors {vectors.shape} for {len(entry.spans)} spans, or not finite")
        self._pending[entry.path] = entry, vectors
        self._removed.discard(entry.path)

    def remove(self, path: str) -> None:
        """Forget a file."""
        self._pending.pop(path, None)
        if path in self._places:
            self._removed.add(path)

    def commit(self) -> None:
        """Make everything since the last commit count, at once.

        Raises:
            UserError: the disk is full or fails; the index is what it was.
        """
        if not self._pending and not self._removed:
            return
        items = list(self._pending.values())

        def write() -> None:
            shards = list(self._shards)
            if items:
                shards.append(self._written(items))
            outdated = [self._places[path] for path in (*self._pending, *self._removed) if path in self._places]
            dead = [set(lines) for lines in self._dead] + [set() for _ in shards[len(self._dead) :]]
            for place in outdated:
                dead[place.shard].add(place.line)
            self._publish(shards, dead)
            for path in self._removed:
                del self._places[path]
            self._shards, self._dead = shards, dead
            if items:
                for line, row, entry in shards[-1].entries():
                    self._places[entry.path] = _Place(len(shards) - 1, line, row, entry)
            self._pending, self._removed = {}, set()

        self._guarded(write)

    def compact(self, force: bool = False) -> None:
        """Merge small shards and leave out what is out of date, if there is enough of either.

        Raises:
            UserError: as `commit`.
        """
        assert self.settings is not None
        full = max(1, SHARD_BYTES // (4 * self.settings.output_dim))
        keep: list[int] = []
        merge: list[int] = []
        for number, shard in enumerate(self._shards):
            small = shard.info.rows < full // 2 or bool(self._dead[number])
            (merge if small else keep).append(number)
        dead = sum(len(lines) for lines in self._dead)
        lines = sum(shard.info.entries for shard in self._shards)
        if not (force and merge) and len(merge) <= MOST_SMALL and dead * 5 <= lines:
            return
        self._guarded(lambda: self._merge(keep, merge, full))

    def _merge(self, keep: list[int], merge: list[int], full: int) -> None:
        shards = [self._shards[number] for number in keep]
        items: list[tuple[Entry, np.ndarray]] = []
        rows = 0
        for number in merge:
            shard = self._shards[number]
            for line, row, entry in shard.entries():
                if line in self._dead[number]:
                    continue
                items.append((entry, shard.vectors[row : row + len(entry.spans)]))
                rows += len(entry.spans)
                if rows >= full:
                    shards.append(self._written(items))
                    items, rows = [], 0
        if items:
            shards.append(self._written(items))
        self._publish(shards, [self._dead[number] for number in keep] + [set()] * (len(shards) - len(keep)))
        self._shards, self._dead, self._places = [], [], {}
        for shard in shards:
            self._add(shard, list(shard.entries()))
        self._clean()

    def _written(self, items: list[tuple[Entry, np.ndarray]]) -> Shard:
        assert self.settings is not None
        self._generation += 1
        name = f"{self._generation % 10**6:06d}-{secrets.token_hex(4)}"
        info = write_shard(self.folder, name, items, self.settings.output_dim)
        return Shard(self.folder, info, self.settings.output_dim)

    def _publish(self, shards: list[Shard] | None = None, dead: list[set[int]] | None = None) -> None:
        """The moment from which on it counts."""
        assert self.settings is not None
        shards = self._shards if shards is None else shards
        pairs = zip(shards, self._dead if dead is None else dead, strict=True)
        infos = [replace(shard.info, dead=tuple(sorted(lines))) for shard, lines in pairs]
        self._generation += 1
        disk.replace_json(
            self.folder / INDEX,
            {
                "format": FORMAT,
                "version": VERSION,
                "generation": self._generation,
                "settings": self.settings.to_dict(),
                "shards": [info.to_dict() for info in infos],
            },
        )
        for shard, info in zip(shards, infos, strict=True):
            shard.info = info

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            why = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
            raise UserError(
                f"{shown(self.folder)}: could not be written ({why}); what was committed is kept, so run it again"
            ) from error


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """Be the one writer of an index; the folder is made if it is not there. What is not committed is dropped.

    Raises:
        UserError: somebody else writes it, it cannot be written, or it holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name)]
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(folder)}: cannot be made ({why}); choose another --out") from error
    if INDEX not in foreign and foreign:
        raise UserError(f"{shown(folder)}: holds {shown(foreign[0], 60)}, so it is no index; choose another --out")
    with locked(folder):
        try:
            yield Writer(folder)
        finally:
            if not (folder / INDEX).exists():  # it was never begun, so nothing is left of it
                disk.remove(folder / LOCK)
                with contextlib.suppress(OSError):
                    folder.rmdir()
