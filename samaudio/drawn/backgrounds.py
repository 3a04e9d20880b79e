"""What is behind the objects: gradients, patches, stripes and grain, with small silent pictures, all slowly moving.

Axes: ``H`` height, ``W`` width in pixels.
"""

from __future__ import annotations

import numpy as np

from .render import paint, prepared
from .styles import Look, Pictures

_MARGIN = 0.25  # of the picture on every side, for the camera to move in


class Background:
    """A drawn canvas larger than the picture, and the camera's way over it.

    Args:
        looks: silent pictures that may lie about.
        clutter: most of them at once.
        move: how far the camera goes in the film, in pictures.
    """

    def __init__(self, rng: np.random.Generator, pictures: Pictures, looks: list[Look], size: tuple[int, int],
                 times: np.ndarray, clutter: int, move: float) -> None:  # fmt: skip
        H, W = size
        self.size, self.margin = size, (round(H * _MARGIN), round(W * _MARGIN))
        h, w = H + 2 * self.margin[0], W + 2 * self.margin[1]
        self.canvas = _texture(rng, h, w)
        for _ in range(int(rng.integers(0, clutter + 1)) if looks else 0):
            look = looks[int(rng.integers(len(looks)))]
            side = rng.uniform(0.06, 0.16) * min(H, W)
            image = pictures.image(look.style, look.code)
            fade = np.float32(rng.uniform(0.4, 1.0))
            sprite = fade * prepared(image, side, rng.uniform(-180, 180), rng.uniform(0.3, 1.1))
            paint(self.canvas, sprite, rng.uniform(0, w), rng.uniform(0, h), rng.uniform(-40, 40), side)
        far = move * rng.uniform(-1, 1, 2) * self.margin
        shake = rng.uniform(0, 0.06) * move * np.array(self.margin)
        slow = rng.uniform(0.1, 0.5, 2)
        length = max(float(times[-1]), 1e-6)
        self.way = (times[:, None] / length - 0.5) * far + np.sin(2 * np.pi * slow * times[:, None]) * shake

    def at(self, n: int) -> np.ndarray:
        """float32 ``[H, W, 3]`` of frame n, new memory."""
        import cv2

        H, W = self.size
        down, right = self.way[n] + self.margin
        matrix = np.array([[1, 0, -right], [0, 1, -down]], np.float32)
        return cv2.warpAffine(self.canvas, matrix, (W, H), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _texture(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """float32 ``[h, w, 3]``, 0 to 255."""
    import cv2

    rows = np.linspace(0, 1, h, dtype=np.float32)[:, None]
    columns = np.linspace(0, 1, w, dtype=np.float32)[None]
    dark, light = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    turn = rng.uniform(0, 2 * np.pi)
    along = (np.cos(turn) * (columns - 0.5) + np.sin(turn) * (rows - 0.5) + 0.75) / 1.5
    kind = rng.choice(["gradient", "patches", "fractal", "stripes", "tiles"], p=[0.2, 0.25, 0.3, 0.15, 0.1])
    if kind == "patches":
        cells = int(rng.integers(3, 12))
        rough = rng.uniform(20, 235, (cells, cells, 3)).astype(np.float32)
        way = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_NEAREST
        picture = cv2.resize(rough, (w, h), interpolation=way)
        return (128 + (picture - 128) * rng.uniform(0.3, 1.0)).astype(np.float32)
    if kind == "fractal":
        along = np.zeros((h, w), np.float32)
        for octave in range(1, 6):
            rough = rng.random((2**octave + 1, 2**octave + 1)).astype(np.float32)
            along += cv2.resize(rough, (w, h), interpolation=cv2.INTER_CUBIC) / 1.6**octave
        along = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    elif kind == "stripes":
        along = 0.5 + 0.5 * np.sin(2 * np.pi * along * rng.uniform(2, 16))
        along = np.where(along > 0.5, 1.0, 0.0) if rng.random() < 0.4 else along
    elif kind == "tiles":
        number = int(rng.integers(3, 12))
        along = (np.floor(rows * number) + np.floor(columns * number)) % 2
    picture = dark + along[..., None] * (light - dark)
    grain = rng.uniform(0, 14) if rng.random() < 0.5 else 0.0
    return (picture + rng.normal(0, 1, (h, w, 1)) * grain).clip(0, 255).astype(np.float32)
