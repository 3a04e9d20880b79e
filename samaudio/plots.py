"""Pictures of a separation: the mixture, the target and the residual as spectrograms, one above the other.

A file of any length is read once, in blocks, and becomes at most :data:`COLUMNS` columns: whenever there are
more, neighbours are averaged in pairs and one column stands for twice the time. So an hour costs as much
memory as a minute and no length need be known in advance.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peav import media
from peav.errors import UserError, shown

COLUMNS = 1_500  # at most; about what a screen can show
BANDS = 128  # rows, evenly spaced in mel
LOWEST = 30.0  # Hz
RANGE = 80.0  # dB from the loudest point of the mixture down to the darkest colour

_WINDOW = 0.046  # seconds; rounded up to a power of two in samples
_FRAMES_AT_ONCE = 256
_TICKS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)  # Hz
_SPAN_COLOUR = "#39d0ff"
_MOST_SPANS = 200  # more could not be told apart


@dataclass(frozen=True)
class Spectrogram:
    """Mean power ``[BANDS, columns]`` on a mel axis from :data:`LOWEST` to half of ``sample_rate``.

    Full scale is 1.0. All columns stand for the same time but the last, which may end after the file.
    """

    power: np.ndarray
    sample_rate: int  # Hz
    seconds: float  # length of the file
    column_seconds: float

    def decibels(self) -> np.ndarray:
        """Power in dB, floored far below anything audible."""
        return 10.0 * np.log10(np.maximum(self.power, 1e-20))


def spectrogram(path: str | os.PathLike) -> Spectrogram:
    """The spectrogram of a file, all channels averaged, in bounded memory.

    Raises:
        UserError: the file cannot be read.
    """
    with media.stream(path, block_frames=1 << 16) as blocks:
        rate = blocks.info.sample_rate
        size = 1 << int(np.ceil(np.log2(_WINDOW * rate)))
        hop = size // 2
        window = torch.hann_window(size)
        bands = _bands(size, rate) / float(window.sum() ** 2)
        columns = _Columns(COLUMNS)
        pending: torch.Tensor | None = None
        length = 0
        for block in blocks:
            length += block.shape[1]
            if pending is None:  # the first window is centred on the first sample
                pending = block.new_zeros(block.shape[0], hop)
            pending = torch.cat((pending, block), dim=1)
            pending = _consume(pending, size, hop, window, bands, columns)
        assert pending is not None  # `stream` refuses files without samples
        _consume(torch.nn.functional.pad(pending, (0, size)), size, hop, window, bands, columns)
    power = columns.finish()
    return Spectrogram(power, rate, length / rate, hop * columns.frames_per_column / rate)


def _consume(
    pending: torch.Tensor, size: int, hop: int, window: torch.Tensor, bands: torch.Tensor, columns: _Columns
) -> torch.Tensor:
    """Turn all whole windows of ``pending [C, T]`` into frames; returns what the next window still needs."""
    frames = pending.unfold(1, size, hop) if pending.shape[1] >= size else pending.new_zeros(1, 0, size)
    for start in range(0, frames.shape[1], _FRAMES_AT_ONCE):
        some = torch.fft.rfft(frames[:, start : start + _FRAMES_AT_ONCE] * window)
        power = some.abs().square().mean(0)  # of all channels, so that opposite phases do not cancel
        columns.add((bands @ power.T).numpy())
    return pending[:, frames.shape[1] * hop :]


class _Columns:
    """Averages a stream of frames ``[bands, n]`` down to at most ``most`` columns."""

    def __init__(self, most: int) -> None:
        self.most = most - most % 2
        self.frames_per_column = 1
        self._done: list[np.ndarray] = []  # columns [bands]
        self._sum: np.ndarray | None = None
        self._in_sum = 0

    def add(self, frames: np.ndarray) -> None:
        for frame in frames.T:
            self._sum = frame.astype(np.float64) if self._sum is None else self._sum + frame
            self._in_sum += 1
            if self._in_sum == self.frames_per_column:
                self._close()

    def _close(self) -> None:
        if len(self._done) == self.most:
            pairs = np.stack(self._done).reshape(self.most // 2, 2, -1).mean(1)
            self._done = list(pairs)
            self.frames_per_column *= 2
            return  # the running sum is half a column now and goes on
        assert self._sum is not None
        self._done.append(self._sum / self._in_sum)
        self._sum, self._in_sum = None, 0

    def finish(self) -> np.ndarray:
        if self._in_sum and len(self._done) < self.most:
            assert self._sum is not None
            self._done.append(self._sum / self._in_sum)
        return np.stack(self._done, axis=1).astype(np.float32)


def _mel(hz: np.ndarray | float) -> np.ndarray:
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)


def _hz(mel: np.ndarray) -> np.ndarray:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def _bands(size: int, rate: int) -> torch.Tensor:
    """``[BANDS, size // 2 + 1]``: mean power of the bins within each band.

    Bins are taken as steps of constant density, so a band that is narrower than a bin gets a share of it and
    none is empty: the share is the difference of the cumulative density at the band's edges.
    """
    bins = size // 2 + 1
    bin_edges = np.clip((np.arange(bins + 1) - 0.5) * rate / size, 0.0, rate / 2)
    edges = _hz(np.linspace(_mel(LOWEST), _mel(rate / 2), BANDS + 1))
    covered = (edges[:, None] - bin_edges[None, :-1]) / np.diff(bin_edges)
    cumulative = np.clip(covered, 0.0, 1.0) * np.diff(bin_edges)
    weights = np.diff(cumulative, axis=0)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()


def plot_separation(
    mixture_path: str | os.PathLike | Spectrogram,
    target_path: str | os.PathLike,
    residual_path: str | os.PathLike,
    png_path: str | os.PathLike,
    title: str,
    spans: Sequence[tuple[float, ...]] = (),
    force: bool = False,
) -> Spectrogram:
    """Draw mixture, target and residual on one dB scale and one frequency axis, and write a PNG.

    Args:
        mixture_path: a file, or what this function returned for it before.
        spans: ``(start, end, ...)`` in seconds, marked on the target.
        force: replace an existing picture.

    Returns:
        The mixture's spectrogram, for the next prompt on the same recording.

    Raises:
        UserError: a file cannot be read, or the picture cannot be written.
    """
    png = Path(png_path)
    if not force and os.path.lexists(png):
        raise UserError(f"{shown(png)}: exists already; give --force to replace it, or another name")
    mixture = mixture_path if isinstance(mixture_path, Spectrogram) else spectrogram(mixture_path)
    panels = {"mixture": mixture, "target": spectrogram(target_path), "residual": spectrogram(residual_path)}
    _save(_figure(panels, title, spans), png)
    return mixture


def _figure(panels: dict[str, Spectrogram], title: str, spans: Sequence[tuple[float, ...]]):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mixture = panels["mixture"]
    top = float(mixture.decibels().max())
    if top < -150.0:  # a silent mixture has no loudest point
        top = 0.0
    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    # Words of the user are words: a "$" is not the start of a formula.
    figure.suptitle(shown(title, 110), parse_math=False)
    axes = figure.subplots(len(panels), 1, sharex=True, sharey=True)
    image: Any = None
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        axis.set_facecolor("black")
        image = axis.imshow(
            panel.decibels() - top,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-RANGE,
            vmax=0,
            interpolation="nearest",
            extent=_extent(panel),
        )
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_ylabel("frequency")
    ticks = [hz for hz in _TICKS if LOWEST < hz < mixture.sample_rate / 2]
    axes[0].set_yticks(_mel(np.array(ticks)), [f"{hz} Hz" if hz < 1_000 else f"{hz // 1_000} kHz" for hz in ticks])
    axes[0].set_ylim(_mel(LOWEST), _mel(mixture.sample_rate / 2))
    axes[-1].set_xlim(0.0, mixture.seconds)
    axes[-1].set_xlabel("time in seconds")
    for start, end, *_ in list(spans)[:_MOST_SPANS]:
        axes[1].axvspan(start, end, ymin=0.96, ymax=1.0, color=_SPAN_COLOUR, linewidth=0)
        for time in (start, end):
            axes[1].axvline(time, color=_SPAN_COLOUR, linewidth=0.7, linestyle=":")
    figure.colorbar(image, ax=axes, label="dB, relative to the mixture's loudest point", pad=0.01)
    return figure


def _extent(panel: Spectrogram) -> tuple[float, float, float, float]:
    """Left, right, bottom, top. Columns are centred on their time when they hold one frame."""
    columns = panel.power.shape[1]
    left = -0.5 * min(panel.column_seconds, panel.seconds / columns)
    return (
        left,
        left + columns * panel.column_seconds,
        float(_mel(LOWEST)),
        float(_mel(panel.sample_rate / 2)),
    )


def _save(figure, png: Path) -> None:
    """Write the whole picture or none."""
    temporary = media.temporary_sibling(png)
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # Letters that the font lacks are drawn as boxes; the file's name has them right.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(temporary, format="png")
        temporary.replace(png)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(png)}: the picture cannot be written ({why}); choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
