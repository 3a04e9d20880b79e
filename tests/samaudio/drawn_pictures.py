"""Pictures that tests draw for themselves: one plain shape per code point, another colour for each style."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from samaudio.drawn.vocabulary import SILENT

# violin, flute, drum, rain, dog (two), speaking head, man, woman, car; then what never sounds
CODES = ("1f3bb", "1fa88", "1f941", "1f327", "1f436", "1f415", "1f5e3", "1f468", "1f469", "1f697", *SILENT[:6])
STYLES = {"noto": (210, 60, 40), "openmoji": (40, 180, 60), "twemoji": (60, 70, 220)}
SIDE = 48


def shape(code: str, colour: tuple[int, int, int]) -> np.ndarray:
    """uint8 ``[h, w, 4]``: a disc or a box on nothing, as wide as the code point says."""
    number = int(code, 16)
    height, width = SIDE, SIDE // 2 + number % (SIDE // 2)
    rows, columns = np.mgrid[:height, :width]
    inside = np.ones((height, width), bool)
    if number % 2:
        inside = (2 * rows / height - 1) ** 2 + (2 * columns / width - 1) ** 2 <= 1
    picture = np.zeros((height, width, 4), np.uint8)
    picture[inside] = (*colour, 255)
    return picture


def write_pictures(folder: Path, styles=STYLES, codes=CODES) -> Path:
    from PIL import Image

    for style, colour in styles.items():
        (folder / style).mkdir(parents=True)
        for code in codes:
            Image.fromarray(shape(code, colour), "RGBA").save(folder / style / f"{code}.png")
    return folder
