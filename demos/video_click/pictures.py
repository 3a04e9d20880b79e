"""A film's picture with the object's mask and the points drawn over it.

Axes: ``H`` and ``W`` pixels of what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from samaudio.prompts import Click
    from samaudio.visual import ObjectTrack

    from .recording import Recording

SIDE, STRIP_SIDE = 960, 240  # pixels of the longer side
SAME = 0.051  # seconds; points this near in time belong to the picture that is shown
STRIP = 8  # pictures
_TINT = np.array([0, 235, 255], np.float32)
_POSITIVE, _NEGATIVE = (0, 150, 60), (200, 20, 20)


def draw(recording: Recording, time: float, mask: Tensor | None, points: Sequence[Click], path: Path) -> None:
    """Write the picture at a time as a JPEG, with the mask tinted and outlined and the points as + and -.

    Points at other times are drawn hollow.
    """
    from PIL import Image

    from peav.media.video import read_frames

    assert recording.video is not None
    frames, _ = read_frames(recording.path, [min(time, recording.video.seconds)], max_side=SIDE)
    picture = Image.fromarray(tinted(frames[0].permute(1, 2, 0).numpy(), mask))
    _mark(picture, points, time, picture.width / recording.video.width)
    picture.save(path, quality=88)


def tinted(picture: np.ndarray, mask: Tensor | None) -> np.ndarray:
    """uint8 ``[H, W, 3]`` with the object's mask ``[h, w]`` of any size laid over it."""
    if mask is None or not bool(mask.any()):
        return np.ascontiguousarray(picture)
    import torch.nn.functional as F

    H, W = picture.shape[:2]
    inside = F.interpolate(mask[None, None].float(), (H, W), mode="bilinear", align_corners=False)[0, 0].numpy() > 0.5
    reach = max(1, round(max(H, W) / 320))
    near, far = _grown(inside, reach), _grown(inside, 2 * reach)
    shown = picture.astype(np.float32)
    shown[inside] = 0.65 * shown[inside] + 0.35 * _TINT
    shown[near & ~inside], shown[far & ~near] = 255, 0  # white in black: seen on any ground
    return shown.round().clip(0, 255).astype(np.uint8)


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    grown = mask.copy()
    for axis in (0, 1):
        for shift in (-by, by):
            grown |= _shifted(mask, shift, axis)
    return grown


def _shifted(mask: np.ndarray, by: int, axis: int) -> np.ndarray:
    """Moved without coming back in on the other side."""
    moved = np.roll(mask, by, axis)
    edge: list[Any] = [slice(None), slice(None)]
    edge[axis] = slice(0, by) if by > 0 else slice(by, None)
    moved[tuple(edge)] = False
    return moved


def _mark(picture: Any, points: Sequence[Click], time: float, scale: float) -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    r = max(7, round(max(picture.size) / 80))
    for point in points:
        x, y = point.x * scale, point.y * scale
        colour = _POSITIVE if point.positive else _NEGATIVE
        now = abs(point.time - time) <= SAME
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour if now else None, outline="white" if now else colour,
                    width=2)  # fmt: skip
        sign = "white" if now else colour
        pen.line((x - r / 2, y, x + r / 2, y), fill=sign, width=3)
        if point.positive:
            pen.line((x, y - r / 2, x, y + r / 2), fill=sign, width=3)


def strip(recording: Recording, track: ObjectTrack, new: Any) -> list[tuple[float, bool, Path]]:
    """Pictures through the film with the object tinted: the time, whether it is in the picture, and the file.

    Args:
        new: makes a free path of a name.
    """
    from PIL import Image

    from peav.media.video import VideoFile

    at = np.linspace(0, len(track.times) - 1, min(STRIP, len(track.times))).round().astype(int)
    found = []
    with VideoFile(recording.path) as film:
        frames = film.frames([track.times[i] for i in at], max_side=STRIP_SIDE)
        for i, (_, frame) in zip(at, frames, strict=True):
            path = new("strip.jpg")
            Image.fromarray(tinted(frame.permute(1, 2, 0).numpy(), track.masks[i])).save(path, quality=85)
            found.append((track.times[i], bool(track.visible[i]), path))
    return found


def mask_at(track: ObjectTrack, time: float) -> Tensor:
    """The mask at the time that lies nearest."""
    return track.masks[int(np.abs(np.array(track.times) - time).argmin())]
