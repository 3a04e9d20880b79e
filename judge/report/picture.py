"""Spectrograms as small PNG pictures."""

from __future__ import annotations

import base64
import io
from functools import lru_cache

import numpy as np

from peav.spectrogram import Spectrogram

COLUMNS, BANDS = 600, 96  # pixels
RANGE = 80.0  # dB from the loudest point of the mixture down to the darkest colour


def loudest(mixture: Spectrogram) -> float:
    """The level in dB that gets the brightest colour in all pictures of a recording."""
    top = float(mixture.decibels().max())
    return top if top > -150.0 else 0.0  # a silent mixture has no loudest point


def png_uri(panel: Spectrogram, top: float) -> str:
    """A data URI; low frequencies are at the bottom, one pixel per column and band."""
    from PIL import Image

    level = np.clip(1.0 + (panel.decibels() - top) / RANGE, 0.0, 1.0)
    picture = Image.fromarray(np.round(255 * level[::-1]).astype(np.uint8), mode="L")
    picture = picture.convert("P")
    picture.putpalette(_palette())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@lru_cache(maxsize=1)
def _palette() -> list[int]:
    from matplotlib import colormaps

    return (colormaps["magma"](np.arange(256), bytes=True)[:, :3]).reshape(-1).tolist()
