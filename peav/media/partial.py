"""Temporary files beside their targets, and cleaning up after runs that died.

A file is written under a hidden name in the folder it is meant for, so that the last step is a rename within
one file system, which either happens or does not. The name tells whose it is:
`.guitar.partial-<host>-<pid>-<random>.wav`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import time
from pathlib import Path

_NAME = re.compile(r"^\..*\.partial-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(\.[^.]*)?$", re.DOTALL)
_LONGEST_STEM = 150  # bytes; file systems allow 255 for the whole name
_DAY = 86_400.0  # seconds


def temporary_sibling(path: str | os.PathLike) -> Path:
    """A free hidden name beside `path`, with its extension. Nothing is created."""
    path = Path(path)
    stem = os.fsdecode(os.fsencode(path.stem)[:_LONGEST_STEM])
    return path.with_name(f".{stem}.partial-{_host()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix[:20]}")


def cleanup_stale(folder: str | os.PathLike, older_than: float = _DAY) -> list[Path]:
    """Remove the partial files that no running program is going to finish.

    A partial file is stale when its process on this machine is gone, or when nobody wrote to it for
    `older_than` seconds (the folder may be shared with other machines, whose processes cannot be seen).

    Returns:
        The removed paths. A file that cannot be removed is left alone.
    """
    removed = []
    for path in Path(folder).iterdir():
        match = _NAME.match(path.name)
        if match is None:
            continue
        with contextlib.suppress(OSError):
            old = time.time() - path.stat().st_mtime > older_than
            dead = match[1] == _host() and not _alive(int(match[2]))
            if old or dead:
                path.unlink()
                removed.append(path)
    return removed


def _host() -> str:
    return hashlib.blake2s(socket.gethostname().encode(), digest_size=4).hexdigest()


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # signal 0 would end the process there; age decides
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
