"""The spectrogram of a file of any length, read once, in bounded memory.

Whenever there are more columns than wanted, neighbours are averaged in pairs and one column stands for twice the
time. So an hour costs as much memory as a minute, and no length need be known in advance.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch

from peav import media

LOWEST = 30.0  # Hz; the bottom of the mel axis
_WINDOW = 0.046  # seconds; rounded up to a power of two in samples
_FRAMES_AT_ONCE = 256


@dataclass(frozen=True)
class Spectrogram:
    """Mean power ``[bands, columns]`` on a mel axis from :data:`LOWEST` to half of ``sample_rate``.

    Full scale is 1.0. All columns stand for the same time but the last, which may end after the file.
    """

    power: np.ndarray
    sample_rate: int  # Hz
    seconds: float  # length of the file
    column_seconds: float

    def decibels(self) -> np.ndarray:
        """Power in dB, floored far below anything audible."""
        return 10.0 * np.log10(np.maximum(self.power, 1e-20))


def mel(hz: np.ndarray | float) -> np.ndarray:
    """Mel of a frequency in Hz (O'Shaughnessy, 1987)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)


def hertz(mels: np.ndarray | float) -> np.ndarray:
    """The inverse of :func:`mel`."""
    return 700.0 * (10.0 ** (np.asarray(mels) / 2595.0) - 1.0)


def spectrogram(path: str | os.PathLike, columns: int = 1_500, bands: int = 128) -> Spectrogram:
    """The spectrogram of a file, the power of all channels averaged.

    Args:
        columns: at most so many, and at least half as many where the file is long enough.
        bands: rows, evenly spaced in mel.

    Raises:
        UserError: the file cannot be read.
    """
    with media.stream(path, block_frames=1 << 16) as blocks:
        rate = blocks.info.sample_rate
        size = 1 << int(np.ceil(np.log2(_WINDOW * rate)))
        hop = size // 2
        window = torch.hann_window(size)
        weights = _bands(size, rate, bands) / float(window.sum() ** 2)
        means = _Columns(columns)
        pending: torch.Tensor | None = None
        length = 0
        for block in blocks:
            length += block.shape[1]
            if pending is None:  # the first window is centred on the first sample
                pending = block.new_zeros(block.shape[0], hop)
            pending = _consume(torch.cat((pending, block), dim=1), size, hop, window, weights, means)
        assert pending is not None  # `stream` refuses files without samples
        _consume(torch.nn.functional.pad(pending, (0, size)), size, hop, window, weights, means)
    power = means.finish()
    return Spectrogram(power, rate, length / rate, hop * means.frames_per_column / rate)


def _consume(
    pending: torch.Tensor, size: int, hop: int, window: torch.Tensor, weights: torch.Tensor, means: _Columns
) -> torch.Tensor:
    """Turn all whole windows of ``pending [C, T]`` into frames; returns what the next window still needs."""
    frames = pending.unfold(1, size, hop) if pending.shape[1] >= size else pending.new_zeros(1, 0, size)
    for start in range(0, frames.shape[1], _FRAMES_AT_ONCE):
        some = torch.fft.rfft(frames[:, start : start + _FRAMES_AT_ONCE] * window)
        power = some.abs().square().mean(0)  # of all channels, so that opposite phases do not cancel
        means.add((weights @ power.T).numpy())
    return pending[:, frames.shape[1] * hop :]


class _Columns:
    """Averages a stream of frames ``[bands, n]`` down to at most ``most`` columns."""

    def __init__(self, most: int) -> None:
        self.most = max(2, most - most % 2)
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
            self._done = list(np.stack(self._done).reshape(self.most // 2, 2, -1).mean(1))
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


def _bands(size: int, rate: int, bands: int) -> torch.Tensor:
    """``[bands, size // 2 + 1]``: mean power of the bins within each band.

    Bins are taken as steps of constant density, so a band that is narrower than a bin gets a share of it and
    none is empty: the share is the difference of the cumulative density at the band's edges.
    """
    bins = size // 2 + 1
    bin_edges = np.clip((np.arange(bins + 1) - 0.5) * rate / size, 0.0, rate / 2)
    edges = hertz(np.linspace(mel(LOWEST), mel(rate / 2), bands + 1))
    covered = (edges[:, None] - bin_edges[None, :-1]) / np.diff(bin_edges)
    cumulative = np.clip(covered, 0.0, 1.0) * np.diff(bin_edges)
    weights = np.diff(cumulative, axis=0)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()
