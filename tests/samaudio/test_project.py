"""Cutting stems out of the recording by masks on its STFT."""

from __future__ import annotations

import math

import pytest
import torch

from samaudio.project import istft, power_ratio, project, ratio_mask, stft, window_length

RATE = 8_000
WINDOW = torch.hann_window(window_length(RATE))


def tone(frequency: float, amplitude: float = 0.3, samples: int = RATE) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(samples) / RATE)


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def ratio_db(signal: torch.Tensor, error: torch.Tensor) -> float:
    return float(10 * (signal.square().sum() / error.square().sum().clamp_min(1e-20)).log10())


@pytest.mark.parametrize("shape", [(1,), (100,), (2, 4_001), (2, 3, 1_000)], ids=str)
def test_the_inverse_gives_every_sample_back(shape):
    x = noise(*shape)
    torch.testing.assert_close(istft(stft(x, WINDOW), WINDOW, shape[-1]), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_target_and_residual_add_up_to_the_mixture(power):
    mixture, a, b = noise(3, 2, 5_000)
    parts = project(mixture, a, b, WINDOW, power) + project(mixture, b, a, WINDOW, power)
    torch.testing.assert_close(parts, mixture, rtol=0, atol=1e-6)


def test_two_silent_estimates_share_the_mixture():
    mixture, silence = noise(5_000), torch.zeros(5_000)
    torch.testing.assert_close(project(mixture, silence, silence, WINDOW), mixture / 2, rtol=0, atol=1e-6)


def test_a_silent_target_gets_nothing_and_a_silent_residual_leaves_everything():
    mixture, silence = noise(5_000), torch.zeros(5_000)
    assert ratio_db(mixture, project(mixture, silence, mixture, WINDOW)) > 60
    assert ratio_db(mixture, project(mixture, mixture, silence, WINDOW) - mixture) > 60


def test_perfect_estimates_separate_tones_that_do_not_meet():
    low, high = tone(300), tone(2_100, 0.1)
    got = project(low + high, low, high, WINDOW)
    assert ratio_db(low, got - low) > 30
    assert ratio_db(high, low + high - got - high) > 30


def test_only_the_ratio_of_the_estimates_counts():
    mixture, a, b = noise(3, 5_000)
    plain = project(mixture, a, b, WINDOW)
    torch.testing.assert_close(project(mixture, 20 * a, 20 * b, WINDOW), plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(project(mixture, -a, b, WINDOW), plain, rtol=0, atol=1e-6)  # magnitudes only
    assert (project(mixture, 20 * a, b, WINDOW) - plain).abs().max() > 1e-2


def test_the_output_follows_the_level_of_the_mixture():
    mixture, a, b = noise(3, 5_000)
    plain = project(mixture, a, b, WINDOW)
    torch.testing.assert_close(project(7 * mixture, a, b, WINDOW), 7 * plain, rtol=0, atol=1e-5)


def test_masks_by_hand():
    # Magnitudes 3 and 1: powers 9 and 1, harder with a larger exponent.
    t, r = torch.tensor([3 + 0j, 0 + 1j]), torch.tensor([1j, 3 + 0j])
    torch.testing.assert_close(power_ratio(t, r), torch.tensor([0.9, 0.1]))
    torch.testing.assert_close(power_ratio(t, r, 2.0), torch.tensor([81 / 82, 1 / 82]))
    torch.testing.assert_close(power_ratio(t, r, 0.5), torch.tensor([0.75, 0.25]))


def test_masks_lie_between_zero_and_one_and_are_complementary():
    a, b = noise(2, 5_000)
    mask = ratio_mask(a, b, WINDOW)
    assert 0 <= float(mask.min()) < 0.1 and 0.9 < float(mask.max()) <= 1
    torch.testing.assert_close(mask + ratio_mask(b, a, WINDOW), torch.ones_like(mask))


def test_gradients_are_finite_where_an_estimate_is_silent():
    mixture, estimate = noise(5_000), torch.zeros(5_000, requires_grad=True)
    project(mixture, estimate, mixture, WINDOW).square().sum().backward()
    assert bool(estimate.grad.isfinite().all())


def test_channels_are_cut_one_by_one():
    mixture, a, b = noise(3, 2, 3_000)
    both = project(mixture, a, b, WINDOW)
    for c in range(2):
        torch.testing.assert_close(both[c], project(mixture[c], a[c], b[c], WINDOW))


@pytest.mark.parametrize(("rate", "samples"), [(24_000, 2_048), (48_000, 4_096), (8_000, 684), (100, 16)])
def test_windows_last_as_long_at_every_rate(rate, samples):
    assert window_length(rate) == samples
