"""What the user can say about the sound: words, a time span, an example of it, or where in the picture its source is.

A prompt is one of these or a list of them; a plain string means :class:`Text`. Everything in one list describes
the same sound ("dog", between 2.0 s and 3.5 s).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from peav.errors import UserError, shown

LONGEST_TEXT = 1_000  # characters; the sentence encoder reads about this much


@dataclass(frozen=True)
class Text:
    """A phrase in lower case that names the sound: "guitar", "a dog barking".

    Raises:
        UserError: nothing but white space, or over :data:`LONGEST_TEXT` characters.
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise UserError('the prompt is empty; name the sound, for example "guitar"')
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise UserError(f"the prompt {shown(self.text, 40)!r} is not valid UTF-8 text; type it again") from None
        if len(self.text) > LONGEST_TEXT:
            raise UserError(f"the prompt {shown(self.text, 40)!r} has {len(self.text)} characters; "
                            f"use a phrase of at most {LONGEST_TEXT}, such as \"guitar\"")


@dataclass(frozen=True)
class Span:
    """The sound happens between ``start`` and ``end``, seconds from the beginning of the recording.

    Raises:
        UserError: not finite, negative, or the end does not come after the start.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)) or self.start < 0:
            raise UserError(f"span {self.start}-{self.end} must be two times in seconds, such as 2.0-3.5")
        if self.end <= self.start:
            raise UserError(f"span {self.start}-{self.end} ends before it starts; give START-END in seconds")


@dataclass(frozen=True)
class Example:
    """Another recording of the same kind of sound: a file, or a waveform ``[C, T]`` with its rate in Hz."""

    audio: str | Path | Tensor
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.audio, Tensor) and self.sample_rate is None:
            raise UserError("an example given as samples needs its sample_rate in Hz")


@dataclass(frozen=True)
class Click:
    """A point on the object that sounds or, with ``positive=False``, on something that does not belong to it.

    ``x`` and ``y`` count pixels of the picture as displayed, from its upper left corner; ``time`` is in seconds from
    the beginning of the film.

    Raises:
        UserError: not finite, or negative.
    """

    x: float
    y: float
    time: float
    positive: bool = True

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and value >= 0 for value in (self.x, self.y, self.time)):
            raise UserError(f"click {self.x:g},{self.y:g}@{self.time:g} must be two pixels from the upper left corner "
                            "and a time in seconds, such as 412,230@1.5")


@dataclass(frozen=True)
class Box:
    """The object lies in this rectangle at ``time``; pixels and seconds as in :class:`Click`, corners in any order.

    Raises:
        UserError: not finite, negative, or without area.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    time: float

    def __post_init__(self) -> None:
        name = f"box {self.x0:g},{self.y0:g},{self.x1:g},{self.y1:g}@{self.time:g}"
        if not all(math.isfinite(v) and v >= 0 for v in (self.x0, self.y0, self.x1, self.y1, self.time)):
            raise UserError(f"{name} must be two corners in pixels and a time in seconds, such as 300,120,480,400@1.5")
        if self.x0 == self.x1 or self.y0 == self.y1:
            raise UserError(f"{name} has no area; give two opposite corners of a rectangle around the object")


@dataclass(frozen=True)
class Mask:
    """The object's outline, drawn elsewhere: ``Mask(object=...)`` is white on the object, ``Mask(background=...)``
    white on everything else.

    Each is the path of a picture (one mask for the whole film) or of a film (a mask for each of its frames), or a
    Tensor ``[H, W]`` or, with the ``times`` of its masks in seconds, ``[N, H, W]``. Above half of full scale is white.

    Raises:
        UserError: none or both of the two were given, or a Tensor's shape or times do not fit.
    """

    object: str | Path | Tensor | None = None
    background: str | Path | Tensor | None = None
    times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.object is None) == (self.background is None):
            raise UserError("a mask marks either the object or the background; give one of object=... and "
                            "background=...")
        if not isinstance(self.source, Tensor):
            if self.times is not None:
                raise UserError("times belong to a mask given as a tensor [N, H, W]; a file has its own")
            return
        shape = list(self.source.shape)
        if self.source.dim() not in (2, 3) or not self.source.numel():
            raise UserError(f"the mask has shape {shape}; give [height, width], or [frames, height, width] with times")
        wanted = shape[0] if self.source.dim() == 3 else 0
        if len(self.times or ()) != wanted:
            raise UserError(f"the mask has shape {shape} and {len(self.times or ())} times; give one time in seconds "
                            "for each frame, and none for a single mask")
        if any(b <= a for a, b in zip(self.times or (), (self.times or ())[1:], strict=False)):
            raise UserError("the times of the mask do not rise; sort the frames by time")

    @property
    def source(self) -> str | Path | Tensor:
        """What was given, whichever it marks."""
        found = self.object if self.object is not None else self.background
        assert found is not None
        return found


@dataclass(frozen=True)
class Video:
    """All that is seen: the whole picture of the recording's own film, or of the one at ``path``."""

    path: str | Path | None = None


Prompt = Text | Span | Example | Click | Box | Mask | Video
VisualPrompt = Click | Box | Mask | Video

def as_prompts(prompt: str | Prompt | Sequence[str | Prompt]) -> tuple[Prompt, ...]:
    """Any accepted spelling of a prompt as a tuple of prompts.

    Raises:
        UserError: the prompt is empty or holds something that is no prompt.
    """
    items = (prompt,) if isinstance(prompt, str | Prompt) else tuple(prompt)
    if not items:
        raise UserError('no prompt; name the sound, for example "guitar"')
    made = tuple(Text(item) if isinstance(item, str) else item for item in items)
    for item in made:
        if not isinstance(item, Prompt):
            raise UserError(f"{shown(item)} is no prompt; give text, Span(start, end), Example(audio), "
                            "Click(x, y, time), Box(x0, y0, x1, y1, time), Mask(object=...) or Video()")
    return made


def describe(prompts: Sequence[Prompt]) -> str:
    """A short name for files and tables: the words if there are any, else what was pointed at, the spans, the example.
    """
    words = [p.text.strip() for p in prompts if isinstance(p, Text)]
    if words:
        return " ".join(words)
    places = [f"click {p.x:g},{p.y:g} at {p.time:g}s" for p in prompts if isinstance(p, Click) and p.positive]
    places += [f"box {p.x0:g},{p.y0:g},{p.x1:g},{p.y1:g} at {p.time:g}s" for p in prompts if isinstance(p, Box)]
    places += ["mask" for p in prompts if isinstance(p, Mask)]
    if places:
        return places[0]  # each further one is on the same object
    spans = [f"{p.start:g}-{p.end:g}s" for p in prompts if isinstance(p, Span)]
    if spans:
        return "span " + " ".join(spans)
    return "video" if any(isinstance(p, Video) for p in prompts) else "example"
