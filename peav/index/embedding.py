"""Files to vectors: what a worker does, wherever it runs.

Reading is ahead of the model: threads decode the next files while it works, so a run takes as long as the slower of
the two and not as long as both. Windows of several files go through the model together where that is faster.

Axes: ``R`` rows, ``E`` embedding width.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.excerpts import Excerpt, Mean, Recipe, embed_excerpts, excerpts

if TYPE_CHECKING:
    from peav.model import PEAV

_WAITING = 4  # windows of a file that may wait for the model
_TOGETHER = 8  # windows that a GPU embeds at once
_READERS = 4  # files that are decoded at once for a GPU; a CPU has the model to do


@dataclass(frozen=True, slots=True)
class Job:
    """One file to embed. ``known``: digests whose embedding is there already, so that it need not be made."""

    path: str  # below the root
    file: str
    known: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of a job. ``vectors`` ``[R, E]``, R 0 of a silent file; None where ``known`` or ``error`` is set."""

    path: str
    size: int = 0
    mtime_ns: int = 0
    digest: str = ""
    seconds: float = 0.0
    spans: tuple[tuple[float, float] | None, ...] = ()
    vectors: np.ndarray | None = None
    known: bool = False  # its digest is one of the job's
    error: str | None = None


class _Work:
    """A file on its way through the model."""

    def __init__(self) -> None:
        self.mean = Mean()
        self.windows: list[Tensor] = []
        self.spans: list[tuple[float, float]] = []
        self.seconds = 0.0
        self.waiting = 0  # windows that the model has not seen yet
        self.error: str | None = None
        self.outcome: Outcome | None = None  # set when it was read to the end

    def finish(self, windowed: bool, width: int) -> Outcome:
        outcome = self.outcome
        assert outcome is not None
        outcome.error = outcome.error or self.error
        if outcome.error is not None or outcome.known:
            return outcome
        outcome.seconds = self.seconds
        mean = self.mean.result()
        if mean is None:
            outcome.vectors = np.empty((0, width), dtype=np.float32)
        else:
            rows = [mean, *self.windows] if windowed else [mean]
            outcome.vectors = torch.stack(rows).numpy()
            outcome.spans = (None, *self.spans) if windowed else (None,)
        return outcome


def embed_jobs(model: PEAV, recipe: Recipe, windowed: bool, jobs: Iterable[Job]) -> Iterator[Outcome]:
    """The outcome of each job, in order.

    A file that cannot be read is an outcome, not an exception: one in a million is no reason to stop.

    Args:
        windowed: also give a row to every window that there is something in, after the row of the whole file.
    """
    together, readers = _pace(model, recipe)
    batch: list[tuple[_Work, Excerpt]] = []
    done: deque[_Work] = deque()

    def finished() -> Iterator[Outcome]:
        while done and not done[0].waiting:
            yield done.popleft().finish(windowed, model.output_dim)

    with closing(_ahead(jobs, lambda job: _read(job, model, recipe), readers)) as readings:
        for reading in readings:
            work = _Work()
            for item in reading:
                if isinstance(item, Outcome):
                    work.outcome = item
                    break
                work.seconds = item.end
                if item.weight and work.error is None:
                    work.waiting += 1
                    batch.append((work, item))
                if len(batch) >= together:
                    _embed(model, batch)
                    batch.clear()
                    yield from finished()
            done.append(work)
            yield from finished()
    if batch:
        _embed(model, batch)
    for work, _ in batch:
        work.waiting = 0
    yield from finished()


def _pace(model: PEAV, recipe: Recipe) -> tuple[int, int]:
    """How many windows the model embeds at once, and how many files are read at once."""
    if model.device.type != "cuda":
        return 1, 1
    return (_TOGETHER if recipe.kind == "audio" else 1), _READERS


def _embed(model: PEAV, batch: Sequence[tuple[_Work, Excerpt]]) -> None:
    """Put windows through the model; what it refuses is an error of that file."""
    try:
        vectors = embed_excerpts(model, [item for _, item in batch])
        if not bool(vectors.isfinite().all()):
            raise ValueError("the embedding is not finite")
    except (ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        if len(batch) > 1:  # one strange window must not cost the others
            for pair in batch:
                _embed(model, [pair])
            return
        work, item = batch[0]
        work.waiting -= 1
        work.error = work.error or f"cannot be embedded at {item.start:.2f} s ({shown(error, 120)})"
        return
    for (work, item), vector in zip(batch, vectors, strict=True):
        work.waiting -= 1
        work.mean.add(vector, item.weight)
        work.windows.append(vector)
        work.spans.append((item.start, item.end))


def _read(job: Job, model: PEAV, recipe: Recipe) -> Iterator[Excerpt | Outcome]:
    """The windows of a file that is not known, then its outcome, still without vectors."""
    outcome, where = Outcome(job.path), shown(job.file)
    try:
        outcome.size, outcome.mtime_ns = _stamp(job.file)
        outcome.digest = digest_of(job.file)
        outcome.known = outcome.digest in job.known
        if not outcome.known:
            yield from excerpts(job.file, model, recipe)
        if _stamp(job.file) != (outcome.size, outcome.mtime_ns):
            raise UserError(f"{where}: changed while it was being read; wait until it is complete")
    except UserError as error:
        outcome.error = str(error)
    except OSError as error:
        outcome.error = f"{where}: cannot be read ({error.strerror or error}); check the file and its folder"
    except Exception as error:
        # What a native decoder makes of a foreign file cannot be foreseen, and is no reason to lose the others.
        outcome.error = f"{where}: cannot be decoded ({type(error).__name__}: {shown(error, 90)}); convert it to wav"
    yield outcome


def digest_of(file: str) -> str:
    """32 hexadecimal digits over the bytes of a file."""
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _stamp(file: str) -> tuple[int, int]:
    status = Path(file).stat()
    return status.st_size, status.st_mtime_ns


def _ahead(
    jobs: Iterable[Job], read: Callable[[Job], Iterator[Excerpt | Outcome]], readers: int
) -> Generator[Iterator[Excerpt | Outcome], None, None]:
    """What ``read`` gives for each job, in order, while threads are already at the next ones."""
    stop = threading.Event()

    def fill(job: Job, waiting: queue.Queue) -> None:
        for item in read(job):
            while not stop.is_set():
                try:
                    waiting.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if stop.is_set():
                return

    def drained(waiting: queue.Queue) -> Iterator[Excerpt | Outcome]:
        while True:
            item = waiting.get()
            yield item
            if isinstance(item, Outcome):
                return

    source, begun = iter(jobs), deque[queue.Queue]()
    with ThreadPoolExecutor(readers) as pool:
        try:
            while True:
                while len(begun) <= readers and (job := next(source, None)) is not None:
                    begun.append(queue.Queue(_WAITING))
                    pool.submit(fill, job, begun[-1])
                if not begun:
                    return
                yield drained(begun.popleft())
        finally:
            stop.set()
