"""Scores over time as inline SVG, and as a table for those who do not see it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

NAMES = ("overall", "recall", "precision", "faithfulness")
LOWEST, HIGHEST = 1.0, 5.0
_MOST_POINTS = 400  # about what a screen can show
_HEIGHT = 100.0  # units of the drawing; its width is the number of steps


def sampled(curve: Any) -> dict[str, Any]:
    """``step`` in seconds, and a list of numbers for each score: of every second, or more where there are many.

    Args:
        curve: a `judge.Curve`.
    """
    seconds = len(curve.values) * curve.step
    return curve.every(max(1.0, math.ceil(seconds / _MOST_POINTS))).to_dict()


def curve_html(values: dict[str, Any], title: str) -> str:
    """A figure: axis labels in HTML, so that they stay readable when the drawing is squeezed onto a phone."""
    step, steps = values["step"], len(values["overall"])
    lines = "".join(_lines(values[name], name) for name in NAMES)
    grid = "".join(f'<line class="grid" x1="0" x2="{steps}" y1="{_y(y)}" y2="{_y(y)}"/>' for y in (1, 2, 3, 4, 5))
    keys = "".join(
        '<li><svg class="key" viewBox="0 0 30 6" aria-hidden="true">'
        f'<line class="{name}" x1="0" x2="30" y1="3" y2="3"/></svg> {name}</li>'
        for name in NAMES
    )
    label = escape(f"Scores over time, {title}", quote=True)
    return (
        f'<figure class="curve"><figcaption>Scores over time, {step:g} s each</figcaption>'
        f'<div class="plot"><div class="scale" aria-hidden="true"><span>5</span><span>3</span><span>1</span></div>'
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {steps} {_HEIGHT:g}" preserveAspectRatio="none">'
        f"{grid}{lines}</svg></div>"
        f'<div class="time" aria-hidden="true"><span>0 s</span><span>{steps * step:g} s</span></div>'
        f'<ul class="keys">{keys}</ul>{_table(values)}</figure>'
    )


def _lines(values: Sequence[float], name: str) -> str:
    parts = []
    for run in _runs(values):
        points = [(i + 0.5, _y(value)) for i, value in run]
        if len(points) == 1:  # a single point makes no line
            points = [(points[0][0] - 0.4, points[0][1]), (points[0][0] + 0.4, points[0][1])]
        joined = " ".join(f"{x:g},{y:g}" for x, y in points)
        parts.append(f'<polyline class="{name}" points="{joined}"/>')
    return "".join(parts)


def _runs(values: Sequence[float]) -> Iterator[list[tuple[int, float]]]:
    """What is known, without the gaps."""
    run: list[tuple[int, float]] = []
    for i, value in enumerate(values):
        if math.isfinite(value):
            run.append((i, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _y(value: float) -> float:
    share = (min(max(value, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
    return round(_HEIGHT * (1.0 - share), 2)


def _table(values: dict[str, Any]) -> str:
    step = values["step"]
    head = "".join(f'<th scope="col">{name}</th>' for name in NAMES)
    rows = "".join(
        f'<tr><th scope="row">{i * step:g}</th>'
        + "".join(f"<td>{number:.1f}</td>" if math.isfinite(number) else "<td>–</td>" for number in row)
        + "</tr>"
        for i, row in enumerate(zip(*(values[name] for name in NAMES), strict=True))
    )
    return (
        '<details><summary>The same in numbers</summary><div class="wide" tabindex="0" role="region" '
        'aria-label="Scores over time"><table>'
        f'<thead><tr><th scope="col">second</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
