"""What the model sees of an object through a film, in the spaces where it compares with sounds and words.

Axes: ``N`` looks at the film, ``E`` embedding width, ``F`` tokens of the audio tower.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F_
from torch import Tensor

from peav.errors import UserError, shown
from peav.films import as_images
from peav.media.video import VideoFile
from peav.model import PEAV

from .prompts import Prompt, Video, VisualPrompt
from .pulse import RATE, Pulse
from .visual.frames import Path as Way
from .visual.frames import close_ups, follow, masked_frames
from .visual.geometry import GEOMETRY, geometry
from .visual.track import SIDE, ObjectTrack, Segmenter, track

LOOKS = RATE  # per second, as in training
WINDOW = 24  # looks that the video tower sees at once, as in training
_BLOCK = 48  # pictures in memory
_MOST_MASKS = 2**29  # bytes: of a long film they are made smaller

Watching = Callable[[float], None]  # is told the share that is done


@dataclass(frozen=True)
class Sight:
    """An object through a film.

    ``clip [E]`` is its unit vector among clips; ``frames [N, E]`` those among audio frames, at ``times [N]``, seconds
    from the start of the film. ``visible [N]`` is where it was seen; elsewhere ``frames`` hold what it looks like on
    the whole. ``track`` is where it is in the picture, None for all of the picture. ``pulse [N]`` is what its movement
    says of the loudness of its sound (`samaudio.pulse`), None where nothing reads it.
    """

    clip: Tensor
    times: Tensor
    frames: Tensor
    visible: Tensor
    used: str
    track: ObjectTrack | None = None
    pulse: Tensor | None = None

    def at(self, times: Tensor) -> Tensor:
        """What a player shows at each of ``times [F]``: unit vectors ``[F, E]``."""
        return self.frames[shown_at(self.times, times)]

    def beat(self, times: Tensor) -> Tensor | None:
        """The pulse at each of ``times [F]``: ``[F]``."""
        return None if self.pulse is None else self.pulse[shown_at(self.times, times)]


def shown_at(times: Tensor, moments: Tensor) -> Tensor:
    """Numbers ``[F]`` of the pictures, at ``times [N]``, that a player shows at each of ``moments [F]``, seconds."""
    index = torch.searchsorted(times, moments.to(times) + 1e-6, right=True) - 1
    return index.clamp(0, len(times) - 1)


def beat_of(pulse: Pulse | None, ways: Tensor) -> Tensor | None:
    """The contour ``[N]`` of an object that lies like this in each picture, ``[N, 9]``; None where nothing reads it."""
    if pulse is None:
        return None
    return pulse(ways[None].to(next(pulse.parameters()).device))[0].float().cpu()


def film_of(prompts: Sequence[Prompt], recording: str | os.PathLike | None) -> Path:
    """The film that visual prompts point into: the one that a `Video` names, else the recording itself.

    Raises:
        UserError: the recording is not a file, and no film was named.
    """
    named = [prompt.path for prompt in prompts if isinstance(prompt, Video) and prompt.path is not None]
    if named:
        return Path(named[0])
    if recording is None:
        raise UserError("to point at something in a film, give the film: a file to separate, or Video(path) beside "
                        "the click")
    return Path(recording)


def pointed(prompts: Sequence[Prompt]) -> tuple[VisualPrompt, ...]:
    """Those of the prompts that point at something in a picture."""
    return tuple(prompt for prompt in prompts if isinstance(prompt, VisualPrompt))


@torch.inference_mode()
def watch(
    model: PEAV,
    film: str | os.PathLike,
    prompts: Sequence[Prompt],
    *,
    close_up: tuple[int, int] | None = (80, 80),
    segmenter: str | Path | Segmenter | None = None,
    found: ObjectTrack | None = None,
    pulse: Pulse | None = None,
    progress: Watching | None = None,
) -> Sight:
    """Follow what the prompts point at through a film, and look at it.

    Args:
        model: an embedder that sees.
        close_up: height and width of the pictures of an object, in pixels; None looks at whole pictures in which all
            else is grey, as the published models were trained.
        segmenter: see `samaudio.visual.track.track`.
        found: the object's track at the times of :func:`looks`, if it is known already.
        pulse: reads the movement of an object.

    Raises:
        UserError: the model does not see, the film cannot be read, or nothing can be followed from where the prompts
            point; see `samaudio.visual.track.track`.
    """
    if model.video is None or model.config.vision is None:
        raise UserError("this model does not see; name the sound, say when it happens, or use a model that sees")
    with VideoFile(film) as file:
        info = file.info
    times = looks(info.seconds)
    tell = progress or (lambda share: None)
    whole = not [p for p in pointed(prompts) if not isinstance(p, Video)]
    if not whole and found is None:
        long, short = max(info.width, info.height), min(info.width, info.height)
        side = min(SIDE, max(64, int(math.sqrt(_MOST_MASKS / len(times) * long / short))))
        found = track(film, list(prompts), times, size=side, segmenter=segmenter,
                      progress=lambda share: tell(0.85 * share))  # fmt: skip
    if found is not None and not bool(found.visible.any()):
        raise UserError(f"{shown(film)}: nothing was found where you pointed; point at another spot, or draw a box")
    size = close_up if found is not None and close_up is not None else model.config.vision.image_size
    features: list[Tensor] = []
    ways: list[Tensor] = []
    for pictures, way in _pictures(film, times, found, size, close_up is not None):
        features.append(_features(model, pictures))
        ways.append(way)
        tell(0.85 + 0.15 * min(1.0, sum(map(len, features)) / len(times)))
    visible = torch.ones(len(times), dtype=torch.bool) if found is None else found.visible
    clip, frames = _embedded(model, torch.cat(features), visible)
    used = "whole picture" if found is None else found.segmenter
    beat = None if found is None else beat_of(pulse, torch.cat(ways))
    return Sight(clip, torch.tensor(times), frames.cpu(), visible, used, found, beat)


@torch.inference_mode()
def sight_of(model: PEAV, views: Tensor, times: Tensor, visible: Tensor, used: str = "pictures",
             beat: Tensor | None = None) -> Sight:  # fmt: skip
    """What the model makes of pictures of an object, uint8 ``[N, 3, h, w]``, at ``times [N]`` (`LOOKS` per second)."""
    clip, frames = _embedded(model, torch.cat([_features(model, part) for part in views.split(_BLOCK)]), visible)
    return Sight(clip, times, frames.cpu(), visible, used, pulse=beat)


def _features(model: PEAV, pictures: Tensor) -> Tensor:
    assert model.video is not None
    return F_.normalize(model.video.vision(as_images(pictures.to(model.device))).float(), dim=-1)


def looks(seconds: float) -> list[float]:
    """When to look at a film of so many seconds."""
    return [i / LOOKS for i in range(max(1, math.ceil(seconds * LOOKS - 1e-6)))]


def _pictures(
    film: str | os.PathLike, times: Sequence[float], found: ObjectTrack | None, size: tuple[int, int], near: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 ``[n, 3, h, w]`` of the object, or of all of the picture, and how an object lies in the whole picture
    ``[n, 9]`` (`geometry`), a block at a time."""
    way: Way | None = None
    side = 2 * max(size)
    if found is not None:
        side = max(found.masks.shape[-2:])
        way = follow(found.masks, torch.tensor(times)) if near else None
    with VideoFile(film) as file:
        for start in range(0, len(times), _BLOCK):
            part = slice(start, start + _BLOCK)
            frames = torch.stack([picture for _, picture in file.frames(times[part], max_side=side)])
            if found is None:
                yield masked_frames(frames, None, size), torch.zeros(len(frames), GEOMETRY)
                continue
            masks = found.masks[part]
            if masks.shape[-2:] != frames.shape[-2:]:
                masks = F_.interpolate(masks[:, None].float(), frames.shape[-2:], mode="nearest")[:, 0] > 0
            if way is None:
                yield masked_frames(frames, masks, size), geometry(frames, masks)
            else:
                yield close_ups(frames, masks, way[part], size)[0], geometry(frames, masks)


