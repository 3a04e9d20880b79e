"""What is answered instead of a score."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """A request that is not served, with the status and the line that say why.

    Args:
        status: HTTP status, 4xx or 503.
        code: a word for programs; it stays when the message is reworded.
        message: one line for people. Says nothing about this machine.
        headers: sent along, for example ``Retry-After``.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


def document(code: str, message: str, request_id: str) -> dict:
    """The body of every answer that is not a success."""
    return {"error": {"code": code, "message": message, "request_id": request_id}}


def too_large(message: str) -> Refusal:
    return Refusal(413, "too_large", message)


def unusable(message: str) -> Refusal:
    return Refusal(422, "unusable", message)


def malformed(message: str) -> Refusal:
    return Refusal(400, "malformed", message)


def busy(seconds: int) -> Refusal:
    """All places are taken."""
    line = f"the server is busy; try again in {seconds} s"
    return Refusal(429, "busy", line, {"Retry-After": str(seconds)})


def unavailable(why: str, seconds: int = 5) -> Refusal:
    """Not now, and not the client's fault."""
    return Refusal(503, "unavailable", why, {"Retry-After": str(seconds)})
