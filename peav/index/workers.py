"""The same work here, in local processes, or on a dask cluster.

A worker only computes: it gets paths and returns vectors, and the one process that started it writes them down. So
a task that is run twice, because its worker died, does no harm. A file that ends its worker each time is found by
running the suspects alone, and is reported like one that cannot be read.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peav.errors import UserError, shown
from peav.excerpts import Recipe, check_can

from .embedding import Job, Outcome, embed_jobs

if TYPE_CHECKING:
    from peav.model import PEAV

TOGETHER = 8  # files in a task, to keep a GPU busy and a scheduler idle
_CONNECT = 15  # seconds


@dataclass(frozen=True)
class Source:
    """Where a process gets its model: what `peav.load` takes, or a function of a module that makes one."""

    model: str | None = None
    device: str = "auto"
    loader: Callable[[], PEAV] | None = None

    def load(self) -> PEAV:
        """The model, loaded.

        Raises:
            UserError: see `peav.load`.
        """
        if self.loader is not None:
            return self.loader()
        import peav
        from peav.frame import clip_level

        return clip_level(peav.load(self.model, device=self.device))


@dataclass(frozen=True)
class Facts:
    """What the index needs to know of a model that is loaded elsewhere."""

    identity: str
    output_dim: int
    device: str


@dataclass(frozen=True)
class Task:
    """What all jobs of a run have in common."""

    source: Source
    recipe: Recipe
    windowed: bool = False
    identity: str | None = None  # that the model must have; None before it is known


def facts_of(model: PEAV, recipe: Recipe) -> Facts:
    """See `Facts`.

    Raises:
        UserError: the model cannot embed what the recipe asks for.
    """
    check_can(model, recipe)
    return Facts(model.identity, model.output_dim, str(model.device))


# -- inside a worker ----------------------------------------------------------------------------------------------

_models: dict[Source, tuple[PEAV, str]] = {}
_one_at_a_time = threading.Lock()  # a worker of a cluster may run several tasks in threads


def _model(source: Source) -> tuple[PEAV, str]:
    """The model of this process and its identity, loaded once."""
    if source not in _models:
        model = source.load()
        _models[source] = model, model.identity
    return _models[source]


def describe(task: Task) -> Facts:
    """What the worker's model is."""
    with _one_at_a_time:
        model, identity = _model(task.source)
        check_can(model, task.recipe)
        return Facts(identity, model.output_dim, str(model.device))


def run(task: Task, jobs: list[Job]) -> list[Outcome]:
    """The outcomes of some jobs.

    Raises:
        UserError: the model of this worker is another one than that of the run.
    """
    with _one_at_a_time:
        model, identity = _model(task.source)
        if task.identity is not None and identity != task.identity:
            import socket

            raise UserError(
                f"the model on {shown(socket.gethostname(), 60)} is {identity}, that of this run is {task.identity}; "
                "give every worker the same model folder"
            )
        return list(embed_jobs(model, task.recipe, task.windowed, jobs))


def _on_cluster(function: Callable, task: Task, *arguments: Any) -> Any:
    """`describe` or `run` in a worker of a cluster, with as many threads as it was given."""
    import distributed
    import torch

    torch.set_num_threads(distributed.get_worker().state.nthreads)
    return function(task, *arguments)


def _begin() -> None:
    """First thing in a local worker."""
    import torch

    torch.set_num_threads(1)  # the processes share the cores already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that commits
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    # A killed parent cannot tell its workers, which would wait for it for ever.
    parent.join()
    os._exit(1)


# -- where the work is done ---------------------------------------------------------------------------------------


def here(model: PEAV, task: Task, jobs: Iterable[Job]) -> Iterator[Outcome]:
    """In this process."""
    return embed_jobs(model, task.recipe, task.windowed, jobs)


