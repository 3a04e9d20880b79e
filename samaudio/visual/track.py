"""From prompts to the object's mask at each wanted time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media.video import VideoFile, frame_times

from ..prompts import Box, Click, Mask, Prompt, VisualPrompt
from .check import check_inside, visual_only
from .classical import Classical
from .masks import drawn
from .outline import Outline
from .pictures import Pictures, grid
from .segment import Seeds

RATE = 15.0  # pictures per second that are looked at, at least, while following
SIDE = 384  # pixels of the masks' longer side, by default
_MOST_BYTES = 2**30  # of all masks


@dataclass(frozen=True)
class ObjectTrack:
    """Where the object is, at each wanted time.

    ``masks`` is bool ``[N, H, W]``: the picture as displayed, scaled down. ``times`` are those asked for, seconds from
    the start of the film. ``confidence [N]`` says how well what was found fits the object, 0 to 1; it is not
    calibrated, and low where the mask is empty. ``segmenter`` says in words what found it.
    """

    times: tuple[float, ...]
    masks: Tensor
    confidence: Tensor
    segmenter: str
    width: int  # of the film's picture as displayed, pixels
    height: int

    @property
    def visible(self) -> Tensor:
        """Whether the object is in the picture: bool ``[N]``."""
        return self.masks.flatten(1).any(1)

    def resized(self, height: int, width: int) -> Tensor:
        """Masks bool ``[N, height, width]``, to lay over pictures of that size."""
        if not len(self.masks):
            return self.masks.new_zeros(0, height, width)
        return torch.cat([
            torch.nn.functional.interpolate(block[:, None].float(), (height, width), mode="area")[:, 0] >= 0.5
            if height < block.shape[1] else
            torch.nn.functional.interpolate(block[:, None].float(), (height, width), mode="nearest")[:, 0] > 0
            for block in self.masks.split(64)
        ])  # fmt: skip

    def areas(self) -> Tensor:
        """Share of the picture that the object takes: float ``[N]``, 0 to 1."""
        return self.masks.flatten(1).float().mean(1)


class Segmenter(Protocol):
    """What turns clicks into masks. `max_side` is the longer side of the pictures it wants, None that of the masks."""

    max_side: int | None

    @property
    def used(self) -> str: ...

    def run(
        self, pictures: Pictures, seeds: Mapping[int, Seeds], tick: Callable[[], None]
    ) -> Iterator[tuple[int, np.ndarray, float]]: ...


def track(
    film: str | os.PathLike,
    prompts: Prompt | Sequence[Prompt],
    times: Sequence[float] | None = None,
    *,
    size: int = SIDE,
    segmenter: str | Path | Segmenter | None = None,
    progress: Callable[[float], None] | None = None,
) -> ObjectTrack:
    """The object that the visual prompts point at, at the wanted times of a film.

    Clicks and boxes are followed forwards and backwards from where they were made, decoding at least :data:`RATE`
    pictures a second and holding a few dozen of them. Masks are taken as they are; a whole video is all white.

    Args:
        prompts: of which those that point at something count; text, spans and examples are left alone.
        times: seconds from the start of the film, in any order; by default every frame, at most `RATE` a second.
        size: longer side of the masks, pixels; also of the pictures that the classical segmenter sees.
        segmenter: folder or hub id of a SAM 2 or SAM 3 video model, or one that was loaded
            (`samaudio.visual.sam.Sam`); GrabCut with optical flow by default.
        progress: is told the share that is done, 0 to 1.

    Raises:
        UserError: nothing is pointed at, only negative clicks, something is outside of the picture or after the end,
            a mask has other proportions than the film, the model cannot be loaded, the film cannot be read, or the
            masks would take over 1 GiB.
        ValueError: a time is negative or no number, or size is below 16.
    """
    if size < 16:
        raise ValueError(f"size is {size} pixels; give at least 16")
    wanted_prompts = visual_only([prompts] if isinstance(prompts, Prompt) else list(prompts))
    with VideoFile(film) as file:
        info = file.info
        check_inside(wanted_prompts, info)
        if times is None:
            times = frame_times(0.0, info.seconds, info.fps, fps=RATE)
        if any(not 0 <= time < math.inf for time in times):
            raise ValueError("a wanted time is not in the film; give seconds from 0 on")
        H, W = fitting(info.height, info.width, size)
        if len(times) * H * W > _MOST_BYTES:
            raise UserError(
                f"{shown(film)}: {len(times)} masks of {W} x {H} pixels take {len(times) * H * W / 2**30:.1f} GiB; "
                "ask for fewer times, or a smaller size"
            )
        points = [p for p in wanted_prompts if isinstance(p, Click | Box)]
        given = next((p for p in wanted_prompts if isinstance(p, Mask)), None)
        masks = torch.zeros(len(times), H, W, dtype=torch.bool)
        fit = torch.ones(len(times))
        if given is not None:
            used = drawn(given, info, times, masks)
        elif not points:
            masks[:], used = True, "whole picture"
        else:
            tracker = loaded(segmenter)
            used = _followed(file, points, times, tracker, masks, fit, tracker.max_side or size, progress)
    if progress is not None:
        progress(1.0)
    return ObjectTrack(tuple(times), masks, fit, used, info.width, info.height)


def loaded(
    segmenter: str | Path | Segmenter | None,
    device: str | torch.device | None = None,
    outline: Outline | None = None,
) -> Segmenter:
    """The segmenter that a user's words mean; one that has to be loaded goes to ``device``. ``outline`` helps the one
    that needs no loading.

    Raises:
        UserError: see `samaudio.visual.sam.load`.
    """
    if segmenter is None:
        return Classical(outline)
    if isinstance(segmenter, str | Path):
        from .sam import load

        return load(segmenter, device)
    return segmenter


def fitting(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width scaled down so that the longer one is at most `side`."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _followed(
    file: VideoFile,
    points: Sequence[VisualPrompt],
    times: Sequence[float],
    tracker: Segmenter,
    masks: Tensor,
    fit: Tensor,
    side: int,
    progress: Callable[[float], None] | None,
) -> str:
    """Fill `masks` and `fit`, in place, and say what was used."""
    info = file.info
    clicks = [p for p in points if isinstance(p, Click | Box)]
    at = grid(times, [p.time for p in clicks], min(RATE, info.fps), info.seconds)
    pictures = Pictures(file, at, side)
    index = {time: i for i, time in enumerate(at)}

    def number(time: float) -> int:
        return index[min(max(0.0, time), info.seconds)]

    height, width = pictures[number(clicks[0].time)][1].shape[:2]
    seeds: dict[int, Seeds] = {}
    for p in clicks:
        seed = seeds.setdefault(number(p.time), Seeds())
        x, y = width / info.width, height / info.height
        if isinstance(p, Click):
            (seed.wanted if p.positive else seed.unwanted).append((p.x * x, p.y * y))
        else:
            xs, ys = sorted((p.x0 * x, p.x1 * x)), sorted((p.y0 * y, p.y1 * y))
            seed.box = xs[0], ys[0], xs[1], ys[1]
    rows: dict[int, list[int]] = {}
    for row, time in enumerate(times):
        rows.setdefault(number(time), []).append(row)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(1.0, done / len(at)))

    for i, mask, found in tracker.run(pictures, seeds, tick):
        for row in rows.get(i, ()):
            masks[row] = fitted(torch.from_numpy(mask), masks.shape[1], masks.shape[2])
            fit[row] = found
    return tracker.used


def fitted(mask: Tensor, height: int, width: int) -> Tensor:
    """One mask ``[H, W]`` at another size."""
    if tuple(mask.shape) == (height, width):
        return mask
    return torch.nn.functional.interpolate(
        mask[None, None].float(), (height, width), mode="bilinear", align_corners=False
    )[0, 0] >= 0.5
