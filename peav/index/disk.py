"""The three things that are done to the disk, each so that what it leaves is known whenever it is stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from peav import media


def write_whole(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a new file and wait until it is on the disk. Stopped, it leaves a part, so nothing may name it yet."""
    with path.open("xb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())


def replace_json(path: Path, value: Any) -> None:
    """Write a file in one step: stopped, it leaves the old one or the new one."""
    temporary = media.temporary_sibling(path)
    try:
        write_whole(temporary, lambda file: file.write(json.dumps(value).encode()))
        sync_folder(path.parent)  # what the new one names is there before it is
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file that nothing names any more; one that is still open elsewhere may stay until the next time."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where that is possible."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
