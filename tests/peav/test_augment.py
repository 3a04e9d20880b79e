"""Changes to stems, measured on tones and clicks."""

from __future__ import annotations

import numpy as np
import pytest

from peav import augment

RATE = 8_000
CHANGES = {
    "speed": lambda x, rng: augment.speed(x, rng),
    "equalise": lambda x, rng: augment.equalise(x, rng, RATE),
    "reverberate": lambda x, rng: augment.reverberate(x, rng, RATE),
}


def click(length: int, at: int) -> np.ndarray:
    x = np.zeros(length, dtype=np.float32)
    x[at] = 1
    return x


def peak_frequency(x: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 1 << 18))
    return float(np.argmax(spectrum) * RATE / (1 << 18))


@pytest.mark.parametrize("name", CHANGES)
def test_changes_depend_on_the_generator_alone(name):
    x = np.random.default_rng(0).standard_normal(3_001).astype(np.float32)
    kept = x.copy()
    one, again, *others = (CHANGES[name](x, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4))
    assert np.array_equal(one, again) and one.dtype == np.float32
    assert any(one.shape != other.shape or not np.allclose(one, other) for other in others)
    assert np.array_equal(x, kept)


def test_speed_changes_length_and_pitch_by_the_same_ratio():
    x = np.sin(2 * np.pi * 1_000 * np.arange(RATE) / RATE).astype(np.float32)
    seen = set()
    for seed in range(12):
        y = augment.speed(x, np.random.default_rng(seed))
        ratio = len(x) / len(y)
        assert 5 / 6 - 1e-3 <= ratio <= 6 / 5 + 1e-3
        assert peak_frequency(y) == pytest.approx(1_000 * ratio, rel=1e-3)
        assert np.std(y[200:-200]) == pytest.approx(np.std(x), rel=0.02)  # the level stays
        seen.add(round(ratio, 3))
    assert len(seen) > 3 and min(seen) < 1 < max(seen)


@pytest.mark.parametrize("length", [1, 7, 1_000, 4_999])
def test_equalise_keeps_the_length(length):
    assert augment.equalise(np.ones(length, np.float32), np.random.default_rng(0), RATE).shape == (length,)


def test_equalise_stays_within_its_depth():
    for seed in range(5):
        y = augment.equalise(click(8_192, 4_096), np.random.default_rng(seed), RATE, depth_db=6.0)
        gains = 20 * np.log10(np.abs(np.fft.rfft(y)))
        assert np.abs(gains).max() < 6.2
        assert gains.max() - gains.min() > 2  # it does something
        assert np.abs(np.diff(gains[50:])).max() < 0.5  # smoothly


def test_equalise_without_depth_changes_nothing():
    x = np.random.default_rng(0).standard_normal(777).astype(np.float32)
    assert np.abs(augment.equalise(x, np.random.default_rng(1), RATE, depth_db=0.0) - x).max() < 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_reverberation_keeps_length_and_direct_sound(seed):
    y = augment.reverberate(click(RATE, 100), np.random.default_rng(seed), RATE)
    assert y.shape == (RATE,)
    assert y[100] == pytest.approx(1, abs=1e-5)
    quiet = np.concatenate((y[:100], y[101:116]))  # nothing before the sound, and 2 ms until the first reflection
    assert np.abs(quiet).max() < 1e-5
    tail = y[116:]
    level = 10 * np.log10(np.sum(tail**2))
    assert -15.5 < level < 0.01  # direct sound 0 to 15 dB above
    energy = np.cumsum(tail[::-1] ** 2)[::-1]
    assert energy[int(0.75 * RATE)] < 1e-5 * energy[0]  # -60 dB after 0.8 s at the latest


def test_reverberation_is_linear():
    a, b = np.random.default_rng(0).standard_normal((2, 2_000)).astype(np.float32)
    apart = sum(augment.reverberate(x, np.random.default_rng(3), RATE) for x in (a, b))
    assert np.abs(augment.reverberate(a + b, np.random.default_rng(3), RATE) - apart).max() < 1e-4
