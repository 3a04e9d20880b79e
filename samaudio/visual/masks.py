"""Masks that were drawn elsewhere: a picture, a film with a mask in each frame, or a tensor."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media.video import VideoFile, VideoInfo

from ..prompts import Mask

_PROPORTIONS = 0.03  # by which the ratio of the sides may differ, for films whose sides were rounded to even numbers


def drawn(mask: Mask, info: VideoInfo, times: Sequence[float], out: Tensor) -> str:
    """Write the mask at each time into ``out``, bool ``[N, H, W]``, true on the object; what it was, in words.

    A single mask holds at all times. Of several, that of the last frame not after a time holds, as in a film.

    Raises:
        UserError: the file cannot be read, the proportions are not those of the film `info`, or the mask is empty.
    """
    source = mask.source
    object_white = mask.object is not None
    if isinstance(source, Tensor):
        said = _from_tensor(source, mask.times, info, times, out)
    else:
        said = _from_file(Path(source), info, times, out)
    if not object_white:
        torch.logical_not(out, out=out)
    if len(out) and not out.any():
        colour = "white" if object_white else "black"
        raise UserError(f"{_name(source)}: the mask marks no object at any time asked for; it must be {colour} on it")
    return said


def _from_tensor(source: Tensor, stamps: tuple[float, ...] | None, info: VideoInfo, times: Sequence[float],
                 out: Tensor) -> str:
    frames = source if source.dim() == 3 else source[None]
    _check_proportions("the mask", frames.shape[2], frames.shape[1], info)
    for row, time in enumerate(times):
        i = max(0, bisect.bisect_right(stamps, time + 1e-3) - 1) if stamps else 0
        out[row] = _white(frames[i], out.shape[1], out.shape[2])
    return "given masks" if stamps else "given mask"


def _from_file(path: Path, info: VideoInfo, times: Sequence[float], out: Tensor) -> str:
    single = _picture(path)
    if single is not None:
        _check_proportions(shown(path), single.shape[1], single.shape[0], info)
        out[:] = _white(single, out.shape[1], out.shape[2])
        return "given mask"
    with VideoFile(path) as film:
        _check_proportions(shown(path), film.info.width, film.info.height, info)
        order = sorted(range(len(times)), key=lambda row: times[row])
        shapes = film.frames([times[row] for row in order], size=(out.shape[1], out.shape[2]))
        for row, (_, frame) in zip(order, shapes, strict=True):
            out[row] = frame.float().mean(0) > 127
    return "given masks"


def _picture(path: Path) -> Tensor | None:
    """The grey levels ``[H, W]`` of a picture file, None for a film (also an animated picture).

    Of a picture that is partly transparent, a cut-out, what can be seen is white.
    """
    from peav.media.probe import _check_readable

    _check_readable(path)
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    try:
        with Image.open(path) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                return None
            if opened.width * opened.height > 100_000_000:
                raise UserError(f"{shown(path)}: a mask of {opened.width} x {opened.height} pixels is too large; "
                                "save it at the film's size")
            if opened.mode in ("I", "F", "I;16", "I;16B"):
                levels = np.asarray(opened, dtype=np.float64)
                return torch.from_numpy(levels / max(1.0, levels.max()))
            if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
                both = np.asarray(opened.convert("RGBA"))
                alpha = both[..., 3]
                if alpha.min() < 128 < alpha.max():
                    return torch.from_numpy(alpha.copy())
            return torch.from_numpy(np.asarray(opened.convert("L")).copy())
    except UnidentifiedImageError:
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{shown(path)}: the mask cannot be read ({shown(error, 80)}); save it as png") from None


def _white(levels: Tensor, height: int, width: int) -> Tensor:
    """Above half of full scale, at another size."""
    if levels.dtype == torch.bool or levels.is_floating_point():
        share = levels.float()
    else:
        full = 255 if int(levels.max()) > 1 else 1  # 0 and 1 are a mask, too
        share = levels.float() / full
    share = share.cpu()[None, None]
    if tuple(share.shape[2:]) != (height, width):
        share = torch.nn.functional.interpolate(
            share, (height, width), mode="bilinear", antialias=True, align_corners=False
        )
    return share[0, 0] > 0.5


def _check_proportions(name: str, width: int, height: int, info: VideoInfo) -> None:
    if abs(width * info.height / (height * info.width) - 1) > _PROPORTIONS + 1 / min(width, height):
        raise UserError(f"{name} has {width} x {height} pixels, the film {info.width} x {info.height}; draw the mask "
                        "on a frame of the film, at its proportions")


def _name(source: str | Path | Tensor) -> str:
    return "the mask" if isinstance(source, Tensor) else shown(source)
