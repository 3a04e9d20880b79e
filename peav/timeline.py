"""A picture of what was heard when: one row per text, with its probability, the thresholds and the spans."""

from __future__ import annotations

import os
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peav import media
from peav.errors import UserError, shown

if TYPE_CHECKING:
    from peav.localize import Localization

MOST_ROWS = 40  # more would not fit into a picture that anybody can read

_COLUMNS = 2_000  # about what a screen can show
_LABEL_LETTERS = 130  # of a text above its row
_CURVE, _SPAN, _HIGH, _LOW = "#1f4e79", "#f2a33a", "#b3261e", "#6b6b6b"


def check_picture(png: str | os.PathLike, rows: int, force: bool = False) -> None:
    """Refuse a picture that cannot be written, before hours are spent on what it would show.

    Raises:
        UserError: it is not called .png, exists already, has no folder, or would have too many rows.
    """
    path = Path(png)
    if path.suffix.lower() != ".png":
        raise UserError(f"{shown(path)}: pictures are written as PNG; name it {shown(path.stem, 60)}.png")
    if not path.parent.is_dir():
        raise UserError(f"{shown(path)}: there is no folder {shown(path.parent, 60)}; make it first")
    if path.is_dir():
        raise UserError(f"{shown(path)}: is a folder; give the name of a file in it")
    if os.path.lexists(path) and not force:
        raise UserError(f"{shown(path)}: exists already; give --force to replace it, or another name")
    if rows > MOST_ROWS:
        raise UserError(f"a picture of {rows} prompts cannot be read; give at most {MOST_ROWS} with --plot")


def plot_timeline(found: Localization, png: str | os.PathLike, title: str, force: bool = False) -> None:
    """Draw `found` and write a PNG, the whole of it or none.

    Raises:
        UserError: as `check_picture`, or the picture cannot be written.
    """
    check_picture(png, len(found.prompts), force)
    figure = _figure(found, title)
    path = Path(png)
    temporary = media.temporary_sibling(path)
    try:
        with warnings.catch_warnings():
            # Letters that the font lacks are drawn as boxes; the table has them right.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(temporary, format="png")
        temporary.replace(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(path)}: the picture cannot be written ({why}); choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def _figure(found: Localization, title: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(found.prompts)
    figure = Figure(figsize=(11, 1.2 + 1.35 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    # Words of the user are words: a "$" is not the start of a formula.
    figure.suptitle(shown(title, 70), x=0.01, ha="left", fontsize=11, parse_math=False)
    axes = figure.subplots(rows, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, prompt, spans, row in zip(axes, found.prompts, found.spans, found.probabilities.numpy(), strict=True):
        for span in spans:
            axis.axvspan(span.start, span.end, color=_SPAN, alpha=0.45, linewidth=0)
        edges, lowest, highest = steps(row, found.frame_seconds, found.seconds)
        axis.stairs(highest, edges, baseline=lowest, fill=True, color=_CURVE, linewidth=0.8)
        axis.stairs(highest, edges, baseline=None, color=_CURVE, linewidth=1.0)
        axis.axhline(found.threshold, color=_HIGH, linewidth=0.9, linestyle="--")
        if found.low is not None:
            axis.axhline(found.low, color=_LOW, linewidth=0.9, linestyle=":")
        label = textwrap.fill(shown(prompt, _LABEL_LETTERS), 100)
        axis.set_title(label, loc="left", fontsize=10, parse_math=False)
    axes[0].set_ylim(-0.02, 1.02)
    axes[0].set_yticks([0.0, 0.5, 1.0])
    axes[0].set_xlim(0.0, found.seconds)
    axes[-1].set_xlabel("time in seconds")
    figure.supylabel("probability", fontsize=10)
    _explain(figure, found)
    return figure


def _explain(figure: Any, found: Localization) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    parts: list[Any] = [
        Patch(color=_SPAN, alpha=0.45, label="span"),
        Line2D([], [], color=_HIGH, linestyle="--", label=f"threshold {found.threshold:g}"),
    ]
    if found.low is not None:
        parts.append(Line2D([], [], color=_LOW, linestyle=":", label=f"hysteresis {found.low:g}"))
    figure.legend(handles=parts, loc="outside upper right", ncols=len(parts), fontsize=9, frameon=False)


def steps(row: np.ndarray, frame_seconds: float, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames as steps on the time axis: edges ``[n + 1]`` in seconds, lowest and highest ``[n]``.

    More frames than a screen has columns share one, which then shows the lowest and the highest of them: a dog that
    barks once in an hour must not vanish between two columns.
    """
    together = max(1, -(-len(row) // _COLUMNS))
    starts = np.arange(0, len(row), together)
    edges = np.append(starts * frame_seconds, min(len(row) * frame_seconds, seconds))
    return edges, np.minimum.reduceat(row, starts), np.maximum.reduceat(row, starts)
