"""A mixture and what was cut from it, side by side, whatever they were given as.

Axes: ``C`` channels, ``T`` samples.

The network needs equally long mono windows at its own rate. So sounds are mixed to mono, resampled, cut into windows
and brought to the mixture's length if they are nearly that long; each of these is told in `Take.notes`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peav import media
from peav.errors import UserError, shown
from peav.windows import SILENCE

Sound = str | os.PathLike | Tensor | np.ndarray

TOLERANCE = 0.25  # seconds that a target may be longer or shorter than its mixture: encoders pad and trim
SHORTEST = 1.0  # seconds; a shorter rest at the end joins the window before it
BLOCK = 1 << 16  # samples read from a file at once
AUDIBLE = 1e-3  # of the mixture's level in the window: what lies 60 dB below it is not heard
_LOSSLESS = ("pcm", "float", "double", "flac", "alac")  # codecs whose files are as long as they say
_PIECE = 0.02  # seconds whose level decides whether something is heard


@dataclass(frozen=True)
class Source:
    """A sound that can be read from its start, as often as needed."""

    name: str  # for messages: "the mixture", or the file
    sample_rate: int  # Hz
    channels: int
    seconds: float | None  # None where a file does not say
    exact: bool  # whether that is the length to the sample
    open: Callable[[], AbstractContextManager[Any]]  # blocks [C, T]


def source(sound: Sound, role: str, sample_rate: int | None = None) -> Source:
    """Open a file or take samples ``[T]`` or ``[C, T]``.

    Args:
        role: what to call samples in messages, for example "mixture".
        sample_rate: Hz; needed for samples, ignored for files, which know theirs.

    Raises:
        UserError: the file cannot be read, or samples have no rate, a wrong shape or a NaN.
    """
    if not isinstance(sound, (Tensor, np.ndarray)):
        info = media.probe(sound)
        exact = info.frames is not None and info.codec.startswith(_LOSSLESS)
        blocks = partial(media.stream, sound, BLOCK)
        return Source(shown(sound, 60), info.sample_rate, info.channels, info.seconds, exact, blocks)
    if sample_rate is None:
        raise UserError(f"the {role} is given as samples; give their sample_rate in Hz too")
    if int(sample_rate) != sample_rate or not media.MIN_RATE <= sample_rate <= media.MAX_RATE:
        raise UserError(f"sample_rate {sample_rate} of the {role}: give {media.MIN_RATE} to {media.MAX_RATE} Hz")
    samples = torch.as_tensor(sound).detach()
    if samples.dim() not in (1, 2) or not samples.numel() or not samples.is_floating_point():
        raise UserError(
            f"the {role} has shape {list(samples.shape)} and type {samples.dtype}; give floats as [C, T] or [T]"
        )
    if not bool(samples.isfinite().all()):
        raise UserError(f"the {role} holds a sample that is not a number (NaN or infinite); repair it")
    samples = samples.reshape(-1, samples.shape[-1]).float().cpu()
    C, T = samples.shape
    rate = int(sample_rate)
    return Source(f"the {role}", rate, C, T / rate, True, lambda: nullcontext(iter(samples.split(BLOCK, -1))))


@dataclass
class Window:
    """A stretch of the recording: mono ``[T]`` each, at one rate."""

    mixture: Tensor
    targets: list[Tensor]


@dataclass
class Take:
    """A mixture and targets that were cut from it, as windows for a network.

    Iterating reads everything once, in memory that does not grow with the length.

    Args:
        sample_rate: Hz, of the windows.
        window: samples; the last one may be longer by :data:`SHORTEST`.

    Raises:
        UserError: a target's length differs by more than :data:`TOLERANCE`: at once where files tell their length,
            else when the iteration gets there. Also what reading raises.
    """

    mixture: Source
    targets: Sequence[Source]
    sample_rate: int
    window: int
    notes: list[list[str]] = field(init=False)  # of each target: what was done to it, complete after the iteration

    def __post_init__(self) -> None:
        for target in self.targets:
            check_lengths(self.mixture, target)
        self.notes = [
            [*heard_as(self.mixture, "mixture", self.sample_rate), *heard_as(target, "target", self.sample_rate)]
            for target in self.targets
        ]

    def __iter__(self) -> Iterator[Window]:
        shortest = round(SHORTEST * self.sample_rate)
        missing = [0] * len(self.targets)
        with ExitStack() as stack:
            mixture = _Mono(self.mixture, self.sample_rate, stack)
            readers = [_Mono(target, self.sample_rate, stack) for target in self.targets]
            length = 0
            while available := mixture.fill(self.window + shortest):
                size = self.window if available >= self.window + shortest else available
                length += size
                window = Window(mixture.pop(size), [reader.pop(size) for reader in readers])
                for i, target in enumerate(window.targets):
                    missing[i] += size - len(target)
                    self._check(i, length - missing[i], length)
                    window.targets[i] = torch.nn.functional.pad(target, (0, size - len(target)))
                yield window
            for i, reader in enumerate(readers):
                # One sample too many is rounding between two rates.
                beyond = reader.count(round(TOLERANCE * self.sample_rate) + 2)
                self._check(i, length + beyond, length)
                self._tell(i, beyond - missing[i])

    def _check(self, i: int, got: int, expected: int) -> None:
        if abs(got - expected) > TOLERANCE * self.sample_rate + 1:
            more = "longer" if got > expected else "shorter"
            raise UserError(
                f"{self.targets[i].name} is more than {TOLERANCE} s {more} than {self.mixture.name}; "
                "give a target that was cut from this mixture"
            )

    def _tell(self, i: int, beyond: int) -> None:
        milliseconds = round(1000 * abs(beyond) / self.sample_rate)
        if milliseconds:
            more, done = ("longer", "cut") if beyond > 0 else ("shorter", "filled up with silence")
            self.notes[i].append(f"the target is {milliseconds} ms {more} than the mixture and was {done}")


def check_lengths(mixture: Source, target: Source) -> None:
    """Refuse a target that belongs to another recording, as far as the files tell before they are read.

    Raises:
        UserError: lengths differ by more than :data:`TOLERANCE`, and by more than lossy files are wrong about theirs.
    """
    if mixture.seconds is None or target.seconds is None:
        return
    doubt = 0.0 if mixture.exact and target.exact else max(0.25, 0.02 * max(mixture.seconds, target.seconds))
    if abs(mixture.seconds - target.seconds) > TOLERANCE + doubt:
        raise UserError(
            f"{mixture.name} lasts {mixture.seconds:.2f} s but {target.name} {target.seconds:.2f} s; "
            "give a target that was cut from this mixture"
        )


def heard_as(sound: Source, role: str, sample_rate: int) -> list[str]:
    """What it takes to hear a sound in mono at ``sample_rate``, in words; nothing if it is so already."""
    done = [f"mixed to mono from {sound.channels} channels"] if sound.channels > 1 else []
    if sound.sample_rate != sample_rate:
        done.append(f"resampled from {sound.sample_rate} to {sample_rate} Hz")
    return [f"the {role} was {' and '.join(done)}"] if done else []


class _Mono:
    """Samples of a source at a rate, as many at a time as asked for."""

    def __init__(self, sound: Source, sample_rate: int, stack: ExitStack) -> None:
        blocks = stack.enter_context(sound.open())
        resampler = media.StreamResampler(sound.sample_rate, sample_rate)

        def parts() -> Iterator[Tensor]:
            for block in blocks:
                yield resampler.push(block.float().mean(0))
            yield resampler.flush()

        self._parts = parts()
        self._waiting: list[Tensor] = []
        self._have = 0

    def fill(self, count: int) -> int:
        """Read until ``count`` samples wait or there are no more; how many do."""
        while self._have < count and (part := next(self._parts, None)) is not None:
            self._waiting.append(part)
            self._have += len(part)
        return self._have

    def pop(self, count: int) -> Tensor:
        """The next ``count`` samples ``[T]``, fewer at the end."""
        self.fill(count)
        joined = torch.cat(self._waiting) if self._waiting else torch.zeros(0)
        self._waiting = [joined[count:].clone()]  # lets go of what was read
        self._have = len(self._waiting[0])
        return joined[:count]

    def count(self, most: int) -> int:
        """How many samples are left, looking no further than ``most``."""
        return min(self.fill(most), most)


def heard_seconds(sound: Tensor, sample_rate: int, floor: float) -> float:
    """How much of ``sound [T]`` is louder than ``floor`` (full scale 1.0), by the level of every 20 ms."""
    size = max(1, round(_PIECE * sample_rate))
    padded = torch.nn.functional.pad(sound, (0, -len(sound) % size))
    loud = padded.view(-1, size).square().mean(-1).sqrt() > floor
    return min(float(loud.sum()) * size, len(sound)) / sample_rate


def audible_floor(mixture: Tensor) -> float:
    """The level below which a target in ``mixture [T]`` is not heard."""
    level = math.sqrt(float(mixture.square().mean())) if len(mixture) else 0.0
    return max(SILENCE, AUDIBLE * level)
