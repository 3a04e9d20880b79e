"""Changes to a stem before it is mixed. Target and mixture change together because only stems are touched.

All functions take and return float32 ``[T]`` numpy arrays and draw from the given generator alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torchaudio.functional import resample

# Ratios with small terms keep the resampling kernels short; each is applied as input rate : output rate.
SPEEDS = ((5, 6), (7, 8), (8, 9), (10, 11), (15, 16), (16, 15), (11, 10), (9, 8), (8, 7), (6, 5))


def speed(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Play faster or slower by up to a fifth; pitch and length change together."""
    old, new = SPEEDS[rng.integers(len(SPEEDS))]
    return resample(torch.from_numpy(x), old, new, lowpass_filter_width=4).numpy()


def equalise(x: np.ndarray, rng: np.random.Generator, sample_rate: int, depth_db: float = 8.0) -> np.ndarray:
    """A smooth random gain curve over a logarithmic frequency axis, at most about ``depth_db`` either way."""
    n = _fft_size(len(x))
    spectrum = np.fft.rfft(x, n)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(n, 1 / sample_rate), 20.0) / 20.0)
    knots = np.linspace(0, math.log2(sample_rate / 40.0), 7)
    gains = np.interp(octaves, knots, rng.uniform(-depth_db, depth_db, len(knots)))
    return np.fft.irfft(spectrum * 10 ** (gains / 20), n)[: len(x)].astype(np.float32)


def reverberate(x: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Convolve with decaying noise: RT60 0.1 to 0.8 s, direct sound 0 to 15 dB above the tail."""
    rt60 = rng.uniform(0.1, 0.8)
    length = int(rt60 * sample_rate)
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.sum(tail**2))
    tail[: int(0.002 * sample_rate)] = 0
    tail[0] += 1.0
    n = _fft_size(len(x) + length)
    return np.fft.irfft(np.fft.rfft(x, n) * np.fft.rfft(tail, n), n)[: len(x)].astype(np.float32)


def _fft_size(n: int) -> int:
    """Next length of the form ``2^a`` times 1 or 3: numpy's transform is slow on large primes."""
    power = 1 << max(n - 1, 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= n else power
