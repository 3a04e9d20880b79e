"""Pictures by style: what can be drawn, and which styles a split may see.

``open_pictures(folder, split)`` reads what `samaudio.drawn.collect` wrote: ``folder/<style>/<code point>.png``. The
held-out style is drawn for ``valid`` alone, so that a figure measured there is about things and movement, not about
known pixels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peav.errors import UserError, shown

from .vocabulary import SILENT, THINGS, things_of

HELD_OUT = "twemoji"
_CODE = re.compile(r"^[0-9a-f]{2,6}$")


@dataclass(frozen=True)
class Look:
    """One picture to draw: a style and a code point, and the word for what it shows, empty for what never sounds."""

    style: str
    code: str
    thing: str


def require_extra() -> None:
    """Raises:
    UserError: what drawing needs is not installed.
    """
    try:
        import av  # noqa: F401
        import cv2  # noqa: F401
        import PIL  # noqa: F401
    except ImportError:
        raise UserError('drawing needs OpenCV, Pillow and PyAV: pip install "samaudio[drawn]"') from None


class Pictures:
    """Pictures of several styles, read when they are first drawn.

    Args:
        folder: one folder per style in it.
        styles: which of them.

    Raises:
        UserError: no such folder, or one of the styles is missing or empty.
    """

    def __init__(self, folder: str | Path, styles: Sequence[str]) -> None:
        self.folder, self.styles = Path(folder), tuple(sorted(styles))
        if not self.styles:
            raise UserError(f"{shown(folder)}: no style of pictures to draw with; see docs/drawn-world.md")
        self._codes: dict[str, frozenset[str]] = {}
        self._read: dict[tuple[str, str], np.ndarray] = {}
        for style in self.styles:
            if style not in styles_in(folder):
                raise UserError(f"{shown(folder)}: has no pictures of style '{shown(style, 40)}'; there are "
                                f"{', '.join(styles_in(folder)) or 'none'}; see docs/drawn-world.md")
            self._codes[style] = frozenset(p.stem for p in (self.folder / style).glob("*.png") if _CODE.match(p.stem))

    def image(self, style: str, code: str) -> np.ndarray:
        """uint8 ``[h, w, 4]``, red, green, blue and opacity; not to be written to.

        Raises:
            UserError: the file is damaged.
        """
        if (style, code) not in self._read:
            from PIL import Image, UnidentifiedImageError

            path = self.folder / style / f"{code}.png"
            try:
                with Image.open(path) as opened:
                    self._read[style, code] = np.asarray(opened.convert("RGBA"))
            except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
                raise UserError(f"{shown(path)}: is no picture that can be read; collect the pictures anew") from None
        return self._read[style, code]

    def looks(self, label: str) -> list[Look]:
        """Every picture that may stand for a label; empty when there is none."""
        return [Look(style, code, thing) for style in self.styles
                for thing, codes in things_of(label, self._codes[style]).items() for code in codes]  # fmt: skip

    def silent(self) -> list[Look]:
        """Every picture of something that never sounds."""
        return [Look(style, code, "") for style in self.styles for code in SILENT if code in self._codes[style]]

    def sounding(self) -> list[Look]:
        """Every picture of something that may sound."""
        return [Look(style, code, thing) for style in self.styles for thing, codes in THINGS.items()
                for code in codes if code in self._codes[style]]  # fmt: skip

    def identity(self) -> str:
        """Changes when the styles or the pictures that there are change."""
        text = repr([(style, sorted(self._codes[style])) for style in self.styles])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __getstate__(self) -> dict:
        """Without the pixels: workers read what they need."""
        return {**self.__dict__, "_read": {}}


def styles_in(folder: str | Path) -> list[str]:
    """Names of the styles in a folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}: no such folder of pictures; make it as docs/drawn-world.md says")
    return sorted(sub.name for sub in folder.iterdir() if sub.is_dir() and any(sub.glob("*.png")))


def open_pictures(folder: str | Path, split: str, held_out: str = HELD_OUT) -> Pictures:
    """The styles a split is drawn in: all but the held-out one for ``train``, that one alone for ``valid``.

    Raises:
        UserError: no folder, no styles, or a split that is neither.
    """
    if split not in ("train", "valid"):
        raise UserError(f"split '{shown(split, 40)}' is unknown; choose train or valid")
    there = styles_in(folder)
    return Pictures(folder, [held_out] if split == "valid" else [style for style in there if style != held_out])