class Processes:
    """Local processes, each with one thread and a model of its own. Use it in a `with` block."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def _submit(self, function: Callable, *arguments: Any) -> Future:
        try:
            return self._started().submit(function, *arguments)
        except BrokenProcessPool:  # a worker died since; what was running will tell so itself
            self._close()
            return self._started().submit(function, *arguments)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, mp_context=context, initializer=_begin)
        return self._pool

    def describe(self, task: Task) -> Facts:
        """What the workers' model is.

        Raises:
            UserError: it cannot be loaded.
        """
        try:
            return self._submit(describe, task).result()
        except BrokenProcessPool:
            raise UserError("a worker ended while it loaded the model; is there enough memory for --workers?") from None

    def run(self, task: Task, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """The outcomes, in the order in which they are done."""
        chunks = _chunks(jobs)
        suspects: deque[Job] = deque()  # were running when a worker died
        running: dict[Future, list[Job]] = {}
        while True:
            # Suspects run alone, so that the next death names its file.
            accused = bool(suspects) and not running
            if accused:
                suspect = suspects.popleft()
                running[self._submit(run, task, [suspect])] = [suspect]
            while not (accused or suspects) and len(running) < 2 * self._workers and (chunk := next(chunks, None)):
                running[self._submit(run, task, chunk)] = chunk
            if not running:
                return
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            broken = False
            for future in ended:
                chunk = running.pop(future)
                try:
                    outcomes = future.result()
                except BrokenProcessPool:
                    broken = True
                    if accused:
                        outcomes = [_ended_its_worker(chunk[0])]
                    else:
                        outcomes = []
                        suspects.extend(chunk)
                yield from outcomes
            if broken:
                suspects.extend(job for chunk in running.values() for job in chunk)
                running.clear()
                self._close()


class Cluster:
    """A dask.distributed cluster, whose workers have this package and see the same files under the same names.

    Args:
        address: of its scheduler, such as ``tcp://10.0.0.5:8786``.

    Raises:
        UserError: dask is not installed, or nobody answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise UserError('--scheduler needs dask: pip install "samaudio[batch]"') from error
        self._distributed = distributed
        try:
            self._client = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise UserError(f"{shown(address, 60)}: no scheduler answers ({shown(error, 60)}); check it") from None
        self._address = shown(address, 60)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def describe(self, task: Task) -> Facts:
        """What the workers' model is.

        Raises:
            UserError: there are no workers, or the model cannot be loaded.
        """
        if not self._client.nthreads():
            raise UserError(f"{self._address}: has no workers; start some with: dask worker {self._address}")
        future = self._client.submit(_on_cluster, describe, task, pure=False, key=_key())
        try:
            return future.result()
        except self._distributed.KilledWorker:
            raise UserError("workers ended while they loaded the model; is there enough memory for it?") from None

    def run(self, task: Task, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """The outcomes, in the order in which they are done."""
        chunks = _chunks(jobs)
        again: deque[list[Job]] = deque()  # were part of a chunk that ended its workers
        running: dict[str, list[Job]] = {}
        done = self._distributed.as_completed(loop=self._client.loop)
        while True:
            most = max(4, 2 * sum(self._client.nthreads().values()))
            while len(running) < most and (chunk := again.popleft() if again else next(chunks, None)):
                key = _key()
                running[key] = chunk
                done.add(self._client.submit(_on_cluster, run, task, chunk, pure=False, key=key))
            if not running:
                return
            future = next(done)
            chunk = running.pop(future.key)
            if future.status == "finished":
                yield from future.result()
            elif future.status == "error" and isinstance(future.exception(), self._distributed.KilledWorker):
                if len(chunk) == 1:
                    yield _ended_its_worker(chunk[0])
                else:
                    again.extend([job] for job in chunk)
            elif future.status == "error":
                raise future.exception()
            else:  # cancelled or lost
                raise UserError(f"{self._address}: the scheduler is gone; start it and run this again to go on")
            future.release()


def _chunks(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    source = iter(jobs)
    while chunk := list(itertools.islice(source, TOGETHER)):
        yield chunk


def _key() -> str:
    return f"peav-{uuid.uuid4().hex}"


def _ended_its_worker(job: Job) -> Outcome:
    return Outcome(job.path, error=f"{shown(job.file)}: ends the process that reads it; convert it, or leave it out")
