"""What the user can say about the sound: words, a time span, an example of it.

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


Prompt = Text | Span | Example


def as_prompts(prompt: str | Prompt | Sequence[str | Prompt]) -> tuple[Prompt, ...]:
    """Any accepted spelling of a prompt as a tuple of prompts.

    Raises:
        UserError: the prompt is empty or holds something that is no prompt.
    """
    items = (prompt,) if isinstance(prompt, (str, Text, Span, Example)) else tuple(prompt)
    if not items:
        raise UserError('no prompt; name the sound, for example "guitar"')
    made = tuple(Text(item) if isinstance(item, str) else item for item in items)
    for item in made:
        if not isinstance(item, (Text, Span, Example)):
            raise UserError(f"{shown(item)} is no prompt; give text, Span(start, end) or Example(audio)")
    return made


def describe(prompts: Sequence[Prompt]) -> str:
    """A short name for files and tables: the words if there are any, else the spans or the example."""
    words = [p.text.strip() for p in prompts if isinstance(p, Text)]
    if words:
        return " ".join(words)
    spans = [f"{p.start:g}-{p.end:g}s" for p in prompts if isinstance(p, Span)]
    return "span " + " ".join(spans) if spans else "example"
