"""The queue in front of the one model.

Questions that arrive while the model works are answered together in its next batch; an idle model waits a
moment (`Settings.batch_wait`) for company. A batch gives the answers that its questions would have got one by
one: that is the judge's promise, and where a batch fails its questions are asked again singly, so that one bad
sound spoils nobody else's answer.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from judge.server.metrics import Metrics
from judge.server.settings import Settings


@dataclass(frozen=True)
class Question:
    """What a client wants to know about files in a folder of its own."""

    folder: Path
    mixture: Path
    targets: tuple[Path, ...]
    prompt: str
    is_ranking: bool = False


@dataclass(eq=False)
class _Job:
    question: Question
    answer: asyncio.Future
    asked: float = field(default_factory=time.perf_counter)


class Worker:
    """Asks the judge, one batch at a time, in a thread of its own."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.judge: Any = None  # None until it is loaded
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        # One thread: the model is shared, and two batches at once would only take turns on the cores.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._running: set[Path] = set()
        self._discarded: set[Path] = set()
        self._task: asyncio.Task | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def load(self, load: Callable[[], Any]) -> None:
        """Call ``load`` in the model's thread, so that the server answers meanwhile."""
        self.judge = await asyncio.get_running_loop().run_in_executor(self._thread, load)

    async def ask(self, question: Question) -> tuple[Any, dict[str, Any]]:
        """The judge's `Score`, or its ranking, and notes for the log. Whoever is cancelled is not answered.

        Raises:
            UserError: the judge cannot use these sounds.
        """
        job = _Job(question, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        try:
            return await job.answer
        finally:
            if job in self._waiting:  # cancelled before its turn
                self._waiting.remove(job)

    def discard(self, folder: Path) -> None:
        """Remove a question's files: now, or as soon as the model has let go of them."""
        if folder in self._running:
            self._discarded.add(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)

    async def stop(self) -> None:
        """Forget who is waiting, let the running batch end."""
        for job in self._waiting:
            job.answer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if not self._waiting:
                self._arrived.clear()
                continue
            spare = self.settings.batch_wait - (time.perf_counter() - self._waiting[0].asked)
            if len(self._waiting) < self.settings.batch and spare > 0:
                await asyncio.sleep(spare)
            jobs = self._next_batch()
            if not jobs:
                continue
            began = time.perf_counter()
            self._running = {job.question.folder for job in jobs}
            try:
                answers = await loop.run_in_executor(self._thread, _answers, self.judge, [j.question for j in jobs])
            except Exception as error:
                answers = [error] * len(jobs)
            finally:
                self._let_go()
            ended = time.perf_counter()
            self.metrics.scored(len(jobs), ended - began)
            for job, answer in zip(jobs, answers, strict=True):
                notes = {"batch": len(jobs), "queued": round(began - job.asked, 4), "model": round(ended - began, 4)}
                _settle(job.answer, answer, notes)

    def _next_batch(self) -> list[_Job]:
        jobs: list[_Job] = []
        while self._waiting and len(jobs) < self.settings.batch:
            job = self._waiting.popleft()
            if not job.answer.cancelled():
                jobs.append(job)
        return jobs

    def _let_go(self) -> None:
        self._running = set()
        while self._discarded:
            shutil.rmtree(self._discarded.pop(), ignore_errors=True)


def _settle(future: asyncio.Future, answer: Any, notes: dict[str, Any]) -> None:
    if future.cancelled():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result((answer, notes))


def _answers(judge: Any, questions: Sequence[Question]) -> list[Any]:
    """The answer to each, or what went wrong with it."""
    scorings = [question for question in questions if not question.is_ranking]
    scores: dict[Question, Any] = {}
    if len(scorings) > 1 and hasattr(judge, "score_batch"):
        try:
            found = judge.score_batch([(q.mixture, q.targets[0], q.prompt) for q in scorings])
            scores = dict(zip(scorings, found, strict=True))
        except Exception:
            scores = {}  # one by one, to find out whose it was
    return [scores[question] if question in scores else _answer(judge, question) for question in questions]


def _answer(judge: Any, question: Question) -> Any:
    try:
        if question.is_ranking:
            return judge.rank(question.mixture, list(question.targets), question.prompt)
        return judge.score(question.mixture, question.targets[0], question.prompt)
    except Exception as error:
        return error
