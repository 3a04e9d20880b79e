"""Keep native libraries from writing to the terminal.

libmpg123, inside libsndfile, prints its notes about odd mp3 files straight to file descriptor 2, and has no
switch that libsndfile lets us reach. What matters is raised as an error by the reader instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_depth = 0
_saved: int | None = None


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere inside the block. Nests, and threads may overlap.

    The descriptor belongs to the whole process, so keep the block as short as one native call.
    """
    global _depth, _saved
    with _lock:
        if _depth == 0:
            _saved = _divert()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _saved is not None:
                os.dup2(_saved, 2)
                os.close(_saved)
                _saved = None


def _divert() -> int | None:
    try:
        saved = os.dup(2)
    except OSError:  # a daemon without a stderr has nothing to protect
        return None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return saved
