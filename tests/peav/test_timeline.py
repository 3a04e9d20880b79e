"""The picture of a localisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from peav import timeline
from peav.errors import UserError
from peav.localize import Localization
from peav.spans import find_spans


def found(prompts: tuple[str, ...] = ("dog barking",), low: float | None = None, frames: int = 250) -> Localization:
    probabilities = torch.rand(len(prompts), frames, generator=torch.Generator().manual_seed(0)) * 0.2
    probabilities[:, 50:100] = 0.9
    return Localization(
        prompts, find_spans(probabilities.logit(), 0.04), probabilities, 0.04, frames * 0.04 - 0.01, 0.3, low, False
    )


def colours(path: Path) -> np.ndarray:
    return imread(path)[..., :3]


def share(image: np.ndarray, hexadecimal: str, tolerance: float = 0.02) -> np.ndarray:
    """Which pixels have a colour."""
    wanted = np.array([int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return (np.abs(image - wanted) < tolerance).all(-1)


def test_rows_make_a_picture_higher(tmp_path):
    sizes = []
    for n in (1, 4):
        timeline.plot_timeline(found(tuple("abcd")[:n]), tmp_path / f"{n}.png", "street.wav")
        sizes.append(colours(tmp_path / f"{n}.png").shape)
    assert sizes[1][0] > 2 * sizes[0][0] and sizes[1][1] == sizes[0][1]


def test_curve_and_thresholds_are_drawn(tmp_path):
    timeline.plot_timeline(found(), tmp_path / "plain.png", "a")
    timeline.plot_timeline(found(low=0.1), tmp_path / "low.png", "a")
    plain, low = colours(tmp_path / "plain.png"), colours(tmp_path / "low.png")
    assert share(plain, timeline._HIGH).sum() > 100 and share(plain, timeline._CURVE, 0.2).sum() > 1_000
    assert share(low, timeline._LOW).sum() > share(plain, timeline._LOW).sum() + 50


def test_spans_are_drawn_where_they_are():
    axis = timeline._figure(found(), "a").axes[0]
    boxes = [patch for patch in axis.patches if patch.get_alpha() == 0.45]
    assert [(box.get_x(), box.get_x() + box.get_width()) for box in boxes] == [(2.0, 4.0)]
    assert axis.get_xlim() == (0.0, 9.99)


def test_labels_are_the_words_of_the_user():
    figure = timeline._figure(found(("costs $5 and $6", "a\nb" + "c" * 300)), "mix_$x$.wav")
    first, second = (axis.get_title(loc="left") for axis in figure.axes)
    assert first == "costs $5 and $6" and max(map(len, second.split("\n"))) <= 100
    figure.canvas.draw()


def test_letters_that_no_font_has_do_no_harm(tmp_path, recwarn):
    timeline.plot_timeline(found(("犬の鳴き声",)), tmp_path / "a.png", "犬.wav")
    assert (tmp_path / "a.png").stat().st_size > 1_000 and not [w for w in recwarn if "Glyph" in str(w.message)]


def test_a_moment_in_many_hours_is_seen():
    row = np.zeros(360_001, np.float32)
    row[123_456] = 1.0
    edges, lowest, highest = timeline.steps(row, 0.04, 14_400.01)
    assert len(edges) == len(highest) + 1 <= 2_001
    assert highest.max() == 1 and lowest.max() == 0 and edges[-1] == 14_400.01
    column = int(highest.argmax())
    assert edges[column] <= 123_456 * 0.04 < edges[column + 1]


def test_a_short_row_is_drawn_as_it_is():
    edges, lowest, highest = timeline.steps(np.array([0.1, 0.7]), 0.5, 0.8)
    assert edges.tolist() == [0, 0.5, 0.8] and lowest.tolist() == highest.tolist() == [0.1, 0.7]


MISTAKES = {
    "suffix": ("a.jpg", 1, "name it a.png"),
    "exists": ("there.png", 1, "exists already; give --force"),
    "folder": ("none/a.png", 1, "there is no folder none"),
    "is a folder": ("dir.png", 1, "is a folder"),
    "rows": ("a.png", 41, "at most 40"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_pictures_that_cannot_be_are_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there.png").write_text("mine")
    Path("dir.png").mkdir()
    name, rows, told = MISTAKES[kind]
    with pytest.raises(UserError, match=told):
        timeline.check_picture(name, rows)
    assert Path("there.png").read_text() == "mine"


def test_a_picture_is_replaced_when_asked_and_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(UserError, match="exists already"):
        timeline.plot_timeline(found(), path, "a")
    from matplotlib.figure import Figure

    def fail(figure, target, **options):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(UserError, match="No space left"):
            timeline.plot_timeline(found(), path, "a", force=True)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.png"]
    timeline.plot_timeline(found(), path, "a", force=True)
    assert path.read_bytes()[:4] == b"\x89PNG"
