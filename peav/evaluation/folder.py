"""A data set's folder: its metadata and media files, wherever in it they lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import UserError, shown
from .manifest import VIDEO, Item

AUDIO = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".wma"})


class Folder:
    """Every file below a folder, looked at once.

    Raises:
        UserError: it is no folder.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{shown(path)}: no such folder; give the folder of the data set with --data")
        self.files: list[Path] = []
        self._audio: dict[str, Path] = {}
        self._video: dict[str, Path] = {}
        for above, folders, names in os.walk(self.path):
            folders.sort()  # so that of two files with one name the same is taken everywhere
            for name in sorted(names):
                path = Path(above, name)
                self.files.append(path)
                table = {**dict.fromkeys(AUDIO, self._audio), **dict.fromkeys(VIDEO, self._video)}.get(
                    path.suffix.lower()
                )
                if table is not None:
                    table.setdefault(path.stem, path)

    def metadata(self, names: Iterable[str]) -> Path:
        """The first of the names that a file below the folder ends in, e.g. ``dataset/test.csv``.

        Raises:
            UserError: there is none.
        """
        names = list(names)
        for name in names:
            parts = Path(name).parts
            for path in self.files:
                if path.parts[-len(parts) :] == parts:
                    return path
        raise UserError(f"{shown(self.path)}: holds no {' or '.join(names)}; put the set's own metadata there")

    def placed(self, item: Item, stems: Sequence[str], ending: str = ".wav") -> Item:
        """The item with its files: those whose name without the ending is one of ``stems``.

        Where there are none, it gets a path that does not exist, so that it is counted among the missing.
        """
        video = next((self._video[stem] for stem in stems if stem in self._video), None)
        audio = next((self._audio[stem] for stem in stems if stem in self._audio), video)
        if audio is None:
            audio = self.path / f"{stems[0]}{ending}"
        return replace(item, audio=audio, video=video)

    def audio_files(self) -> list[Path]:
        """Every file with sound and without pictures."""
        return list(self._audio.values())
