"""Frames: pictures painted over a background, their masks, and what a camera does to them.

Colours are painted premultiplied by opacity in float32, so that turned and shrunk edges stay clean. A mask is where an
object is more than half opaque and nothing in front of it is.

Axes: ``K`` objects from back to front, ``N`` frames, ``H`` and ``W`` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .scene import Actor
    from .styles import Pictures

OPAQUE = 0.5


def prepared(image: np.ndarray, largest: float, hue: float = 0.0, saturation: float = 1.0,
             mirrored: bool = False) -> np.ndarray:  # fmt: skip
    """A picture for painting: float32 ``[h, w, 4]``, colours 0 to 255 premultiplied by an opacity of 0 to 1.

    Made about as large as it will be drawn at most (``largest`` pixels), because painting samples without averaging.
    """
    import cv2

    if mirrored:
        image = image[:, ::-1]
    alpha = image[..., 3:].astype(np.float32) / 255
    colour = np.ascontiguousarray(image[..., :3]).astype(np.float32)
    if hue or saturation != 1:
        hsv = np.asarray(cv2.cvtColor(colour / np.float32(255), cv2.COLOR_RGB2HSV), np.float32)
        hsv[..., 0] = (hsv[..., 0] + hue) % 360
        hsv[..., 1] = (hsv[..., 1] * saturation).clip(0, 1)
        colour = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32) * np.float32(255)
    sprite = np.concatenate((np.asarray(colour, np.float32) * alpha, alpha), -1)
    scale = largest / max(sprite.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in sprite.shape[:2])
        sprite = np.asarray(cv2.resize(sprite, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    return sprite


def paint(canvas: np.ndarray, sprite: np.ndarray, x: float, y: float, angle: float, size: float,
          light: float = 1.0) -> tuple[slice, slice, np.ndarray]:  # fmt: skip
    """Paint a prepared picture on ``canvas [H, W, 3]`` with its centre at (x, y) and its longer side ``size``.

    Returns:
        The rows and columns that were touched, and the opacity there.
    """
    import cv2

    h, w = sprite.shape[:2]
    scale = size / max(h, w)
    turn = np.deg2rad(angle)
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    half_w, half_h = (abs(c) * w + abs(s) * h) / 2 + 1, (abs(s) * w + abs(c) * h) / 2 + 1
    left, right = max(0, int(x - half_w)), min(canvas.shape[1], int(x + half_w) + 2)
    top, bottom = max(0, int(y - half_h)), min(canvas.shape[0], int(y + half_h) + 2)
    if left >= right or top >= bottom:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.float32)
    # Centres of pixels lie half a pixel in, in the picture as on the canvas.
    matrix = np.array([[c, -s, x - left - 0.5 - c * (w - 1) / 2 + s * (h - 1) / 2],
                       [s, c, y - top - 0.5 - s * (w - 1) / 2 - c * (h - 1) / 2]], np.float32)  # fmt: skip
    drawn = cv2.warpAffine(sprite, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    alpha = drawn[..., 3]
    spot = canvas[top:bottom, left:right]
    spot *= 1 - alpha[..., None]
    colour = drawn[..., :3]
    spot += np.minimum(colour * np.float32(light), 255 * alpha[..., None]) if light != 1 else colour
    return slice(top, bottom), slice(left, right), alpha


def draw_film(pictures: Pictures, actors: Sequence[Actor], background: Callable[[int], np.ndarray],
              N: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Frames uint8 ``[N, H, W, 3]`` and masks bool ``[K, N, H, W]`` of the actors, the first one farthest back."""
    sprites = [
        prepared(pictures.image(a.look.style, a.look.code), float(a.motion.size.max()), a.hue, a.saturation, a.mirrored)
        for a in actors
    ]
    H, W = background(0).shape[:2]
    frames = np.empty((N, H, W, 3), np.uint8)
    masks = np.zeros((len(actors), N, H, W), bool)
    for n in range(N):
        canvas = background(n)
        for k, (actor, sprite) in enumerate(zip(actors, sprites, strict=True)):
            m = actor.motion
            rows, columns, alpha = paint(canvas, sprite, m.x[n], m.y[n], m.angle[n], m.size[n], m.light[n])
            solid = alpha > OPAQUE
            masks[:k, n, rows, columns] &= ~solid
            masks[k, n, rows, columns] = solid
        frames[n] = canvas.clip(0, 255)
    return frames, masks


def degrade(frames: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Frames ``[N, H, W, 3]`` as a camera might give them: light and colours, blur, grain, compression. In place.

    ``strength``: chance of each kind of change.
    """
    import cv2

    N, H, W, _ = frames.shape
    if rng.random() < strength:
        levels = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.7, 1.4)
        levels = 0.5 + (levels - 0.5) * rng.uniform(0.6, 1.25) + rng.uniform(-0.12, 0.12)
        table = (255 * levels * rng.uniform(0.88, 1.12, 3)).clip(0, 255).astype(np.uint8)
        frames[:] = cv2.LUT(frames.reshape(N * H, W, 3), table[None]).reshape(frames.shape)
    sigma = rng.uniform(0.3, 1.1) if rng.random() < 0.5 * strength else 0.0
    grain = rng.uniform(2, 14) if rng.random() < strength else 0.0
    quality = int(rng.integers(20, 90)) if rng.random() < 0.6 * strength else None
    # One sheet of grain, another piece of it for each frame: drawing as many numbers as pixels would cost most.
    sheet = rng.normal(0, grain, (2 * H, 2 * W, 1)).astype(np.int16) if grain else None
    for n in range(N):
        frame = frames[n]
        if sigma:
            frame = cv2.GaussianBlur(frame, (0, 0), sigma)
        if sheet is not None:
            down, right = int(rng.integers(H)), int(rng.integers(W))
            frame = (frame + sheet[down : down + H, right : right + W]).clip(0, 255).astype(np.uint8)
        if quality is not None:
            frame = cv2.imdecode(cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, quality))[1], cv2.IMREAD_COLOR)
        frames[n] = frame
    return frames
