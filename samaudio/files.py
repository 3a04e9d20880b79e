"""Where stems go: their names, and writing both files of a sound or none.

Everything is written under hidden names beside its target (`peav.media.partial`), so whatever stops a run
leaves at most hidden files, and those only if the process was killed outright; the next run removes them.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media import FORMATS, Writer, temporary_sibling

LONGEST_NAME = 80  # characters of a track's or a prompt's name
_LONGEST_BYTES = 160  # of the same; file systems allow 255 for everything, endings included
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)  # by Windows
_BITS = {"PCM_16": 16, "PCM_24": 24}


def safe_name(text: str) -> str:
    """A name close to ``text`` that every file system takes, without an ending.

    >>> safe_name("AC/DC: live?")
    'AC_DC_ live_'
    """
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if letter.isspace() else letter for letter in text)
    text = "".join(letter if letter.isprintable() and letter not in '/\\:*?"<>|' else "_" for letter in text)
    text = " ".join(text.split()).lstrip(". ")
    text = _cut(text, LONGEST_NAME).rstrip(". ") or "sound"
    if _RESERVED.fullmatch(text.split(".")[0].rstrip()):
        # Windows reserves these names with any ending: "con.residual.wav" is the console, too.
        text = _cut(f"_{text}", LONGEST_NAME).rstrip(". ")
    return text


def _cut(text: str, characters: int) -> str:
    text = text[:characters]
    while len(text.encode()) > _LONGEST_BYTES:
        text = text[:-1]
    return text


def track_name(path: str | os.PathLike) -> str:
    """Folder name for the stems of a recording: its own name without the ending."""
    return safe_name(os.fsencode(Path(path).stem).decode("utf-8", "replace"))


def prompt_filename(prompt: str) -> str:
    """File name for what a prompt takes out, without the ending."""
    return safe_name(prompt)


def prompt_filenames(prompts: Sequence[str]) -> list[str]:
    """:func:`prompt_filename` of each; those that would collide get -2, -3 and so on."""
    return _distinct([prompt_filename(prompt) for prompt in prompts], endings=("", ".residual"))


def plan_outputs(inputs: Iterable[Path]) -> dict[Path, str]:
    """A track name of its own for every input: ``mix``, and ``mix-2`` for another file called so."""
    paths = list(dict.fromkeys(inputs))
    return dict(zip(paths, _distinct([track_name(path) for path in paths]), strict=True))


def _distinct(names: Sequence[str], endings: Sequence[str] = ("",)) -> list[str]:
    # Some file systems do not tell capitals apart.
    natural = {name.casefold() for name in names}
    taken: set[str] = set()
    found = []
    for name in names:
        candidate, number = name, 1
        while not taken.isdisjoint(_variants(candidate, endings)) or (number > 1 and candidate.casefold() in natural):
            number += 1
            candidate = f"{_cut(name, LONGEST_NAME - 1 - len(str(number)))}-{number}"
        taken |= _variants(candidate, endings)
        found.append(candidate)
    return found


def _variants(name: str, endings: Sequence[str]) -> set[str]:
    return {(name + ending).casefold() for ending in endings}


class StemPaths(NamedTuple):
    """The two files of one sound."""

    target: Path
    residual: Path


def stem_paths(folder: Path, prompts: Sequence[str], format: str) -> list[StemPaths]:
    """``folder/<prompt>.<ext>`` and ``folder/<prompt>.residual.<ext>`` of each prompt.

    Raises:
        UserError: there is no such format.
    """
    if format not in FORMATS:
        raise UserError(f"format '{shown(format, 40)}' is unknown; choose one of {', '.join(FORMATS)}")
    ending = FORMATS[format].suffixes[0]
    return [
        StemPaths(folder / f"{name}{ending}", folder / f"{name}.residual{ending}") for name in prompt_filenames(prompts)
    ]


def check_stems(paths: StemPaths, sample_rate: int, channels: int, format: str, force: bool) -> None:
    """Refuse what could not be written, before anything is computed.

    Raises:
        UserError: a file exists and ``force`` is not given, or the format or the folder does not allow it.
    """
    for path in paths:
        Writer(path, sample_rate, channels, format, overwrite=force)


def check_not_input(path: Path, paths: StemPaths) -> None:
    """Refuse to replace the recording itself, whatever the user said about replacing files."""
    for output in paths:
        if output.exists() and output.samefile(path):
            raise UserError(f"{shown(output)}: is the recording itself; choose another output folder")


class StemFiles:
    """The two open files of one sound. Give the recording and the target; the residual is what is left.

    Where samples become integers, the residual is what the *rounded* target leaves of the recording, so the
    two files add up to it to within half of the last bit instead of a whole one.
    """

    def __init__(self, target: Writer, residual: Writer):
        self._target, self._residual = target, residual
        self._bits = _BITS.get(target.subtype)

    def write(self, mixture: Tensor, target: Tensor) -> None:
        """Append samples ``[C, T]`` of both."""
        if self._bits is None:
            residual = mixture - target
        else:
            # In double precision: a 24-bit sample already fills a float32.
            scale = 2.0 ** (self._bits - 1)
            stored = (target.double() * scale).round().clamp(-scale, scale - 1)
            residual = ((mixture.double() * scale - stored).round() / scale).float()
        self._target.write(target)
        self._residual.write(residual)

    def warnings(self, paths: StemPaths) -> list[str]:
        """Lines for the user about samples beyond full scale."""
        return [
            f"{path.name}: {writer.clipped} samples beyond full scale (peak {writer.peak:.2f}) were clipped; "
            "format wavf keeps them"
            for path, writer in zip(paths, (self._target, self._residual), strict=True)
            if writer.clipped
        ]


@contextmanager
def stem_files(
    paths: StemPaths, sample_rate: int, channels: int, format: str, force: bool = False
) -> Iterator[StemFiles]:
    """Both files of one sound, or none: they take their names only when both are complete.

    Raises:
        UserError: they cannot be written; nothing is left behind.
    """
    staged = StemPaths(*(temporary_sibling(path) for path in paths))
    try:
        with Writer(staged.target, sample_rate, channels, format) as target:
            with Writer(staged.residual, sample_rate, channels, format) as residual:
                yield StemFiles(target, residual)
        # The target comes last, so a target that is there has its residual.
        _publish(staged.residual, paths.residual, force)
        try:
            _publish(staged.target, paths.target, force)
        except BaseException:
            paths.residual.unlink(missing_ok=True)
            raise
    except UserError as error:
        raise UserError(_renamed(str(error), staged, paths)) from error
    finally:
        for path in staged:
            path.unlink(missing_ok=True)


def _renamed(message: str, staged: StemPaths, paths: StemPaths) -> str:
    """The message with the names that the user knows."""
    for temporary, path in zip(staged, paths, strict=True):
        message = message.replace(shown(temporary), shown(path))
    return message


def _publish(staged: Path, path: Path, force: bool) -> None:
    try:
        if force:
            staged.replace(path)
            return
        try:
            os.link(staged, path)  # unlike a rename, never on top of another file
        except FileExistsError:
            raise UserError(f"{shown(path)}: exists already; give --force to replace it") from None
        except OSError:  # no hard links on this file system
            if os.path.lexists(path):
                raise UserError(f"{shown(path)}: exists already; give --force to replace it") from None
            staged.replace(path)
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> UserError:
    """A failure of the disk as one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{shown(path)}: no space left on the disk, nothing was kept; free some, or choose another")
    why = error.strerror or str(error)
    return UserError(f"{shown(path)}: could not be written ({why}), nothing was kept; choose another place")


