"""Bring an index up to date with its folder: embed what is new or changed, forget what is gone.

Whether a file has changed is told by its size and time, and where these differ by its bytes; so a file that was
copied or touched is not embedded again, nor one that was moved within the folder. Everything is committed every
half minute: a run that is stopped goes on from there.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peav.console import Advance
from peav.errors import UserError, shown
from peav.excerpts import Recipe
from peav.windows import WINDOW

from .embedding import Job, Outcome
from .scan import Found, scan
from .settings import Settings, check_model, check_same
from .shards import Entry
from .store import Writer, writing
from .workers import Cluster, Facts, Processes, Source, Task, facts_of, here

if TYPE_CHECKING:
    from peav.model import PEAV

COMMIT_SECONDS = 30.0
COMMIT_ROWS = 8_192


@dataclass
class Report:
    """What a run has done. Files by their path below the root; ``failed`` with the reason."""

    index: Path
    settings: Settings
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: int = 0
    reused: list[str] = field(default_factory=list)  # touched, copied or moved, with bytes that were embedded before
    removed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # gone, but kept
    silent: list[str] = field(default_factory=list)  # among those that were added or changed
    failed: dict[str, str] = field(default_factory=dict)
    files: int = 0  # in the index now
    rows: int = 0
    seconds: float = 0.0  # of sound or film that was embedded
    mended: int = 0  # shards that could not be read and were made again
    device: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        values = {name: value for name, value in vars(self).items() if name != "settings"}
        return values | {"model": self.settings.model, "embeds": self.settings.kind, "window": self.settings.window}


def build(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    *,
    model: str | Path | PEAV | Callable[[], PEAV] | None = None,
    device: str = "auto",
    kind: str | None = None,
    window: float | None = None,
    fps: float | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    keep_missing: bool = False,
    moved: bool = False,
    progress: Advance | None = None,
) -> Report:
    """Make or update the index ``out`` of all recordings below ``folder``.

    >>> report = build("sounds/", "sounds.index", window=10.0)                 # doctest: +SKIP
    >>> len(report.added), report.failed                                       # doctest: +SKIP

    Args:
        model: what `peav.load` takes; a loaded model, for work in this process; or a function of a module that makes
            one, for workers.
        kind: what to embed of each file: audio (the default), video, or audio_video.
        window: seconds; also give windows of this length rows of their own, so that a search tells times. The
            embedding of the whole file is the mean of the same windows, or of windows of 10 s without it.
        fps: pictures per second for models that look at all of them; by default all, up to 30.
        workers: local processes; 1 works in this one. Each loads the model. In a program of your own, call this
            below ``if __name__ == "__main__":``.
        scheduler: address of a dask.distributed scheduler, whose workers do the work instead.
        keep_missing: keep what is known of files that are gone, or cannot be read any more.
        moved: the folder is that of the index in another place.
        progress: told the seconds that are embedded, and an estimate of all there are.

    ``kind``, ``window`` and ``fps`` of an index that exists are taken from it where they are None.

    Raises:
        UserError: the index is of another model or folder or was made otherwise, somebody else writes it, it cannot
            be written, the model cannot be loaded or lacks a tower, or there is no such folder.
    """
    if workers < 1:
        raise UserError(f"{workers} workers; give at least 1")
    root, out = Path(os.path.abspath(folder)), Path(out)  # noqa: PTH100 keeps links, which resolve() follows
    if not root.is_dir():
        raise UserError(f"{shown(folder)}: is no folder; name the one with the recordings")
    with writing(out) as writer:
        wanted = {"kind": kind, "window": window, "fps": fps, "root": None if moved else str(root)}
        old = writer.settings
        if old is not None:
            check_same(out, old, wanted)
            kind, window, fps = old.kind, old.window, old.fps
        recipe = Recipe(kind or "audio", window or WINDOW, fps)
        found = scan(root, recipe.kind)
        with ExitStack() as stack:
            crew = _crew(stack, model, device, workers, scheduler)
            facts, run = crew(recipe, window is not None)
            settings = Settings(
                facts.identity, facts.output_dim, str(root), _name_of(model), recipe.kind, window, fps
            )
            if old is None:
                writer.begin(settings)
            else:
                check_model(out, old, settings.model, settings.model_name)
                if old.root != str(root):
                    writer.begin(settings)
            report = Report(out, settings, mended=writer.mended, device=facts.device)
            _Update(writer, report, found, keep_missing, progress).run(run)
    return report


Run = Callable[[Iterator[Job]], Iterator[Outcome]]
Crew = Callable[[Recipe, bool], tuple[Facts, Run]]


def _crew(stack: ExitStack, model: Any, device: str, workers: int, scheduler: str | None) -> Crew:
    """Who does the work: a function from what is to be done to facts about the model, and a runner of jobs."""
    loaded = hasattr(model, "embed")
    if loaded and (workers > 1 or scheduler):
        raise ValueError("a loaded model cannot be sent to workers; give its folder, or a function that loads it")
    loader = model if callable(model) and not loaded else None
    source = Source(None if loaded or loader or model is None else os.fspath(model), device, loader)

    def alone(recipe: Recipe, windowed: bool):
        own = model if loaded else source.load()
        task = Task(source, recipe, windowed)
        return facts_of(own, recipe), lambda jobs: here(own, task, jobs)

    def together(recipe: Recipe, windowed: bool):
        team: Cluster | Processes = Cluster(scheduler) if scheduler else Processes(workers)
        stack.enter_context(team)
        facts = team.describe(Task(source, recipe))
        task = Task(source, recipe, windowed, facts.identity)
        return facts, lambda jobs: team.run(task, jobs)

    return together if scheduler or workers > 1 else alone


def _name_of(model: Any) -> str | None:
    """What to call the model by later: a folder by its full path, a hub id as it is."""
    if model is None:
        return None
    if not isinstance(model, (str, Path)):
        return "a model given in Python"
    return str(Path(model).resolve()) if Path(model).is_dir() else str(model)


class _Update:
    """One run over the files of a folder."""

    def __init__(
        self, writer: Writer, report: Report, found: dict[str, Found], keep_missing: bool, progress: Advance | None
    ) -> None:
        self.writer, self.report, self.found = writer, report, found
        self.keep_missing, self.progress = keep_missing, progress
        self.root = Path(report.settings.root)
        self.before = writer.entries
        self.gone = [path for path in self.before if path not in found]
        self._left = self._embedded = 0  # bytes
        self._committed = time.monotonic()

    def run(self, run: Run) -> None:
        jobs = list(self._jobs())
        self._left = sum(self.found[job.path].size for job in jobs)
        try:
            if jobs:
                for outcome in run(iter(jobs)):
                    self._take(outcome)
                    self._now_and_then()
            self._forget()
        finally:
            # Also when it is stopped: what is done is done.
            self.writer.commit()
        self.writer.compact()
        entries = self.writer.entries
        self.report.files, self.report.rows = len(entries), sum(len(entry.spans) for entry in entries.values())

    def _jobs(self) -> Iterator[Job]:
        by_size: defaultdict[int, list[str]] = defaultdict(list)
        for path in self.gone:
            by_size[self.before[path].size].append(self.before[path].digest)
        for path, now in self.found.items():
            entry = self.before.get(path)
            if entry is not None and (entry.size, entry.mtime_ns) == (now.size, now.mtime_ns):
                self.report.unchanged += 1
                continue
            known = by_size.get(now.size, []) + ([] if entry is None else [entry.digest])
            yield Job(path, str(self.root / path), tuple(dict.fromkeys(known)))

    def _take(self, outcome: Outcome) -> None:
        path, entry = outcome.path, self.before.get(outcome.path)
        if outcome.error is not None:
            self.report.failed[path] = outcome.error
            if entry is not None:
                self._drop(path)
        elif outcome.known:
            # Bytes that were embedded under this name or under one that is gone.
            source = entry if entry is not None and entry.digest == outcome.digest else self._moved_from(outcome.digest)
            vectors = self.writer.vectors(source.path)
            self.writer.put(
                Entry(path, outcome.size, outcome.mtime_ns, outcome.digest, source.seconds, source.spans), vectors
            )
            self.report.reused.append(path)
        else:
            assert outcome.vectors is not None
            made = Entry(path, outcome.size, outcome.mtime_ns, outcome.digest, outcome.seconds, outcome.spans)
            self.writer.put(made, outcome.vectors)
            (self.report.added if entry is None else self.report.changed).append(path)
            self.report.seconds += outcome.seconds
            if made.silent:
                self.report.silent.append(path)
        self._tell(self.found[path].size, outcome)

    def _tell(self, size: int, outcome: Outcome) -> None:
        self._left -= size
        if outcome.vectors is not None:
            self._embedded += size
        if self.progress is not None:
            # How long a file is shows when it was read, so the rest is estimated from its bytes.
            rate = self.report.seconds / self._embedded if self._embedded else 0.0
            self.progress(self.report.seconds, self.report.seconds + rate * self._left or None)

    def _moved_from(self, digest: str) -> Entry:
        return next(self.before[path] for path in self.gone if self.before[path].digest == digest)

    def _drop(self, path: str) -> None:
        if self.keep_missing:
            self.report.missing.append(path)
        else:
            self.writer.remove(path)
            self.report.removed.append(path)

    def _forget(self) -> None:
        for path in self.gone:
            self._drop(path)

    def _now_and_then(self) -> None:
        if time.monotonic() - self._committed < COMMIT_SECONDS and self.writer.pending_rows < COMMIT_ROWS:
            return
        self.writer.commit()
        self._committed = time.monotonic()
