"""uvicorn, and stopping in order.

At the first SIGTERM or Ctrl-C the server goes on listening, but refuses: `/readyz` and new requests get 503 while
those that run come to their end. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from judge.server.app import create_app
from judge.server.observe import log, log_as_json
from judge.server.settings import Settings
from peav.errors import UserError


def make_server(load: Callable[[], Any], settings: Settings) -> Any:
    """A `uvicorn.Server` that drains before it exits. ``server.run()`` runs it."""
    import uvicorn

    def failed() -> None:
        server.should_exit = True

    app = create_app(load, settings, failed)
    service = app.state.service
    draining_since: float | None = None

    class DrainingServer(uvicorn.Server):
        """Finishes what it has begun, and says 503 to the rest."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            # The signal is not raised again afterwards, as uvicorn would: a server that was asked to stop, and did,
            # has not failed.
            if service.is_draining:
                self.should_exit = self.force_exit = True
                return
            service.is_draining = True
            log.info("stopping", extra={"fields": {"pending": service.pending}})

        async def on_tick(self, counter: int) -> bool:
            nonlocal draining_since
            if service.is_draining:
                now = asyncio.get_running_loop().time()
                draining_since = draining_since or now
                if not service.pending or now - draining_since > settings.grace:
                    return True
            return await super().on_tick(counter)

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        workers=1,
        http="h11",  # reads on after an early answer, so that a client in the middle of its upload gets it
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,  # the time of grace is over by then
    )
    server = DrainingServer(config)
    return server


def serve(load: Callable[[], Any], settings: Settings) -> None:
    """Listen until SIGTERM or Ctrl-C.

    Raises:
        UserError: the extra is not installed, the address is taken, or the model cannot be loaded.
    """
    check_installed()
    log_as_json()
    listener = _listen(settings)
    server = make_server(load, settings)
    where = {"host": settings.host, "port": listener.getsockname()[1], "token": settings.token is not None}
    log.info("listening", extra={"fields": where})
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    failure = server.config.app.state.service.failure
    if failure is not None:
        raise failure


def check_installed() -> None:
    """
    Raises:
        UserError: what the server is built on is missing.
    """
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError('the server needs FastAPI and uvicorn: pip install "samaudio[serve]"') from error


def _listen(settings: Settings) -> Any:
    """The socket, opened before the model is loaded, so that a taken port is known at once."""
    import socket

    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{settings.address}: cannot listen there ({why}); choose another --host or --port") from error
    return listener
