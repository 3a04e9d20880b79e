"""The web server: the page, and each user's own files under an address that only that user's page knows."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from peav.errors import UserError, shown

from .session import Limits, Sessions
from .studio import EXAMPLES, Example, Studio

_UPLOAD = 900.0  # seconds that an upload may wait before it is loaded
_SWEEP = 30.0  # seconds between looks for folders that nobody needs any more
# What a browser may take a file for. Anything else is bytes, so that nothing that was uploaded runs as a page.
_TYPES = {
    ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".m4a": "audio/mp4",
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm",
    ".mkv": "video/x-matroska", ".png": "image/png", ".jpg": "image/jpeg",
}  # fmt: skip


def check_installed() -> None:
    """
    Raises:
        UserError: what the page is built on is missing.
    """
    try:
        import av  # noqa: F401
        import cv2  # noqa: F401
        import gradio  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError('the demo needs Gradio, PyAV and OpenCV: pip install "samaudio[demo]"') from error


@contextmanager
def listen(host: str, port: int) -> Iterator[Any]:
    """A socket that listens there.

    Raises:
        UserError: the address is unknown or taken.
    """
    import socket

    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
        raise UserError(f"{shown(host, 60)}:{port}: cannot listen there ({why}); choose another --host or --port"
                        ) from error
    with listener:
        yield listener


def create_app(separator: Any, root: Path, limits: Limits, examples: Sequence[Example] = EXAMPLES) -> Any:
    """The web application; everything that users bring and get lies under ``root``.

    ``app.state.sessions`` has the users' sessions.
    """
    # Read when gradio is imported: files on their way in land there, and nothing is reported to anybody.
    uploads = root / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    os.environ.update(GRADIO_TEMP_DIR=str(uploads), GRADIO_ANALYTICS_ENABLED="False")
    import gradio
    from fastapi import FastAPI
    from fastapi.responses import FileResponse, PlainTextResponse

    from . import app as page

    sessions = Sessions(root)
    app = FastAPI(openapi_url=None)
    app.state.sessions = sessions

    @app.get("/media/{token}/{number}/{name}", include_in_schema=False, response_model=None)
    def media(token: str, number: int, name: str) -> FileResponse | PlainTextResponse:
        path = sessions.find(token, number)
        if path is None or not path.is_file():
            return PlainTextResponse("this file is gone; load the film again", status_code=404)
        kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-cache"}
        return FileResponse(path, media_type=kind, headers=headers)

    blocks = page.build(Studio(separator, limits, examples), sessions, uploads)
    return gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        max_file_size=limits.bytes,
        show_error=False,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=page.theme(),
        css=page.CSS,
        head='<meta name="referrer" content="no-referrer">',
    )


def serve(separator: Any, socket: Any, limits: Limits) -> None:
    """Answer until Ctrl-C or SIGTERM. All files are removed at the end."""
    import uvicorn

    from samaudio.files import clean_termination

    # uvicorn raises the signal that ended it once more, so it has to unwind what is here.
    with clean_termination(), tempfile.TemporaryDirectory(prefix="video-click-") as folder:
        app = create_app(separator, Path(folder), limits)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        logging.getLogger("httpx").setLevel(logging.WARNING)
        with sweeping(app.state.sessions, Path(folder) / "uploads"):
            uvicorn.Server(config).run(sockets=[socket])


def remove_old(uploads: Path, older_than: float = _UPLOAD) -> None:
    """Remove what was sent but never loaded."""
    for folder, _, names in os.walk(uploads):  # which goes on where folders vanish meanwhile
        for path in (Path(folder, name) for name in names):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > older_than:
                    path.unlink()
                    if path.parent != uploads:
                        path.parent.rmdir()


@contextmanager
def sweeping(sessions: Sessions, uploads: Path, every: float = _SWEEP) -> Iterator[None]:
    """Look regularly for files that nobody needs any more; remove all of them at the end."""
    end = threading.Event()

    def look() -> None:
        while not end.wait(every):
            sessions.sweep()
            remove_old(uploads)

    thread = threading.Thread(target=look, daemon=True, name="sweep")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(timeout=5)
        sessions.close()
