"""The routes.

Requests are read by hand, not by FastAPI: the token and the number of requests are looked at before the first
byte of a body, and the body is counted while it arrives.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, and `Request` is only
# imported where they are defined, because the server is an extra.

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from judge.server import describe
from judge.server.metrics import CONTENT_TYPE
from judge.server.observe import Observed, Record
from judge.server.page import page
from judge.server.refusals import Refusal, document, unavailable
from judge.server.service import Service
from judge.server.settings import Settings
from judge.server.uploads import Disconnected

if TYPE_CHECKING:
    from fastapi import FastAPI

_ROUTES = ("/v1/score", "/v1/rank", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")


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