@contextmanager
def folder_for(paths: StemPaths) -> Iterator[None]:
    """The folder of the files; if the block fails, the folders made here are removed again unless in use."""
    folder = paths.target.parent
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(folder, error) from error
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):  # something is in it
                place.rmdir()
        raise


class Scratch:
    """Samples ``[N, C, T]`` on disk as float32, written in order and then read in order."""

    def __init__(self, beside: Path, candidates: int, channels: int):
        self._beside = beside
        self._shape = (candidates, channels)
        self.path = temporary_sibling(beside.with_name(f"{beside.stem}.f32"))

    def __enter__(self) -> Scratch:
        try:
            self._file = self.path.open("xb+")
        except OSError as error:
            raise disk_error(self._beside, error) from error
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # what could not be flushed is not needed either
            self._file.close()
        with suppress(OSError):
            self.path.unlink()

    def write(self, samples: Tensor) -> None:
        """Append ``[N, C, T]``."""
        try:
            self._file.write(np.ascontiguousarray(samples.movedim(-1, 0).numpy()).data)
        except OSError as error:
            raise disk_error(self._beside, error) from error

    def rewind(self) -> None:
        """Read from the start from now on."""
        try:
            self._file.seek(0)
        except OSError as error:  # the buffer may still have had to be written
            raise disk_error(self._beside, error) from error

    def read(self, frames: int, candidate: int) -> Tensor:
        """The next samples ``[C, frames]`` of one candidate; fewer at the end."""
        N, C = self._shape
        data = np.frombuffer(self._file.read(4 * N * C * frames), dtype=np.float32)
        return torch.from_numpy(data.reshape(-1, N, C)[:, candidate].T.copy())


@contextmanager
def clean_termination() -> Iterator[None]:
    """Let SIGTERM unwind the program like Ctrl-C does, so that partial files are removed.

    Only where nobody else handles the signal; the handler is put back at the end.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
