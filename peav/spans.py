"""From frame-wise log-odds to spans of time.

Axes: ``Q`` texts, ``F`` frames.

By default this is the published rule of PE-A-Frame: a frame is on when its probability is strictly above a threshold,
and every run of such frames is a span. What smooths that comes in a fixed order, each step only if asked for: median
over time, hysteresis, closing of gaps, dropping of what is short.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import UserError

THRESHOLD = 0.3  # of the published models

_AT_ONCE = 2**22  # numbers; the median needs as many copies of a frame as it looks at frames


class Span(NamedTuple):
    """When something is heard."""

    start: float  # seconds
    end: float  # seconds
    confidence: float  # mean probability of the frames from start to end, 0 to 1


def find_spans(
    logits: Tensor,
    frame_seconds: float,
    *,
    mask: Tensor | None = None,
    end: float | None = None,
    threshold: float = THRESHOLD,
    low: float | None = None,
    smooth: float = 0.0,
    max_gap: float = 0.0,
    min_duration: float = 0.0,
) -> list[list[Span]]:
    """Spans of each text, in order of time, none overlapping another.

    Args:
        logits: ``[Q, F]``, log-odds; frame i is ``[i, i + 1) * frame_seconds``.
        frame_seconds: length of a frame.
        mask: ``[Q, F]`` or ``[F]``, true or 1 where a frame belongs to the clip. Other frames are never in a span and
            count for no median.
        end: seconds; no span reaches further. The last frame of a clip usually does.
        threshold: a span opens at a frame whose probability is strictly above it.
        low: hysteresis; an open span goes on as long as probabilities are strictly above this. None: `threshold`.
        smooth: seconds; each probability is replaced by the median of those whose frames are centred within half of
            this to either side, before it is compared with a threshold. Confidences stay those of the model.
        max_gap: seconds; spans no further apart become one.
        min_duration: seconds; shorter spans are dropped, after joining.

    Raises:
        ValueError: shapes do not fit.
        UserError: a number makes no sense, see `check_rule`.
    """
    if logits.ndim != 2 or (mask is not None and mask.shape not in (logits.shape, logits.shape[1:])):
        shapes = [None if x is None else tuple(x.shape) for x in (logits, mask)]
        raise ValueError(f"logits and mask have shapes {shapes}; give [Q, F] both")
    check_rule(threshold, low, smooth, max_gap, min_duration)
    probabilities = logits.detach().float().sigmoid().cpu()
    keep = None if mask is None else mask.bool().cpu().expand_as(probabilities)
    judged = median(probabilities, int(smooth / (2 * frame_seconds) + 1e-6), keep)
    on = held(judged, threshold, threshold if low is None else low)
    if keep is not None:
        on &= keep
    slack = 1e-3 * frame_seconds  # whole frames on paper must not fail by rounding
    found = []
    for row, active in zip(probabilities, on, strict=True):
        spans = []
        for first, stop in _joined(_runs(active), (max_gap + slack) / frame_seconds if max_gap else 0.0):
            a, b = first * frame_seconds, stop * frame_seconds
            if end is not None:
                b = min(b, end)
            if a < b and b - a >= min_duration - slack:
                spans.append(Span(a, b, float(row[first:stop].mean())))
        found.append(spans)
    return found


def check_rule(
    threshold: float | None, low: float | None, smooth: float = 0.0, max_gap: float = 0.0, min_duration: float = 0.0
) -> None:
    """Refuse numbers that make no sense. `threshold` is None where it is not known yet.

    Raises:
        UserError: a probability is outside of 0 to 1, the lower threshold is above the other, or seconds are negative.
    """
    for name, value in (("threshold", threshold), ("hysteresis", low)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name} {value:g} is no probability; give a number from 0 to 1")
    if threshold is not None and low is not None and low > threshold:
        raise UserError(f"hysteresis {low:g} is above the threshold {threshold:g}; give a number below it")
    for name, value in (("smooth", smooth), ("max-gap", max_gap), ("min-duration", min_duration)):
        if not 0 <= value < math.inf:
            raise UserError(f"{name} {value:g} is no length of time; give seconds from 0 on")


def held(values: Tensor, high: float, low: float) -> Tensor:
    """Schmitt trigger over ``[..., F]``: on from a value above `high`, off again at one that is not above `low`."""
    at = torch.arange(values.shape[-1], device=values.device).expand_as(values)
    never = torch.full_like(at, -1)
    opened = torch.where(values > high, at, never).cummax(-1).values
    closed = torch.where(values > low, never, at).cummax(-1).values
    return opened > closed


def median(values: Tensor, reach: int, mask: Tensor | None = None) -> Tensor:
    """Median of each value of ``[Q, F]`` and its `reach` neighbours on either side, as far as they exist.

    Of an even number of values it is the lower one of the two in the middle. Values where `mask` is false do not count.
    """
    if reach < 1 or not values.numel():
        return values
    given = values if mask is None else values.masked_fill(~mask, math.nan)
    padded = torch.nn.functional.pad(given, (reach, reach), value=math.nan)
    windows = padded.unfold(-1, 2 * reach + 1, 1)
    parts = windows.split(max(1, _AT_ONCE // (len(values) * (2 * reach + 1))), dim=1)
    found = torch.cat([part.nanmedian(-1).values for part in parts], dim=1)
    return torch.where(found.isnan(), values, found)


def _runs(active: Tensor) -> list[tuple[int, int]]:
    """First frame and the one after the last, of each run of true in ``[F]``."""
    edge = active.new_zeros(1).int()
    steps = torch.diff(active.int(), prepend=edge, append=edge)
    starts, stops = (steps == 1).nonzero().flatten().tolist(), (steps == -1).nonzero().flatten().tolist()
    return list(zip(starts, stops, strict=True))


def _joined(runs: list[tuple[int, int]], gap: float) -> list[tuple[int, int]]:
    """Runs with those that are no more than `gap` frames apart made one."""
    found: list[tuple[int, int]] = []
    for first, stop in runs:
        if found and gap and first - found[-1][1] <= gap:
            first = found.pop()[0]
        found.append((first, stop))
    return found
