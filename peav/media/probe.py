"""One gate in for audio files: what opens them, and the facts about them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from peav.errors import UserError, shown
from peav.media.info import AudioInfo, Input
from peav.media.pyav_input import PyavInput
from peav.media.soundfile_input import NotAudio, SoundfileInput


def probe(path: str | os.PathLike) -> AudioInfo:
    """What the file is and how long, without reading its samples.

    Raises:
        UserError: the file is missing, unreadable, empty, not audio, outside of the limits, or (where the
            header shows it) truncated.
    """
    opened = open_input(path)
    opened.close()
    return opened.info


def open_input(path: str | os.PathLike) -> Input:
    """Open with libsndfile if it knows the content, with FFmpeg if not. The caller closes it."""
    path = Path(path)
    _check_readable(path)
    try:
        opened: Input = SoundfileInput(path)
    except NotAudio as problem:
        # Of a cut caf file FFmpeg would read what is left and call it whole.
        if "malformed" in str(problem) and _head(path)[:4] == b"caff":
            raise UserError(_unknown(path)) from None
        try:
            opened = PyavInput(path)
        except NotAudio:
            raise UserError(_unknown(path)) from None
    return opened


def _check_readable(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except FileNotFoundError:
        raise UserError(f"{shown(path)}: no such file; check the name and the folder") from None
    except PermissionError:
        raise UserError(f"{shown(path)}: permission denied; make the file readable for this user") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{shown(path)}: cannot be opened ({why}); check the name") from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{shown(path)}: is a folder; name the audio file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{shown(path)}: is not a regular file; save the sound to a file first")
    if status.st_size == 0:
        raise UserError(f"{shown(path)}: is empty (0 bytes); save or download it again")


def _unknown(path: Path) -> str:
    head = _head(path)
    if head[4:8] == b"ftyp":
        # An mp4 keeps its index at the end, so a cut copy opens as nothing.
        return f"{shown(path)}: is truncated: the index of this mp4 file is missing; re-export or repair it"
    if head[:4] in (b"RIFF", b"RF64", b"FORM", b"fLaC", b"OggS", b"caff", b"\x1a\x45\xdf\xa3"):
        return f"{shown(path)}: is damaged or truncated: its header cannot be read; re-export or repair it"
    return f"{shown(path)}: is not audio, or in an unknown format; convert it to wav or flac"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)