def _embedded(model: PEAV, features: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """``clip [E]`` and ``frames [N, E]`` of features ``[N, V]``, in windows that overlap by half.

    Windows count by how much they show. Of a look that two windows share, the one counts in whose middle it lies more.
    """
    assert model.video is not None
    N = len(features)
    starts = list(range(0, max(N - WINDOW, 0) + 1, WINDOW // 2))
    if starts[-1] + WINDOW < N:
        starts.append(N - WINDOW)
    level = model.has_frames
    clips, weights = [], []
    frames = torch.zeros(N, model.output_dim, device=features.device)
    for i in range(0, len(starts), _BLOCK):
        some = starts[i : i + _BLOCK]
        seen = model.video(torch.stack([features[s : s + WINDOW] for s in some]))
        clips.append(model.head("video", seen.pooled).float())
        weights += [float(visible[s : s + WINDOW].float().mean()) for s in some]
        if not level:
            continue
        fresh = model.head("video_frame", seen.frames).float()
        for s, window in zip(some, fresh, strict=True):
            # The first window also has what lies before its middle, each later one from a quarter on.
            begin = 0 if s == starts[0] else WINDOW // 4
            frames[s + begin : s + len(window)] = window[begin:]
    weight = torch.tensor(weights, device=features.device).square()[:, None]
    clip = F_.normalize((torch.cat(clips) * weight).sum(0), dim=-1)
    if level and not bool(visible.all()):
        frames[~visible] = F_.normalize(frames[visible].mean(0), dim=-1)
    return clip, frames
