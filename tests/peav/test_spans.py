"""Spans of known probabilities."""

from __future__ import annotations

import random
from statistics import median_low

import pytest
import torch

from peav.errors import UserError
from peav.spans import Span, find_spans, held, median


def logits(*rows: list[float]) -> torch.Tensor:
    """Log-odds of probabilities."""
    return torch.tensor(rows, dtype=torch.float64).logit()


def times(spans: list[Span]) -> list[tuple[float, float]]:
    return [(round(span.start, 6), round(span.end, 6)) for span in spans]


def test_every_run_strictly_above_the_threshold_is_a_span():
    found = find_spans(logits([0.9, 0.1, 0.25, 0.75, 0.8, 0.2], [0.25, 0.25, 0.1, 0.0, 0.1, 0.9]), 0.5, threshold=0.25)
    assert [times(spans) for spans in found] == [[(0, 0.5), (1.5, 2.5)], [(2.5, 3)]]
    assert found[0][1].confidence == pytest.approx(0.775)


def test_the_threshold_itself_is_off():
    zero = torch.zeros(1, 3)  # a probability of exactly one half
    assert find_spans(zero, 1.0, threshold=0.5) == [[]]
    assert times(find_spans(zero, 1.0, threshold=0.4999)[0]) == [(0, 3)]
    assert find_spans(torch.full((1, 3), 99.0), 1.0, threshold=1.0) == [[]]


def test_hysteresis_opens_above_the_high_and_closes_at_the_low():
    row = logits([0.4, 0.4, 0.7, 0.4, 0.2, 0.4, 0.1, 0.4])
    assert times(find_spans(row, 1.0, threshold=0.6)[0]) == [(2, 3)]
    assert times(find_spans(row, 1.0, threshold=0.6, low=0.3)[0]) == [(2, 4)]
    assert times(find_spans(row, 1.0, threshold=0.6, low=0.15)[0]) == [(2, 6)]
    assert times(find_spans(row, 1.0, threshold=0.6, low=0.0)[0]) == [(2, 8)]


def test_hysteresis_is_the_machine_that_it_is_said_to_be():
    dice = random.Random(0)
    values = [dice.choice([0.1, 0.3, 0.5, 0.7]) for _ in range(300)]
    state, want = False, []
    for value in values:
        state = value > 0.5 or (state and value > 0.3)
        want.append(state)
    assert held(torch.tensor([values], dtype=torch.float64), 0.5, 0.3)[0].tolist() == want
    assert any(want) and not all(want)


@pytest.mark.parametrize("reach", [1, 3, 400])
def test_the_median_is_that_of_the_neighbours_that_exist(reach):
    values = torch.rand(2, 300, generator=torch.Generator().manual_seed(0))
    want = [[median_low(row[max(0, i - reach) : i + reach + 1]) for i in range(300)] for row in values.tolist()]
    assert torch.equal(median(values, reach), torch.tensor(want))


def test_the_median_of_a_long_row_has_no_seams(monkeypatch):
    values = torch.rand(1, 999, generator=torch.Generator().manual_seed(0))
    want = median(values, 4)
    monkeypatch.setattr("peav.spans._AT_ONCE", 90)
    assert torch.equal(median(values, 4), want)


def test_smoothing_removes_flicker_and_keeps_edges_and_confidence():
    row = logits([0.1, 0.1, 0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1])
    assert len(find_spans(row, 0.04)[0]) == 3
    (span,) = find_spans(row, 0.04, smooth=0.12)[0]
    assert times([span]) == [(0.08, 0.28)] and span.confidence == pytest.approx((4 * 0.9 + 0.1) / 5)
    assert find_spans(row, 0.04, smooth=0.07) == find_spans(row, 0.04)  # less than a neighbour on either side


def test_gaps_close_before_short_spans_go():
    row = logits([0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1])
    assert times(find_spans(row, 0.04)[0]) == [(0, 0.04), (0.08, 0.12), (0.24, 0.28)]
    assert times(find_spans(row, 0.04, max_gap=0.04)[0]) == [(0, 0.12), (0.24, 0.28)]
    assert times(find_spans(row, 0.04, max_gap=0.04, min_duration=0.12)[0]) == [(0, 0.12)]
    assert find_spans(row, 0.04, max_gap=0.04)[0][0].confidence == pytest.approx(1.9 / 3)


def test_spans_end_with_the_recording():
    row = logits([0.1, 0.9, 0.9, 0.9])
    assert times(find_spans(row, 0.5, end=1.7)[0]) == [(0.5, 1.7)]
    assert find_spans(row, 0.5, end=0.5) == [[]]
    assert find_spans(row, 0.5, end=1.7, min_duration=1.3) == [[]]


@pytest.mark.parametrize("shape", ["row", "matrix"])
def test_padding_is_in_no_span_and_no_median(shape):
    mask = torch.tensor([1, 1, 1, 0, 0])
    row = logits([0.1, 0.9, 0.9, 0.9, 0.0])
    mask = mask if shape == "row" else mask[None]
    assert times(find_spans(row, 1.0, mask=mask)[0]) == [(1, 3)]
    last = logits([0.1, 0.1, 0.9, 0.9, 0.9])  # with the padding the last median would be 0.9
    assert find_spans(last, 1.0, mask=mask, smooth=2.0) == [[]]
    assert times(find_spans(last, 1.0, smooth=2.0)[0]) == [(2, 5)]


def test_no_frames_no_spans():
    assert find_spans(torch.zeros(2, 0), 0.04, smooth=1.0) == [[], []]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"threshold": 1.5}, "threshold 1.5 is no probability"),
        ({"threshold": float("nan")}, "threshold nan is no probability"),
        ({"low": -0.1}, "hysteresis -0.1 is no probability"),
        ({"threshold": 0.3, "low": 0.6}, "hysteresis 0.6 is above the threshold 0.3"),
        ({"smooth": -1.0}, "smooth -1 is no length of time"),
        ({"max_gap": float("nan")}, "max-gap nan"),
        ({"min_duration": float("inf")}, "min-duration inf"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_numbers_without_sense_are_refused(rule, told):
    with pytest.raises(UserError, match=told):
        find_spans(torch.zeros(1, 3), 0.04, **rule)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\[Q, F\]"):
        find_spans(torch.zeros(3), 0.04)
    with pytest.raises(ValueError, match=r"\(1, 3\), \(1, 4\)"):
        find_spans(torch.zeros(1, 3), 0.04, mask=torch.ones(1, 4))
