"""What the towers see of an object: the film's pictures with all else painted grey, whole or close up.

Axes: ``N`` frames, ``H`` and ``W`` pixels of the film, ``h`` and ``w`` of what the frame encoder takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F_
from torch import Tensor

GREY = 128  # zero for the frame encoder: neither dark nor bright
ROOM = 1.6  # side of a close-up over the object's own
SLOW, SLOWER = 0.6, 1.5  # seconds over which a close-up follows the object's place, and its size


def masked_frames(frames: Tensor, masks: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Frames in which only the object is left, ``[N, 3, h, w]`` uint8.

    The picture keeps its proportions: what is missing to those of ``size`` is grey too.

    Args:
        frames: uint8 ``[N, 3, H, W]``.
        masks: bool ``[N, H, W]``, true on the object; None shows all of the picture.
        size: ``h, w`` in pixels.

    Raises:
        ValueError: shapes do not fit.
    """
    _check(frames, masks)
    if not len(frames):
        return frames.new_zeros(0, 3, *size)
    H, W = frames.shape[-2:]
    scale = min(size[0] / H, size[1] / W)
    inner = max(1, round(H * scale)), max(1, round(W * scale))
    # Around zero, so that what is resized across an outline fades to grey.
    shown = frames.float() - GREY
    if masks is not None:
        shown = shown * masks[:, None]
    if inner != (H, W):
        shown = F_.interpolate(shown, inner, mode="bilinear", antialias=True, align_corners=False)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    if inner != tuple(size):
        shown = F_.pad(shown, (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top))
    return _bytes(shown)


@dataclass(frozen=True)
class Path:
    """Where close-ups of an object look: middle ``x``, ``y`` and ``side``, each ``[N]``, all as shares of the picture's
    width, height and longer side; NaN throughout for an object that is nowhere."""

    x: Tensor
    y: Tensor
    side: Tensor

    def __getitem__(self, part: slice | Tensor) -> Path:
        return Path(self.x[part], self.y[part], self.side[part])


def follow(masks: Tensor, times: Tensor) -> Path:
    """A slow camera's way along an object: jumps, shakes, growth and turns are seen as they are, drifting is not.

    Args:
        masks: bool ``[N, H, W]``, true on the object.
        times: ``[N]`` seconds.
    """
    H, W = masks.shape[-2:]
    seen = masks.flatten(1).any(1)
    if not bool(seen.any()):
        nowhere = torch.full((len(masks),), torch.nan)
        return Path(nowhere, nowhere, nowhere)
    parts = [_outlines(part) for part in masks[seen].split(64)]
    place, extent = torch.cat([p for p, _ in parts]), torch.cat([e for _, e in parts])
    x, y = (_smooth(axis, times[seen], times, SLOW) for axis in place.T)
    side = _smooth(extent.log(), times[seen], times, SLOWER).exp()
    return Path(x / W, y / H, side / max(H, W))


def close_ups(frames: Tensor, masks: Tensor, path: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The object alone and large.

    Args:
        frames: uint8 ``[N, 3, H, W]``.
        masks: bool ``[N, H, W]``, true on the object.
        path: of :func:`follow`, for these frames.
        size: ``h, w`` in pixels.

    Returns:
        uint8 ``[N, 3, h, w]``, all grey where there is no object, and its masks bool ``[N, h, w]``.
    """
    _check(frames, masks)
    if not len(frames) or bool(path.x.isnan().any()):
        return frames.new_full((len(frames), 3, *size), GREY), masks.new_zeros(len(frames), *size)
    H, W = frames.shape[-2:]
    shown = torch.cat(((frames.float() - GREY) * masks[:, None], masks[:, None].float()), dim=1)
    side = path.side * max(H, W) * ROOM
    # Reading between pixels does not average over many of them, so what is far too large is made smaller before.
    scale = min(1.0, 1.5 * min(size) / float(side.median()))
    if scale < 1:
        shown = F_.interpolate(shown, (max(1, round(H * scale)), max(1, round(W * scale))), mode="bilinear",
                               antialias=True, align_corners=False)  # fmt: skip
    # In grid_sample's coordinates the picture goes from -1 to 1.
    theta = torch.zeros(len(frames), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = side / W * max(1.0, size[1] / size[0]), side / H * max(1.0, size[0] / size[1])
    theta[:, 0, 2], theta[:, 1, 2] = 2 * path.x - 1, 2 * path.y - 1
    found = F_.grid_sample(shown, F_.affine_grid(theta, [len(frames), 4, *size], align_corners=False),
                           mode="bilinear", align_corners=False)  # fmt: skip
    return _bytes(found[:, :3]), found[:, 3] > 0.5


def _check(frames: Tensor, masks: Tensor | None) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames have shape {tuple(frames.shape)}; give [N, 3, H, W]")
    if masks is not None and masks.shape != (len(frames), *frames.shape[-2:]):
        raise ValueError(f"masks {tuple(masks.shape)} for frames {tuple(frames.shape)}; give [N, H, W]")


def _bytes(shown: Tensor) -> Tensor:
    return (shown + GREY).round().clamp(0, 255).to(torch.uint8)


def _outlines(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Middle ``[n, 2]`` (x, y) and longer side ``[n]`` of the boxes around masks ``[n, H, W]``, in pixels.

    A twentieth of the object may lie outside of its box on each side, so that stray pixels do not move it.
    """
    found = []
    for axis in (1, 2):  # columns, then rows
        share = masks.float().sum(axis).cumsum(1)
        share = share / share[:, -1:]
        first, last = (share < 0.05).sum(1), (share < 0.95).sum(1) + 1
        found.append((first, last))
    (left, right), (top, bottom) = found
    middle = torch.stack((left + right, top + bottom), dim=1).float() / 2
    return middle, torch.maximum(right - left, bottom - top).float().clamp_min(2) / 0.9


def _smooth(values: Tensor, at: Tensor, times: Tensor, width: float) -> Tensor:
    """Mean of values ``[n]`` known ``at [n]`` around each of ``times [N]``, with a Gaussian of ``width`` seconds."""
    found = []
    for part in times.split(512):
        # Far from everything known, the nearest counts: without its distance all weights would vanish.
        far = (part[:, None] - at[None]).abs()
        weight = (-0.5 * ((far**2 - far.amin(1, keepdim=True) ** 2) / width**2)).exp()
        found.append((weight * values).sum(1) / weight.sum(1))
    return torch.cat(found)
