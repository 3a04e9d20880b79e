"""Request ids and log lines: around every request, whatever becomes of it."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from judge.server.metrics import Metrics
from judge.server.refusals import document
from peav.errors import shown

ASGI = Callable[[MutableMapping[str, Any], Callable, Callable], Awaitable[None]]

GONE = 499  # nginx's number for a client that did not wait; for the log alone, nobody receives it
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"}

log = logging.getLogger("judge.server")


@dataclass
class Record:
    """What is known about one request."""

    request_id: str
    received: int = 0  # bytes
    sent: int = 0  # bytes
    status: int = 0
    notes: dict[str, Any] = field(default_factory=dict)  # goes into the log line


class Observed:
    """ASGI middleware: id, counts, one log line, and no traceback to anybody but the log.

    Args:
        paths: those that get counters of their own; a scanner's guesses must not grow the memory.
    """

    def __init__(self, app: ASGI, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: MutableMapping[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = Record(_request_id(scope["headers"]))
        scope.setdefault("state", {})["record"] = record
        began = time.perf_counter()

        async def counted_receive() -> Any:
            message = await receive()
            record.received += len(message.get("body", b""))
            return message

        async def marked_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                marks = [(b"x-request-id", record.request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", ()), *marks]
            record.sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, counted_receive, marked_send)
        except Exception:
            self._log(logging.ERROR, "failed", {"request_id": record.request_id, "traceback": traceback.format_exc()})
            if record.status:  # too late for another answer
                raise
            await _send_failure(marked_send, record.request_id)
        finally:
            # Cancelled by the shutdown: nothing was answered.
            self._finish(scope, record, time.perf_counter() - began)

    def _finish(self, scope: MutableMapping[str, Any], record: Record, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status = record.status or GONE
        self.metrics.answered(path, method, status, seconds, record.received)
        fields = {
            "request_id": record.request_id,
            "method": shown(scope["method"], 20),
            "path": shown(scope["path"], 100),
            "status": status,
            "seconds": round(seconds, 4),
            "received": record.received,
            "sent": record.sent,
            "client": (scope.get("client") or [None])[0],
            **record.notes,
        }
        level = logging.DEBUG if path in ("/healthz", "/readyz", "/metrics") and status < 400 else logging.INFO
        self._log(level, "request", fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        log.log(level, event, extra={"fields": fields})


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's, if it is one that a log can hold as it is."""
    for name, value in headers:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _ID.fullmatch(given):
                return given
    return uuid.uuid4().hex


async def _send_failure(send: Callable, request_id: str) -> None:
    body = document("internal", "something went wrong on the server; its log has the request id", request_id)
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": data})


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC), level, event, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _own_stderr() -> TextIO:
    # While a file is opened, another thread sends descriptor 2 to nowhere (`peav.media.quiet`), and lines that are
    # written in that moment would be lost. A copy of the descriptor is not touched by that.
    try:
        return os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    except OSError:  # a daemon without a stderr
        return sys.stderr


def log_as_json(level: int = logging.INFO) -> None:
    """Send the server's and uvicorn's lines to stderr, as JSON."""
    handler = logging.StreamHandler(_own_stderr())
    handler.setFormatter(JsonLines())
    for name in ("judge.server", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level if name == "judge.server" else max(level, logging.WARNING))
