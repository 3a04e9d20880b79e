"""Files below a folder that may hold sound or pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from peav.errors import UserError, shown

from .store import is_index

FILMS = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp", ".wmv", ".flv",
     ".ogv", ".mxf", ".asf")
)  # fmt: skip
SOUNDS = frozenset(
    (".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".au", ".caf", ".flac", ".mp3", ".mp2", ".ogg", ".oga",
     ".opus", ".m4a", ".m4b", ".aac", ".wma", ".ac3", ".mka", ".wv", ".tta", ".ape", ".amr")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A file and what tells, without reading it, whether it may have changed."""

    size: int  # bytes
    mtime_ns: int


def scan(root: Path, kind: str) -> dict[str, Found]:
    """Files below ``root`` by their path with "/", sorted; those with pictures alone unless ``kind`` is audio.

    Hidden files and folders, and folders that are indexes, are passed over. Links to files are followed, links to
    folders are not.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"{shown(root)}: is no folder; name the one with the recordings")
    suffixes = FILMS | SOUNDS if kind == "audio" else FILMS
    found: dict[str, Found] = {}
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and not is_index(Path(place, name))]
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in suffixes:
                continue
            try:
                status = path.stat()
            except OSError:  # a link to nowhere, or gone since; reading it will tell why
                found[path.relative_to(root).as_posix()] = Found(-1, -1)
                continue
            found[path.relative_to(root).as_posix()] = Found(status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items()))
