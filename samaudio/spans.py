"""When a sound is there: from frame-wise activity to spans of time, and from the user's spans to a gate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from peav.errors import UserError

from .chunks import Chunk, weights
from .prompts import Prompt, Span

Times = tuple[float, float, float]  # start and end in seconds, confidence in 0..1

GRID = 100  # activity values per second
THRESHOLD = 0.5
SHORTEST_GAP, SHORTEST_SPAN = 0.2, 0.1  # seconds; shorter gaps are closed, then shorter spans dropped
WIDENING, FADE = 0.25, 0.05  # seconds around a span that the user gave, and of the fades inside of them
SLACK = 0.1  # seconds that a span may reach beyond the end, since times are typed by hand


class Activity:
    """Activity of a whole recording on a grid of 10 ms, averaged where chunks overlap. 1.4 MB per hour."""

    def __init__(self) -> None:
        self.values = torch.zeros(0)

    def add(
        self,
        chunk: Chunk,
        found: Tensor,
        frame_rate: float,
        sample_rate: int,
        overlap: int,
        gate: Tensor | None,
    ):
        """Take the activity ``[F]`` of one chunk; ``gate [n]`` is where the user's spans let it count."""
        # Grid point k lies at sample k * rate // GRID; these are the ones inside of the chunk.
        first, stop = (-(-at * GRID // sample_rate) for at in (chunk.start, chunk.stop))
        at = torch.arange(first, stop) * sample_rate // GRID - chunk.start
        weight = weights(chunk, overlap)
        if gate is not None:
            weight = weight * gate
        frames = (at * (frame_rate / sample_rate)).long().clamp(max=len(found) - 1)
        grown = torch.cat((self.values, torch.zeros(max(0, stop - len(self.values)))))
        grown[first:stop] += weight[at] * found.float().cpu()[frames]
        self.values = grown


def find_spans(activity: Tensor, rate: float = GRID, seconds: float = math.inf) -> list[Times]:
    """Where ``activity [N]`` in 0..1, ``rate`` values per second, reaches :data:`THRESHOLD`.

    Gaps under :data:`SHORTEST_GAP` are closed, then spans under :data:`SHORTEST_SPAN` are dropped. A span's
    confidence is its mean activity. ``seconds`` is where the recording ends.
    """
    active = torch.cat((torch.zeros(1), (activity >= THRESHOLD).float(), torch.zeros(1)))
    edges = active.diff().nonzero()[:, 0].view(-1, 2).tolist()
    merged: list[list[int]] = []
    for start, stop in edges:
        if merged and (start - merged[-1][1]) / rate < SHORTEST_GAP:
            merged[-1][1] = stop
        else:
            merged.append([start, stop])
    return [
        (start / rate, min(stop / rate, seconds), float(activity[start:stop].mean()))
        for start, stop in merged
        if (stop - start) / rate >= SHORTEST_SPAN
    ]


def span_gate(prompts: Sequence[Prompt], start: int, length: int, sample_rate: int) -> Tensor | None:
    """Gate ``[length]``, from sample ``start`` on: 1 within the prompts' spans, 0 beyond their widening.

    None when the prompts hold no span.
    """
    spans = [p for p in prompts if isinstance(p, Span)]
    if not spans:
        return None
    times = (torch.arange(length, dtype=torch.float64) + start) / sample_rate
    gate = torch.zeros(length)
    for span in spans:
        inside = torch.minimum(times - (span.start - WIDENING), (span.end + WIDENING) - times)  # to the nearer edge
        gate = torch.maximum(gate, (0.5 - 0.5 * torch.cos(math.pi * (inside / FADE).clamp(0, 1))).float())
    return gate


def check_spans(prompts: Sequence[Prompt], seconds: float) -> None:
    """Refuse spans that are not inside of a recording of ``seconds``."""
    for span in prompts:
        if isinstance(span, Span) and (span.start >= seconds or span.end > seconds + SLACK):
            raise UserError(
                f"span {span.start:g}-{span.end:g} is not inside the recording, which is {seconds:.2f} s long"
            )
