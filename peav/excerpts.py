"""Windows of a file as a model takes them: sound, pictures, or both, with the times they are from.

`peav.windows` embeds sound alone and whole files; this is the same cutting with times, and for films. A window
counts by what there is to hear in it, and by its length where only pictures are looked at.

Axes: ``T`` samples, ``N`` pictures, ``E`` embedding width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F_
from torch import Tensor

from . import media
from .errors import UserError, shown
from .windows import SHORTEST, SILENCE, WINDOW

if TYPE_CHECKING:
    from .model import PEAV

KINDS = ("audio", "video", "audio_video")
MOST_FPS = 30.0  # of pictures, for models that look at all of them
_SIDE = 512  # pixels; how large pictures are kept for a model that does not say what it wants


@dataclass(frozen=True)
class Excerpt:
    """One window of a file."""

    start: float  # seconds from the start of the file
    end: float
    weight: float  # how much it counts in the mean of the file; 0 where there is nothing to hear
    audio: Tensor | None = None  # [T] mono
    video: Tensor | None = None  # uint8 [N, 3, H, W]


@dataclass(frozen=True)
class Recipe:
    """What is embedded of a file, and how it is cut.

    ``kind``: its "audio", its "video" (pictures alone) or "audio_video" (both as one). ``seconds``: length of a
    window. ``fps``: pictures per second for models that look at all of them; None for all that there are, up to
    `MOST_FPS`.
    """

    kind: str = "audio"
    seconds: float = WINDOW
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"'{shown(self.kind, 40)}' cannot be embedded; choose audio, video or audio_video")
        if not 0.1 <= self.seconds < math.inf:
            raise UserError(f"windows of {self.seconds:g} s are too short; give at least 0.1 s")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise UserError(f"{self.fps:g} pictures per second; give more than 0")


def check_can(model: PEAV, recipe: Recipe) -> None:
    """Refuse what the model has no towers for.

    Raises:
        UserError: it embeds no pictures, or no clips at all.
    """
    if not getattr(model, "has_clips", True):
        raise UserError("this model describes frames, not whole clips; load a PE-AV, such as facebook/pe-av-small")
    if recipe.kind != "audio" and "video" not in model.modalities:
        raise UserError("this model embeds no pictures; give one that does, such as --model facebook/pe-av-small")


def excerpts(path: str | os.PathLike, model: PEAV, recipe: Recipe) -> Iterator[Excerpt]:
    """The windows of a file, in order. A rest of less than a second is left out, unless it is all there is.

    Raises:
        UserError: the file cannot be read, or lacks the sound or the pictures that the recipe asks for.
    """
    if recipe.kind == "audio":
        return _heard(path, model, recipe)
    return _seen(path, model, recipe)


def _heard(path: str | os.PathLike, model: PEAV, recipe: Recipe) -> Iterator[Excerpt]:
    with media.stream(path, 1 << 16) as blocks:
        rate = model.sample_rate
        resampler = media.StreamResampler(blocks.info.sample_rate, rate)
        size, shortest = round(recipe.seconds * rate), round(min(SHORTEST, recipe.seconds) * rate)
        offset = blocks.info.start_seconds

        def resampled() -> Iterator[Tensor]:
            for block in blocks:
                yield resampler.push(block.mean(0))
            yield resampler.flush()

        waiting: list[Tensor] = []
        have = position = 0  # samples
        for part in resampled():
            waiting.append(part)
            have += len(part)
            if have < size:
                continue
            joined = torch.cat(waiting)
            while len(joined) >= size:
                yield _sound(joined[:size], position, rate, offset)
                joined, position = joined[size:], position + size
            waiting, have = [joined.clone()], len(joined)
        if have >= shortest or (position == 0 and have):
            yield _sound(torch.cat(waiting), position, rate, offset)


def _sound(samples: Tensor, position: int, rate: int, offset: float) -> Excerpt:
    start = offset + position / rate
    heard = int((samples.abs() > SILENCE).sum())
    return Excerpt(start, start + len(samples) / rate, heard / rate, audio=samples)


def _seen(path: str | os.PathLike, model: PEAV, recipe: Recipe) -> Iterator[Excerpt]:
    from .media.video import VideoFile, frame_times

    size, number = _wanted(model)
    with VideoFile(path) as film:
        rate = min(recipe.fps or MOST_FPS, film.info.fps)

        def pictures(start: float, end: float) -> Tensor:
            times = frame_times(start, end, film.info.fps, fps=rate, num_frames=number)
            shape: dict[str, Any] = {"max_side": _SIDE} if size is None else {"size": size}
            return torch.stack([picture for _, picture in film.frames(times, **shape)])

        if recipe.kind == "audio_video":
            for sound in _heard(path, model, recipe):
                # A film may begin with its pictures or with its sound; both are cut by the clock of the file.
                seen = pictures(sound.start, sound.end) if sound.weight else None
                yield Excerpt(sound.start, sound.end, sound.weight, sound.audio, seen)
            return
        position, seconds = 0.0, film.info.seconds
        while seconds - position >= min(SHORTEST, recipe.seconds) or (position == 0.0 and seconds > 0):
            end = min(position + recipe.seconds, seconds)
            yield Excerpt(position, end, end - position, video=pictures(position, end))
            position += recipe.seconds


def _wanted(model: PEAV) -> tuple[tuple[int, int] | None, int | None]:
    """Height and width that the model makes of every picture, and how many it looks at; None is all of them."""
    config = getattr(model, "config", None)
    vision = getattr(config, "vision", None)
    return (None if vision is None else vision.image_size), getattr(config, "video_frames", None)


def embed_excerpts(model: PEAV, given: Sequence[Excerpt], text: str | None = None) -> Tensor:
    """``[B, E]`` float32 on the CPU of excerpts of one kind; with a text, of each excerpt and it as a pair."""
    inputs: dict[str, Any] = {}
    if given[0].audio is not None:
        inputs["audio"] = [item.audio.to(model.device) for item in given if item.audio is not None]
    if given[0].video is not None:
        inputs["video"] = [item.video for item in given if item.video is not None]
    if text is not None:
        inputs["text"] = [text] * len(given)
    return model.embed(**inputs).float().cpu()


class Mean:
    """The embedding of a whole file from those of its windows, each counted by its weight."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._weight = 0.0
        self._unit = True  # whether the model's embeddings have length one, which a mean should then have too

    def add(self, vector: Tensor, weight: float) -> None:
        """Count ``vector [E]`` in."""
        vector = vector.double()
        self._unit &= math.isclose(float(vector.norm()), 1.0, abs_tol=1e-3)
        self._total = vector * weight if self._total is None else self._total + vector * weight
        self._weight += weight

    def result(self) -> Tensor | None:
        """``[E]`` float32; None if nothing counted."""
        if self._total is None:
            return None
        mean = self._total / self._weight
        return (F_.normalize(mean, dim=0) if self._unit else mean).float()


def mean_of(model: PEAV, windows: Iterable[Excerpt], text: str | None = None) -> Tensor | None:
    """``[E]`` of a file from its windows, None if there is nothing to hear in any of them."""
    mean = Mean()
    for window in windows:
        if window.weight:
            mean.add(embed_excerpts(model, [window], text)[0], window.weight)
    return mean.result()


def embed_path(model: PEAV, path: str | os.PathLike, recipe: Recipe, text: str | None = None) -> Tensor:
    """Embedding ``[E]`` of a file of any length; with a text, of the file and the text as a pair.

    Raises:
        UserError: it cannot be read, is silent, or the model cannot embed what the recipe asks for.
    """
    check_can(model, recipe)
    found = mean_of(model, excerpts(path, model, recipe), text)
    if found is None:
        raise UserError(f"{shown(path)}: is silent, so there is nothing to embed; check the recording")
    return found
