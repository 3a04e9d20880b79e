"""A picture of the four scores over time."""

from __future__ import annotations

import os
from pathlib import Path

from peav import media
from peav.errors import UserError, shown

from .model import SCORES
from .score import Score

STEP = 1.0  # seconds that a point stands for, at least
MOST_POINTS = 1_500  # about what a screen can show


def plot_curve(score: Score, png_path: str | os.PathLike, title: str, force: bool = False) -> None:
    """Draw a score's curve with its means, and write a PNG.

    Args:
        force: replace an existing picture.

    Raises:
        UserError: the score has no curve, or the picture cannot be written.
    """
    png = Path(png_path)
    check_picture(png, force)
    if score.curve is None:
        raise UserError("there is no curve to draw: only the judge network gives one, for a prompt in words")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curve = score.curve.every(max(STEP, len(score.curve.values) * score.curve.step / MOST_POINTS))
    times = [(i + 0.5) * curve.step for i in range(len(curve.values))]
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    # Words of the user are words: a "$" is not the start of a formula.
    axis.set_title(shown(title, 110), parse_math=False, loc="left", fontsize=10)
    for name, values in zip(SCORES, curve.values.T.tolist(), strict=True):
        mean = getattr(score, name)
        label = name if mean is None else f"{name} {mean:.2f}"
        marker = "." if len(times) < 3 else ""  # one point makes no line
        axis.plot(times, values, label=label, linewidth=2.5 if name == "overall" else 1.2, marker=marker)
    axis.set(xlabel="time in seconds", ylabel="score", ylim=(0.9, 5.1), xlim=(0, len(times) * curve.step))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    temporary = media.temporary_sibling(png)
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(png)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(png)}: the picture cannot be written ({why}); choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_picture(png: Path, force: bool = False) -> None:
    """
    Raises:
        UserError: there is no such folder, or the file exists and ``force`` is not given.
    """
    if not png.absolute().parent.is_dir():
        raise UserError(f"{shown(png)}: there is no folder {shown(png.parent, 60)}; make it first")
    if os.path.lexists(png) and not force:
        raise UserError(f"{shown(png)}: exists already; give --force to replace it, or another name")
