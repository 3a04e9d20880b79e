"""Sounds for the page's players: inside of it, or beside it."""

from __future__ import annotations

import base64
import os
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from peav import media
from peav.errors import UserError

MIB = 1 << 20
_AS_THEY_ARE = {"mp3": "audio/mpeg", "flac": "audio/flac"}  # containers that every browser plays, and that are small
_BLOCK = 1 << 16  # samples


class Embedder:
    """Turns files into what a player's ``src`` can hold, as long as there is room.

    Args:
        limit: bytes of all embedded sounds together, as they stand in the page.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def source(self, path: Path) -> str | None:
        """A data URI; None where the page would grow beyond its limit.

        mp3 and flac files go in as they are, everything else as 16-bit flac, which nobody hears a difference to.

        Raises:
            UserError: the file cannot be read.
        """
        found = self._embedded(path)
        self.used += len(found or "")
        return found

    def _embedded(self, path: Path) -> str | None:
        room = (self.limit - self.used) * 3 // 4  # base64 makes four bytes of three
        info = media.probe(path)
        kind = _AS_THEY_ARE.get(info.container)
        if kind is not None and path.stat().st_size <= room:
            return _uri(kind, path.read_bytes())
        with TemporaryDirectory(prefix="judge-") as folder:
            copy = Path(folder) / "sound.flac"
            with media.stream(path, _BLOCK) as blocks:
                with media.Writer(copy, info.sample_rate, info.channels, "flac", "PCM_16") as out:
                    for block in blocks:
                        out.write(block)
                        # Long before the disk is full: what is written so far may be a few blocks behind.
                        if _size(Path(folder)) > room:
                            return None
            data = copy.read_bytes()
        return _uri("audio/flac", data) if len(data) <= room else None


class Linker:
    """Points at the files where they lie. The page has to stay where it is, relative to them."""

    def __init__(self, page: Path) -> None:
        self._folder = page.absolute().parent

    def source(self, path: Path) -> str | None:
        """A relative address."""
        try:
            relative = os.path.relpath(path.absolute(), self._folder)
        except ValueError:  # another drive
            return path.absolute().as_uri()
        # Quoted whole, so that no name becomes an address of another kind.
        return quote(os.fsencode(Path(relative).as_posix()))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def add_up(target: Path, residual: Path, mixture: Path) -> None:
    """Write target + residual as the mixture they were cut from, in 32-bit float.

    Raises:
        UserError: the two are not two halves of one recording.
    """
    with media.stream(target, _BLOCK) as one, media.stream(residual, _BLOCK) as other:
        facts = [(blocks.info.sample_rate, blocks.info.channels) for blocks in (one, other)]
        if facts[0] != facts[1]:
            raise UserError(
                f"{target.name} and {residual.name} have different rates or channels, so they do not add up to a "
                "mixture; give --mixture"
            )
        with media.Writer(mixture, *facts[0], "wavf") as out:
            for block, rest in zip_longest(one, other):
                if block is None or rest is None or block.shape != rest.shape:
                    raise UserError(
                        f"{target.name} and {residual.name} have different lengths, so they do not add up to a "
                        "mixture; give --mixture"
                    )
                out.write(block + rest)
