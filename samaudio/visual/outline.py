"""What a click means: a small network that draws the object around it.

Colours and movement (`samaudio.visual.seeds`) cannot tell an object from a patch of the background that happens to be
of one piece. This network has seen what objects look like, and that their parts move together. It gets the surroundings
of a click at several sizes and answers, for each, with a mask and how well it will fit; they vote, and what they agree
on is drawn once more from as near as it deserves. As Segment Anything does (Kirillov et al., 2023), at a thousandth of
its size, and of drawings only: `samaudio.train_outline`.

Axes: ``B`` views, ``H`` and ``W`` pixels of a picture; views have `SIDE` pixels a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from peav.checkpoints import Part

from .colours import opencv
from .seeds import bounds, tidy

SIDE = 64
SHARES = (0.18, 0.25, 0.35, 0.5, 0.7, 1.0)  # of the picture's shorter side that views of a click show
_CLOSE = 2.2  # times the object's extent that the last view shows
_SURE = 6.0  # log-odds: no view says more than that


@dataclass(frozen=True)
class OutlineConfig:
    """``widths``: channels at each size, the views' own first, each half as large as the one before.
    ``motion``: whether it is told how things move (`stirred`)."""

    widths: tuple[int, ...] = (24, 48, 96, 128)
    motion: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))

    @property
    def channels(self) -> int:
        """Of a view."""
        return 7 if self.motion else 4


class Outline(Part):
    """Views around clicks ``[B, 7 or 4, SIDE, SIDE]`` (`view`) to log-odds ``[B, SIDE, SIDE]`` that a pixel is of the
    object in the middle, and ``[B]`` log-odds of the intersection over union that the drawn outline will have."""

    format, sizes = "outline", OutlineConfig

    def __init__(self, config: OutlineConfig = OutlineConfig()):
        super().__init__()
        self.config = config
        widths = config.widths
        self.down = nn.ModuleList(_Block(a, b) for a, b in zip((config.channels, *widths), widths, strict=False))
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.leave = nn.Conv2d(widths[0], 1, 1)
        self.fit = nn.Sequential(nn.Linear(2 * widths[-1], widths[-1]), nn.SiLU(), nn.Linear(widths[-1], 1))

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        x, kept = views, []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F_.max_pool2d(x, 2))
            kept.append(x)
        fit = self.fit(torch.cat((x.mean((2, 3)), x.amax((2, 3))), dim=1))[:, 0]
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat((F_.interpolate(x, scale_factor=2.0, mode="nearest"), beside), dim=1))
        return self.leave(x)[:, 0], fit

    @torch.inference_mode()
    def draw(
        self, picture: np.ndarray, points: Sequence[tuple[float, float]], flow: np.ndarray | None = None
    ) -> tuple[np.ndarray, float] | None:
        """The object at ``points`` of a picture uint8 ``[H, W, 3]``: its mask bool ``[H, W]`` and how well it should
        fit, 0 to 1. None where it sees none. ``flow [H, W, 2]`` to a picture from shortly before or after, pixels."""
        H, W = picture.shape[:2]
        sides = [max(8, round(share * min(H, W))) for share in SHARES]
        known = stirred(flow, H, W) if self.config.motion else None
        mask, _ = self._vote(picture, known, [(x, y, side) for x, y in points for side in sides])
        mask = tidy(mask, points)
        if not mask.any():
            return None
        top, bottom, left, right = bounds(mask)
        side = max(12, round(_CLOSE * max(bottom - top, right - left)))
        close, fit = self._vote(picture, known, [(x, y, side) for x, y in points])
        close = tidy(close, points)
        return (close if close.any() else mask), fit

    def _vote(
        self, picture: np.ndarray, known: np.ndarray | None, places: Sequence[tuple[float, float, int]]
    ) -> tuple[np.ndarray, float]:
        """What views of these sizes at these points say together: a mask ``[H, W]`` and their mean fit."""
        views = torch.from_numpy(np.stack([view(picture, *place, known) for place in places]))
        drawn, fits = self(views.to(next(self.parameters())))
        H, W = picture.shape[:2]
        odds = np.zeros((H, W), np.float32)
        for (x, y, side), logits, fit in zip(places, drawn.float().cpu().numpy(), fits.sigmoid().tolist(), strict=True):
            odds += fit * placed(logits.clip(-_SURE, _SURE), x, y, side, H, W)
        return odds > 0, float(fits.sigmoid().mean())


class _Block(nn.Module):
    """Two convolutions with norms."""

    def __init__(self, before: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, width, 3, padding=1), nn.GroupNorm(4, width), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(4, width), nn.SiLU())  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def stirred(flow: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """How things move against the picture as a whole: float32 ``[height, width, 3]``, of ``flow [height, width, 2]`` x
    and y, about -1 to 1, and 1 where that is known. All is 0 without a flow."""
    found = np.zeros((height, width, 3), np.float32)
    if flow is not None:
        against = flow - np.median(flow.reshape(-1, 2), axis=0)
        most = max(1.0, float(np.quantile(np.hypot(against[..., 0], against[..., 1]), 0.95)))
        found[..., :2], found[..., 2] = (against / most).clip(-2, 2), 1
    return found


def view(picture: np.ndarray, x: float, y: float, side: int, motion: np.ndarray | None = None) -> np.ndarray:
    """What lies around a point: float32 ``[4, SIDE, SIDE]``, colours about -1 to 1 and where the picture is (1); with
    what is known of its ``motion [H, W, 3]`` (`stirred`), ``[7, SIDE, SIDE]``."""
    cv2 = opencv()
    cropped, inside = _cropped(picture, x, y, side)
    how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    small = cv2.resize(cropped, (SIDE, SIDE), interpolation=how)
    there = cv2.resize(inside, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    colours = (small.astype(np.float32) / 127.5 - 1) * there[..., None]
    seen = np.concatenate((colours.transpose(2, 0, 1), there[None]))
    if motion is None:
        return seen
    moved = cv2.resize(_cropped(motion, x, y, side)[0], (SIDE, SIDE), interpolation=how)
    return np.concatenate((seen, moved.transpose(2, 0, 1)))


def placed(logits: np.ndarray, x: float, y: float, side: int, height: int, width: int) -> np.ndarray:
    """What was drawn in a `view`, ``[SIDE, SIDE]``, in the picture: float32 ``[height, width]``, 0 beyond the view."""
    cv2 = opencv()
    left, top = _corner(x, y, side)
    drawn = cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR)
    found = np.zeros((height, width), np.float32)
    rows = slice(max(0, top), max(0, min(height, top + side)))
    columns = slice(max(0, left), max(0, min(width, left + side)))
    found[rows, columns] = drawn[rows.start - top: rows.stop - top, columns.start - left: columns.stop - left]
    return found


def _corner(x: float, y: float, side: int) -> tuple[int, int]:
    return round(x - side / 2), round(y - side / 2)


def _cropped(picture: np.ndarray, x: float, y: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    H, W = picture.shape[:2]
    left, top = _corner(x, y, side)
    found = np.zeros((side, side, 3), picture.dtype)
    inside = np.zeros((side, side), np.float32)
    rows, columns = slice(max(0, top), min(H, top + side)), slice(max(0, left), min(W, left + side))
    here = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    found[here], inside[here] = picture[rows, columns], 1
    return found, inside
