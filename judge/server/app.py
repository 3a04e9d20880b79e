"""The routes.

Requests are read by hand, not by FastAPI: the token and the number of requests are looked at before the first
byte of a body, and the body is counted while it arrives.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, and `Request` is only
# imported where they are defined, because the server is an extra.

import asyncio
import hmac
import math
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge.server import describe
from judge.server.metrics import CONTENT_TYPE, Metrics
from judge.server.observe import Observed, Record, log
from judge.server.page import page
from judge.server.refusals import Refusal, busy, document, unavailable, unusable
from judge.server.settings import Settings
from judge.server.sounds import anonymous, check_sound
from judge.server.uploads import Disconnected, Form, Receive, receive_form
from judge.server.work import Question, Worker
from peav.errors import UserError, shown

if TYPE_CHECKING:
    from fastapi import FastAPI

CURVE_STEP = 1.0  # seconds
_DECODERS = 2  # threads that look at uploads
_ROUTES = ("/v1/score", "/v1/rank", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")


class Service:
    """What the routes share: who may come in, and what becomes of their sounds."""

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


def create_app(
    load: Callable[[], Any], settings: Settings | None = None, on_failure: Callable[[], None] = lambda: None
) -> "FastAPI":
    """The application, for uvicorn or any other ASGI server (one process: the model is loaded once in each).

    Args:
        load: returns the judge; called in a thread after the start, so that the server answers meanwhile.
        on_failure: called if ``load`` raises; ``app.state.service.failure`` has the error.
    """
    from fastapi import FastAPI, Request
    from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.exceptions import HTTPException

    settings = settings or Settings()
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        loading = service.start(load, on_failure)
        yield
        loading.cancel()
        await service.stop()

    app = FastAPI(
        title="judge", version="1", description=describe.DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.add_middleware(Observed, metrics=service.metrics, paths=frozenset(_ROUTES))
    doors: dict[str, Any] = {}
    if settings.token is not None:
        from fastapi import Security
        from fastapi.security import HTTPBearer

        doors["dependencies"] = [Security(HTTPBearer(auto_error=False))]  # for the document; `check_token` decides

    def record_of(request: Request) -> Record:
        return request.scope["state"]["record"]

    def refused(request: Request, refusal: Refusal) -> JSONResponse:
        body = document(refusal.code, refusal.message, record_of(request).request_id)
        return JSONResponse(body, refusal.status, refusal.headers)

    @app.exception_handler(Refusal)
    async def on_refusal(request: Request, refusal: Refusal) -> JSONResponse:
        return refused(request, refusal)

    @app.exception_handler(Disconnected)
    async def on_disconnected(request: Request, error: Disconnected) -> Response:
        return Response(status_code=499)  # nobody hears it; the log does

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "refused")
        return refused(request, Refusal(error.status_code, code, str(error.detail), error.headers))

    both = describe.refusals(400, 401, 408, 413, 415, 422, 429, 500, 503)

    def responses(schema: dict, example: dict) -> dict[int | str, dict[str, Any]]:
        return {200: {"description": "Judged.", "content": describe.json_content(schema, example)}, **both}

    @app.post(
        "/v1/score",
        summary="Score one target",
        responses=responses(describe.SCORE, describe.SCORED),
        openapi_extra={"requestBody": describe.score_body(settings)},
        **doors,
    )
    async def score(request: Request) -> JSONResponse:
        """How good is this target? Send `mixture`, `target` and `prompt`."""
        return JSONResponse(await service.answer(request.receive, request.headers, record_of(request), False))

    @app.post(
        "/v1/rank",
        summary="Rank several targets",
        responses=responses(describe.RANKING, describe.RANKED),
        openapi_extra={"requestBody": describe.rank_body(settings)},
        **doors,
    )
    async def rank(request: Request) -> JSONResponse:
        """Which of these targets is best? Send `mixture`, `targets` (repeated) and `prompt`."""
        return JSONResponse(await service.answer(request.receive, request.headers, record_of(request), True))

    state = describe.json_content(describe.STATE, {"status": "ok"})

    @app.get("/healthz", summary="Is the process alive?", responses={200: {"description": "Yes.", "content": state}})
    async def healthz() -> JSONResponse:
        """Answers as long as the process does, whatever the model is doing."""
        return JSONResponse({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Are requests taken?",
        responses={200: {"description": "Yes.", "content": state}, **describe.refusals(503)},
    )
    async def readyz() -> JSONResponse:
        """503 while the model is loading and while the server is stopping."""
        if not service.is_ready:
            raise unavailable("the server is stopping" if service.is_draining else "the model is still loading")
        return JSONResponse({"status": "ok"})

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=PlainTextResponse,
        responses=describe.refusals(401),
        **doors,
    )
    async def metrics(request: Request) -> Response:
        """Prometheus' text format. Wants the token, too, where there is one."""
        service.check_token(request.headers)
        text = service.metrics.text(service.is_ready, service.pending, service.worker.waiting)
        return Response(text, media_type=CONTENT_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        content = page(app.openapi(), settings.token is not None)
        policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
        return HTMLResponse(content, headers={"Content-Security-Policy": policy})

    return app
