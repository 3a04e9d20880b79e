"""When in a recording of any length something named by words is heard.

Axes: ``C`` channels, ``T`` samples, ``Q`` texts, ``F`` frames.

A recording that fits into one window is one pass of the model, as published. A longer one is read in windows that
overlap. Every window starts on the frame grid of the whole, so frame i is ``[i, i + 1) * frame_seconds`` of the
recording, whatever its sample rate. Near its inner edges a window lacks context: there the other window counts alone,
and in between the log-odds of one fade into those of the other. Memory holds two windows and the answer, 90 000 numbers
per hour and text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import console, media
from .errors import UserError, shown
from .spans import THRESHOLD, Span, check_rule, find_spans
from .windows import SILENCE

if TYPE_CHECKING:
    from .frame import PEAFrame
    from .model import PEAV

WINDOW = 30.0  # seconds
OVERLAP = 4.0  # seconds, at most a third of a window
MARGIN = 0.4  # seconds next to an inner edge that do not count; what the published codec sees to one side is 0.25 s

_BLOCK = 1 << 16  # samples


@dataclass(frozen=True)
class Localization:
    """What was found in one recording. ``spans[q]`` and ``probabilities[q]`` belong to ``prompts[q]``."""

    prompts: tuple[str, ...]
    spans: list[list[Span]]
    probabilities: Tensor  # [Q, F] float32, of the model, before any smoothing
    frame_seconds: float
    seconds: float  # length of the recording; the last frame may reach beyond it
    threshold: float
    low: float | None  # hysteresis, where it was asked for
    silent: bool  # the recording holds nothing but digital silence


def localize(
    recording: str | os.PathLike | Tensor,
    prompts: Sequence[str],
    model: PEAV | PEAFrame | str | Path | None = None,
    *,
    sample_rate: int | None = None,
    device: str = "auto",
    threshold: float | None = None,
    low: float | None = None,
    smooth: float = 0.0,
    max_gap: float = 0.0,
    min_duration: float = 0.0,
    window: float = WINDOW,
    progress: console.Advance | None = None,
) -> Localization:
    """Spans of time in which each text is heard, with confidences.

    >>> localize("street.wav", ["dog barking"]).spans[0]      # doctest: +SKIP
    [Span(start=0.4, end=2.08, confidence=0.87)]

    Args:
        recording: a file of any length, or a waveform ``[T]`` or ``[C, T]``; channels are averaged.
        prompts: texts, one or more.
        model: a model with a frame head, or what `peav.load` takes.
        sample_rate: Hz, of a waveform; default: the model's.
        device: where to put a model that is loaded here.
        threshold: default: the model's, which for published models is 0.3.
        low, smooth, max_gap, min_duration: see `peav.spans.find_spans`; by default the published rule.
        window: seconds that the model sees at once.

    Raises:
        UserError: the recording cannot be read, a text is empty, the model has no frame head, or a number makes no
            sense.
    """
    texts = check_prompts(prompts)
    check_rule(threshold, low, smooth, max_gap, min_duration)
    if not isinstance(recording, Tensor):
        media.probe(recording)
    if model is None or isinstance(model, (str, Path)):
        import peav

        found = with_frames(peav.load(model, device=device), model)
    else:
        found = with_frames(model)
    if threshold is None:
        threshold = getattr(found, "frame_threshold", THRESHOLD)
        check_rule(threshold, low)
    if isinstance(recording, Tensor):
        blocks = _blocks_of(recording)
        heard = frame_logits(found, blocks, sample_rate or found.sample_rate, texts, window=window, progress=progress)
    else:
        with media.stream(recording, _BLOCK) as stream:
            info = stream.info
            heard = frame_logits(
                found, stream, info.sample_rate, texts, window=window, progress=progress, total=info.seconds
            )
    return Localization(
        prompts=texts,
        spans=find_spans(
            heard.logits,
            found.frame_seconds,
            end=heard.seconds,
            threshold=threshold,
            low=low,
            smooth=smooth,
            max_gap=max_gap,
            min_duration=min_duration,
        ),
        probabilities=heard.logits.sigmoid(),
        frame_seconds=found.frame_seconds,
        seconds=heard.seconds,
        threshold=threshold,
        low=low,
        silent=heard.silent,
    )


def check_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """The texts without the blanks around them.

    Raises:
        UserError: there is none, or one of them is empty.
    """
    texts = tuple(text.strip() for text in ([prompts] if isinstance(prompts, str) else prompts))
    if not texts:
        raise UserError('no prompt; say what to look for, such as "dog barking"')
    if not all(texts):
        raise UserError('a prompt is empty; give words, such as "dog barking"')
    return texts


def with_frames(model: PEAV | PEAFrame, name: object = None) -> PEAV | PEAFrame:
    """The model itself, if it has a frame head.

    Raises:
        UserError: it has none. `name` is what the user called it.
    """
    if not model.has_frames:
        named = "this model" if name is None else f"model {shown(name, 60)}"
        raise UserError(
            f"{named} embeds whole clips and cannot say when; give one with a frame head, such as "
            "facebook/pe-a-frame-small"
        )
    return model


def _blocks_of(waveform: Tensor) -> Iterable[Tensor]:
    if waveform.ndim not in (1, 2) or not waveform.is_floating_point() or not waveform.numel():
        raise UserError(
            f"a waveform of shape {list(waveform.shape)}, {waveform.dtype}; give float [T] or [C, T] with at least one "
            "sample"
        )
    return (waveform if waveform.ndim == 2 else waveform[None]).split(_BLOCK, dim=-1)


@dataclass(frozen=True)
class Heard:
    """What the model says of a whole recording."""

    logits: Tensor  # [Q, F] float32 on the CPU; minus infinity in a silent recording
    seconds: float
    silent: bool


def frame_logits(
    model: PEAV | PEAFrame,
    blocks: Iterable[Tensor],
    sample_rate: int,
    texts: Sequence[str],
    *,
    window: float = WINDOW,
    progress: console.Advance | None = None,
    total: float | None = None,
) -> Heard:
    """Log-odds that each text describes each frame of a waveform that arrives in blocks.

    What a model makes of nothing but digital silence is no answer, so that is minus infinity instead.

    Args:
        blocks: ``[C, T]`` each, at `sample_rate`.
        window: seconds that the model sees at once.
        total: length in seconds, if known, for `progress`.
    """
    exact = model.frame_seconds * model.sample_rate
    hop = round(exact)
    if hop < 1 or abs(exact - hop) > 1e-6 * exact:
        raise ValueError(f"a frame of this model is {exact} samples long; windows need a whole number of them")
    if not window >= 3 * model.frame_seconds or window == float("inf"):
        raise UserError(f"window {window:g} s; give at least three frames, {3 * model.frame_seconds:g} s")
    size = int(window / model.frame_seconds + 1e-6)  # frames
    overlap = max(1, min(round(OVERLAP / model.frame_seconds), size // 3))
    margin = round(MARGIN / model.frame_seconds)

    source = _Mono(blocks, sample_rate, model.sample_rate)
    joined = _Joined(margin)
    loudest = 0.0
    for start, clip in _clips(source, size * hop, (size - overlap) * hop, hop):
        loudest = max(loudest, float(clip.abs().max()))
        found = model.frame_logits(audio=[clip], text=list(texts))[0].detach().float().cpu()
        frames = -(-len(clip) // hop)
        if found.shape != (len(texts), frames):
            raise ValueError(f"the model gave {tuple(found.shape)} for {len(texts)} texts and {frames} frames")
        joined.add(start // hop, found)
        if progress is not None:
            progress(min((start + len(clip)) / model.sample_rate, source.seconds), total)
    if not source.received:
        raise UserError("the recording holds no samples; check the file")
    logits = joined.finish()
    silent = loudest <= SILENCE
    return Heard(torch.full_like(logits, -torch.inf) if silent else logits, source.seconds, silent)


class _Mono:
    """Iterates over a waveform in blocks ``[T]``: channels averaged, at another rate. Counts what came in."""

    def __init__(self, blocks: Iterable[Tensor], rate_from: int, rate_to: int) -> None:
        self.blocks, self.rate_from, self.rate_to = blocks, rate_from, rate_to
        self.received = 0  # samples at `rate_from`

    @property
    def seconds(self) -> float:
        return self.received / self.rate_from

    def __iter__(self) -> Iterator[Tensor]:
        resampler = media.StreamResampler(self.rate_from, self.rate_to)
        for block in self.blocks:
            self.received += block.shape[-1]
            yield resampler.push(block.float().mean(0)).cpu()
        yield resampler.flush().cpu()


def _clips(source: Iterable[Tensor], size: int, step: int, hop: int) -> Iterator[tuple[int, Tensor]]:
    """Windows ``(start, [T])`` of `size` samples every `step`, all of them multiples of `hop`.

    The last window ends with the waveform and is as long as the others, so that it does not lack context: it starts
    earlier than a step after the one before it, still on a multiple of `hop`. Only a waveform shorter than a window
    gives a shorter one.
    """
    parts: list[Tensor] = []
    have = base = start = 0  # samples in `parts`, where they start, and where the next window does
    for part in source:
        parts.append(part)
        have += len(part)
        while base + have >= start + size:
            joined = torch.cat(parts)
            yield start, joined[start - base : start - base + size]
            # This window stays, because the last one may reach back into it.
            joined = joined[start - base :].clone()
            base, have, parts = start, len(joined), [joined]
            start += step
    end = base + have
    if start == 0:
        if end:
            yield 0, torch.cat(parts)
    elif end > start - step + size:
        first = -(-(end - size) // hop) * hop
        yield first, torch.cat(parts)[first - base :]


class _Joined:
    """Frames ``[Q, F]`` of overlapping windows as one row per text. Windows come in order of their starts."""

    def __init__(self, margin: int) -> None:
        self.margin = margin  # frames
        self._done: list[Tensor] = []
        self._open: Tensor | None = None  # frames that a later window may still change
        self._start = 0  # of them

    def add(self, start: int, frames: Tensor) -> None:
        if self._open is None:
            self._open, self._start = frames, start
            return
        before = start - self._start
        shared = self._open.shape[1] - before
        old, new = self._open[:, before:], frames[:, :shared]
        # From 0 to 1 between the margins; where both windows say the same, so does the sum, to the last bit.
        margin = min(self.margin, (shared - 1) // 2)
        weight = (torch.arange(shared) + 0.5 - margin) / (shared - 2 * margin)
        self._done.append(self._open[:, :before].clone())
        self._open = torch.cat((old + weight.clamp(0, 1) * (new - old), frames[:, shared:]), dim=1)
        self._start = start

    def finish(self) -> Tensor:
        return torch.cat([*self._done, *([] if self._open is None else [self._open])], dim=1)
