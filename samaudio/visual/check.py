"""Does what the user pointed at lie in the film: said before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peav.errors import UserError, shown
from peav.media.video import VideoFile, VideoInfo

from ..prompts import Box, Click, Mask, Prompt, Video, VisualPrompt

_SLACK = 0.05  # seconds; players round the end of a film


def visual_only(prompts: Sequence[Prompt]) -> list[VisualPrompt]:
    """Those of the prompts that point at something.

    Raises:
        UserError: there is none, or they contradict each other.
    """
    found: list[VisualPrompt] = [p for p in prompts if isinstance(p, Click | Box | Mask | Video)]
    points = [p for p in found if isinstance(p, Click | Box)]
    masks = [p for p in found if isinstance(p, Mask)]
    if not found:
        raise UserError("nothing is pointed at; give a click such as 412,230@1.5, a box, a mask, or the whole video")
    if masks and (points or len(masks) > 1):
        raise UserError("one mask says all about where the object is; leave out the clicks, boxes and further masks")
    boxes = [p.time for p in points if isinstance(p, Box)]
    if twice := [time for time in boxes if boxes.count(time) > 1]:
        raise UserError(f"two boxes at {twice[0]:g} s; draw one around all of the object, or click on its parts")
    if points and not any(isinstance(p, Box) or p.positive for p in points):
        raise UserError("all clicks are negative; click on the object itself as well")
    return found


def check_film(prompts: Sequence[Prompt], film: Path) -> None:
    """What can be said against prompts that point at something before anything is loaded.

    Raises:
        UserError: as of `visual_only` and `check_inside`, or the film cannot be read.
    """
    points = visual_only(prompts)
    with VideoFile(film) as file:
        check_inside(points, file.info)


def check_inside(prompts: Sequence[VisualPrompt], info: VideoInfo) -> None:
    """
    Raises:
        UserError: a click or box is outside of the picture, or after the end of the film.
    """
    size = f"{info.width} x {info.height} pixels"
    for prompt in prompts:
        if isinstance(prompt, Click):
            name = f"click {prompt.x:g},{prompt.y:g}@{prompt.time:g}"
            outside = prompt.x >= info.width or prompt.y >= info.height
        elif isinstance(prompt, Box):
            name = f"box {prompt.x0:g},{prompt.y0:g},{prompt.x1:g},{prompt.y1:g}@{prompt.time:g}"
            outside = max(prompt.x0, prompt.x1) > info.width or max(prompt.y0, prompt.y1) > info.height
        else:
            continue
        if outside:
            raise UserError(f"{name} is outside of the picture, which has {size}; count from its upper left corner")
        if prompt.time > info.seconds + _SLACK:
            raise UserError(f"{name} is after the end of {shown(info.path)}, which lasts {info.seconds:.2f} s")
