"""One writer at a time.

The lock is the operating system's, on a file in the folder, so it goes when its process goes, however that ends:
a lock file that is left over holds nobody up. What stands in the file is only for the message.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from peav.errors import UserError, shown

NAME = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer of a folder.

    Raises:
        UserError: another process writes it, or its disk cannot lock.
    """
    path = folder / NAME
    with _opened(path) as file:
        try:
            file.truncate(0)
            json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": time.time()}, file)
            file.flush()
            yield
        finally:
            with suppress(OSError):  # the lock goes with the file in any case
                file.truncate(0)


def _opened(path: Path) -> IO[str]:
    """The file, locked."""
    folder = shown(path.parent)
    while True:
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            why = error.strerror or str(error)
            raise UserError(f"{folder}: cannot be written to ({why}); choose another --out") from error
        try:
            _acquire(file)
        except BlockingIOError:
            file.close()
            raise UserError(f"{folder}: is being written by {_holder(path)}; wait for it, or end it") from None
        except OSError as error:
            file.close()
            why = error.strerror or str(error)
            raise UserError(f"{folder}: this disk cannot lock files ({why}); choose another --out") from error
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # somebody removed it in between, so a lock on it is worth nothing


def _acquire(file: IO[str]) -> None:
    """Take the lock or raise BlockingIOError."""
    if os.name == "nt":
        import msvcrt

        try:
            file.seek(1 << 30)  # beyond the text, which others may still read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            raise BlockingIOError from None
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(path: Path) -> str:
    """Who wrote the file last, as far as it can be told."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M", time.localtime(found["since"]))
        return f"process {int(found['process'])} on {shown(found['host'], 40)} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
