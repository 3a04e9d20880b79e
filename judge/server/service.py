"""What the routes share: who may come in, and what becomes of their sounds."""

from __future__ import annotations

import asyncio
import hmac
import math
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from judge.server.metrics import Metrics
from judge.server.observe import Record, log
from judge.server.refusals import Refusal, busy, unavailable, unusable
from judge.server.settings import Settings
from judge.server.sounds import anonymous, check_sound
from judge.server.uploads import Disconnected, Form, Receive, receive_form
from judge.server.work import Question, Worker
from peav.errors import UserError, shown

CURVE_STEP = 1.0  # seconds
_DECODERS = 2  # threads that look at uploads


class Service:
    """One model and those who ask it. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.worker = Worker(settings, self.metrics)
        self.pending = 0
        self.is_draining = False
        self.failure: BaseException | None = None  # why the model could not be loaded
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="judge-decode")
        self._root: tempfile.TemporaryDirectory | None = None

    @property
    def is_ready(self) -> bool:
        return self.worker.judge is not None and not self.is_draining

    def start(self, load: Callable[[], Any], failed: Callable[[], None]) -> asyncio.Task:
        """Begin to load the model; ``failed`` is called if that does not work."""
        self._root = tempfile.TemporaryDirectory(prefix="judge-", ignore_cleanup_errors=True)
        self.worker.start()

        async def loading() -> None:
            began = time.perf_counter()
            try:
                await self.worker.load(load)
            except Exception as error:
                self.failure = error
                failed()
            else:
                log.info("ready", extra={"fields": {"seconds": round(time.perf_counter() - began, 2)}})

        return asyncio.get_running_loop().create_task(loading())

    async def stop(self) -> None:
        self.is_draining = True
        await self.worker.stop()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        if self._root is not None:
            self._root.cleanup()

    def check_token(self, headers: Mapping[str, str]) -> None:
        """
        Raises:
            Refusal: 401.
        """
        if self.settings.token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Compared in constant time, as bytes: the time of an answer must not tell how much of a guess was right.
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.settings.token.encode())
        if scheme.lower() != "bearer" or not right:
            line = "send the header Authorization: Bearer TOKEN"
            raise Refusal(401, "no_token", line, {"WWW-Authenticate": 'Bearer realm="judge"'})

    async def answer(self, receive: Receive, headers: Mapping[str, str], record: Record, ranking: bool) -> Any:
        """One request from its first byte to what the judge says.

        Raises:
            Refusal, Disconnected
        """
        self.check_token(headers)
        if self.is_draining:
            raise unavailable("the server is stopping; try again soon")
        if not self.is_ready:
            raise unavailable("the model is still loading")
        if self.pending >= self.settings.pending:
            raise busy(self.metrics.seconds_for(self.pending))
        self.pending += 1
        assert self._root is not None
        folder = Path(tempfile.mkdtemp(dir=self._root.name))
        try:
            wanted = {"mixture": 1, "targets": self.settings.targets} if ranking else {"mixture": 1, "target": 1}
            optional = () if ranking else ("curve",)
            form = await receive_form(receive, headers, folder, wanted, self.settings, optional)
            return await self._while_connected(self._judge(form, folder, record, ranking), receive)
        finally:
            self.worker.discard(folder)
            self.pending -= 1

    async def _judge(self, form: Form, folder: Path, record: Record, ranking: bool) -> Any:
        wants_curve = _switch(form.texts.get("curve", "false"))
        mixture, targets = form.files["mixture"][0], form.files["targets" if ranking else "target"]
        roles = {mixture: "the mixture", **dict.fromkeys(targets, "the target")}
        if ranking:
            roles.update({path: f"target {number}" for number, path in enumerate(targets, 1)})
        await self._check_sounds(roles)
        question = Question(folder, mixture, tuple(targets), form.texts["prompt"], ranking)
        try:
            found, notes = await self.worker.ask(question)
        except UserError as error:
            raise unusable(anonymous(str(error), roles)) from error
        except MemoryError:
            raise unavailable("the server is out of memory right now") from None
        record.notes.update(notes)
        prompt = shown(question.prompt, self.settings.prompt_characters)
        if not ranking:
            curve = {"curve": _curve(found)} if wants_curve else {}
            return plain({"prompt": prompt, **found.to_dict(), "notes": _notes(found, roles), **curve})
        names = form.names["targets"]
        rows = [
            {
                "rank": rank,
                "index": index,
                "name": shown(names[index]),
                "ranked_by": score.ranking,
                **score.to_dict(),
                "notes": _notes(score, roles),
            }
            for rank, (index, score) in enumerate(found, 1)
        ]
        return plain({"prompt": prompt, "ranking": rows})

    async def _check_sounds(self, roles: Mapping[Path, str]) -> None:
        loop = asyncio.get_running_loop()
        left = False
        try:
            for path, role in roles.items():
                await loop.run_in_executor(self._decoders, check_sound, path, role, self.settings, lambda: left)
        finally:
            left = True  # a thread cannot be cancelled; it looks at this between blocks

    async def _while_connected(self, work: Coroutine, receive: Receive) -> Any:
        """The result of ``work``, unless the client leaves or the time is up."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_until_disconnected(receive))
        try:
            await asyncio.wait({task, gone}, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise Disconnected
            line = f"there was no answer within {self.settings.timeout:g} s; try again later, or with shorter sounds"
            raise unavailable(line, self.metrics.seconds_for(self.pending))
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise unusable(f"'curve' is '{shown(text, 20)}'; send true or false")
    return text == "true"


def _notes(score: Any, roles: Mapping[Path, str]) -> list[str]:
    return [anonymous(note, roles) for note in score.notes]


def _curve(score: Any) -> dict[str, Any] | None:
    return None if score.curve is None else score.curve.every(CURVE_STEP).to_dict()


def plain(value: Any) -> Any:
    """For JSON, which has no NaN: null instead."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
