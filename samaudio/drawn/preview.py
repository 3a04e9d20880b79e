"""A contact sheet: what films look like, which object answers to which sound, and where the masks are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from peav.media import temporary_sibling

from .films import DrawnFilm

COLOURS = ((255, 70, 70), (70, 220, 90), (80, 140, 255), (250, 210, 60))
_GREY = (190, 190, 190)
_STRIP = 34  # pixels of loudness under the frames of a film


def contact_sheet(films: Sequence[DrawnFilm], columns: int = 8) -> np.ndarray:
    """uint8 ``[height, width, 3]``: a row per film with masks outlined, its loudness curves and words below.

    Objects that sound have colours, silent ones are grey. A cross is where one would click, in its frame.
    """
    return np.concatenate([_row(film, columns) for film in films])


def write_sheet(path: str | Path, films: Sequence[DrawnFilm], columns: int = 8) -> None:
    """`contact_sheet` as a PNG file."""
    from PIL import Image

    path = Path(path)
    temporary = temporary_sibling(path)
    try:
        Image.fromarray(contact_sheet(films, columns)).save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _row(film: DrawnFilm, columns: int) -> np.ndarray:
    import cv2

    frames = film.frames.permute(0, 2, 3, 1).numpy()
    N, H, W, _ = frames.shape
    chosen = np.unique(np.linspace(0, N - 1, min(columns, N)).round().astype(int))
    times = film.times.numpy()
    pictures = []
    for n in chosen:
        picture = np.ascontiguousarray(frames[n])
        objects = [(film.masks[k, n], film.clicks[k], COLOURS[k % len(COLOURS)]) for k in range(len(film.masks))]
        objects += [(film.silent_masks[k, n], film.silent_clicks[k], _GREY) for k in range(len(film.silent_masks))]
        for mask, click, colour in objects:
            outline, _ = cv2.findContours(mask.numpy().astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, outline, -1, colour, 1)
            if click is not None and abs(click.time - times[n]) < 1e-6:
                place = int(click.x), int(click.y)
                cv2.drawMarker(picture, place, (0, 0, 0), cv2.MARKER_CROSS, 9, 3)
                cv2.drawMarker(picture, place, colour, cv2.MARKER_CROSS, 9, 1)
        pictures.append(np.pad(picture, ((2, 0), (1, 1), (0, 0))))
    row = np.concatenate(pictures, 1)
    width = (W + 2) * columns
    row = np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)))
    below = np.full((_STRIP + 14, width, 3), 20, np.uint8)
    for k, curve in enumerate(film.loudness.numpy()):
        points = np.stack((np.linspace(W / 2, len(chosen) * (W + 2) - W / 2, N), _STRIP - 2 - curve * (_STRIP - 4)), 1)
        cv2.polylines(below, [points.round().astype(np.int32)], False, COLOURS[k % len(COLOURS)], 1, cv2.LINE_AA)
    x = 4
    words = [(label, COLOURS[k % len(COLOURS)]) for k, label in enumerate(film.labels)]
    for text, colour in words + ([("look-alikes", (255, 255, 255))] if film.alike else []):
        cv2.putText(below, text, (x, _STRIP + 9), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
        x += 9 * len(text) + 16
    return np.concatenate((row, below))
