"""Spectrograms: frequencies and times land where they belong, and long files cost no more than short ones."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile

from peav.errors import UserError
from samaudio import plots

RATE = 16_000


def tone(hz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def save(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize("hz", [120, 1_000, 6_000])
def test_a_tone_is_one_bright_row_at_its_frequency(tmp_path, hz):
    power = plots.spectrogram(save(tmp_path / "a.wav", tone(hz, 1.0))).power
    edges = plots._hz(np.linspace(plots._mel(plots.LOWEST), plots._mel(RATE / 2), plots.BANDS + 1))
    row = int(power.mean(1).argmax())
    assert edges[max(row - 1, 0)] <= hz <= edges[min(row + 2, plots.BANDS)]


def test_a_burst_is_a_bright_column_at_its_time(tmp_path):
    samples = np.zeros(10 * RATE, dtype=np.float32)
    samples[6 * RATE : 7 * RATE] = tone(1_000, 1.0)
    picture = plots.spectrogram(save(tmp_path / "a.wav", samples))
    loud = np.flatnonzero(picture.power.sum(0) > picture.power.sum(0).max() / 4) * picture.column_seconds
    assert loud.min() == pytest.approx(6.0, abs=0.1) and loud.max() == pytest.approx(7.0, abs=0.1)


def test_a_long_file_has_few_columns_and_the_same_mean_power(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * RATE).astype(np.float32)
    path = save(tmp_path / "noise.wav", noise)
    fine = plots.spectrogram(path)
    monkeypatch.setattr(plots, "COLUMNS", 101)
    coarse = plots.spectrogram(path)
    assert coarse.power.shape[1] <= 101 < fine.power.shape[1] <= plots.BANDS * 20
    assert coarse.column_seconds / fine.column_seconds == 2 ** round(
        math.log2(coarse.column_seconds / fine.column_seconds)
    )
    assert coarse.seconds == pytest.approx(60.0)
    assert coarse.power.mean() == pytest.approx(fine.power.mean(), rel=0.05)
    assert coarse.power.shape[1] * coarse.column_seconds == pytest.approx(60.0, rel=0.03)


def test_opposite_phases_do_not_cancel(tmp_path):
    left = tone(1_000, 0.5)
    assert plots.spectrogram(save(tmp_path / "a.wav", np.stack([left, -left], 1))).power.max() > 1e-3


def test_a_file_shorter_than_a_window_has_a_spectrogram(tmp_path):
    assert plots.spectrogram(save(tmp_path / "a.wav", tone(1_000, 0.005))).power.max() > 0


def draw(tmp_path: Path, **options) -> np.ndarray:
    low, high = tone(200, 3.0), tone(3_000, 3.0)
    files = [save(tmp_path / f"{i}.wav", samples) for i, samples in enumerate((low + high, low, high))]
    png = tmp_path / "out" / "guitar.png"
    title = options.pop("title", '"guitar" in mix.wav, presence 0.97')
    plots.plot_separation(*files, png, title, **options)
    assert [path.name for path in png.parent.iterdir()] == ["guitar.png"]  # no partial file is left
    return matplotlib.image.imread(png)[..., :3]


def test_the_picture_shows_that_target_and_mixture_differ(tmp_path):
    picture = draw(tmp_path, spans=[(0.5, 1.5, 0.9)])
    height, width, _ = picture.shape
    assert 600 < height < 2_000 and 800 < width < 3_000
    assert picture.std() > 0.1  # not blank
    # Bright rows in the middle of each panel: the mixture has both tones, the others one each.
    bright = picture[:, width // 8 : width // 2].sum(-1) > 1.8
    tones = {}
    for name, top in zip(("mixture", "target", "residual"), (0.07, 0.38, 0.69), strict=True):
        rows = bright[int(height * top) : int(height * (top + 0.24))].mean(1) > 0.9
        tones[name] = int((np.diff(rows.astype(int)) == 1).sum())
    assert tones == {"mixture": 2, "target": 1, "residual": 1}


def test_spans_are_marked_on_the_target_only(tmp_path):
    blue = [
        ((picture[..., 2] > 0.9) & (picture[..., 0] < 0.4)).any(1)
        for picture in (draw(tmp_path), draw(tmp_path, spans=[(0.5, 1.5, 0.9)], force=True))
    ]
    assert not blue[0].any()
    rows = np.flatnonzero(blue[1]) / len(blue[1])
    assert rows.min() > 0.33 and rows.max() < 0.67


def test_words_are_never_taken_for_formulas_or_missing_letters(tmp_path, recwarn):
    draw(tmp_path, title='"$\\frac{cash$ 笛 \n🎸" ' + "x" * 500)
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_silence_can_be_drawn(tmp_path):
    quiet = save(tmp_path / "quiet.wav", np.zeros(RATE, dtype=np.float32))
    plots.plot_separation(quiet, quiet, quiet, tmp_path / "a.png", "nothing")
    assert (tmp_path / "a.png").stat().st_size > 1_000


def test_an_existing_picture_needs_force(tmp_path):
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        plots.plot_separation("none", "none", "none", tmp_path / "a.png", "x")
    assert (tmp_path / "a.png").read_text() == "mine"
