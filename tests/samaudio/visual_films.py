"""Small films with known objects: what is drawn, where it is, and the film file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

H, W, FPS = 108, 192, 15
RED, BLUE, YELLOW, GREEN = (215, 40, 40), (40, 70, 220), (240, 205, 50), (40, 160, 70)
ROWS, COLUMNS = np.mgrid[:H, :W].astype(np.float32)


@dataclass
class Film:
    path: Path
    truth: np.ndarray  # bool [N, H, W], of the first object
    times: list[float]

    def click(self, i: int) -> tuple[float, float, float]:
        """The middle of the object in frame i, and its time."""
        rows, columns = np.nonzero(self.truth[i])
        return float(columns.mean()), float(rows.mean()), self.times[i]


def disc(x: float, y: float, r: float) -> np.ndarray:
    return (COLUMNS - x) ** 2 + (ROWS - y) ** 2 <= r * r


def square(x: float, y: float, r: float) -> np.ndarray:
    return (abs(COLUMNS - x) <= r) & (abs(ROWS - y) <= r)


def blobs(seed: int, cell: int = 12, size=(H, W), levels=(30, 225)) -> np.ndarray:
    """Clutter: smooth patches of random colours."""
    import cv2

    rng = np.random.default_rng(seed)
    rough = rng.integers(*levels, (size[0] // cell + 2, size[1] // cell + 2, 3)).astype(np.uint8)
    return cv2.resize(rough, size[::-1], interpolation=cv2.INTER_CUBIC)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 200, (H, W, 3)).astype(np.uint8)


def gradient(i: int = 0) -> np.ndarray:
    """A dim room: light from one side, some grain."""
    base = np.stack((90 + 60 * COLUMNS / W, 80 + 50 * ROWS / H, 100 - 40 * COLUMNS / W), -1)
    return (base + np.random.default_rng(i).normal(0, 4, base.shape)).clip(0, 255).astype(np.uint8)


def scrolling(seed: int = 0, speed: float = 2.0) -> Callable[[int], np.ndarray]:
    """Clutter that moves sideways, pixels per frame."""
    wide = blobs(seed, size=(H, 4 * W))
    return lambda i: wide[:, round(i * speed) : round(i * speed) + W].copy()


def draw(path: Path, count: int, background: Callable[[int], np.ndarray],
         objects: Callable[[int], list[tuple[np.ndarray, tuple[int, int, int]]]], *, stamps: list[int] | None = None,
         parts: int = 1) -> Film:
    """A film of what `objects` says, painted in order; the truth is that of the first `parts` of them, where seen.

    `stamps` are in hundredths of a second.
    """
    stamps = stamps or [round(100 * i / FPS) for i in range(count)]
    truth = []
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "14"})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        stream.codec_context.gop_size = 10
        stream.codec_context.time_base = Fraction(1, 100)
        for i in range(count):
            picture = background(i).copy()
            mine = np.zeros((H, W), bool)
            for k, (shape, colour) in enumerate(objects(i)):
                picture[shape] = colour
                mine = mine | shape if k < parts else mine & ~shape
            truth.append(mine)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = stamps[i], Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return Film(path, np.stack(truth), [stamp / 100 for stamp in stamps])


def ious(masks: torch.Tensor, truth: np.ndarray) -> np.ndarray:
    """Intersection over union per frame; 1 where both are empty."""
    both = masks.numpy() & truth
    either = masks.numpy() | truth
    total = either.sum((1, 2))
    return np.where(total == 0, 1.0, both.sum((1, 2)) / np.maximum(1, total))
