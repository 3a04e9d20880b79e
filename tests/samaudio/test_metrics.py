"""Separation figures against torchmetrics and against cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio

from samaudio.metrics import error_db, improvement, sdr, si_sdr

T = torch.arange(8_000) / 8_000
SINE, COSINE = torch.sin(2 * math.pi * 50 * T), torch.cos(2 * math.pi * 50 * T)  # orthogonal, of equal energy


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Estimates and targets ``[4, T]`` from bad to good, with a mean that is not zero."""
    draw = torch.Generator().manual_seed(0)
    target = 0.1 + torch.randn(4, 8_000, generator=draw, dtype=torch.float64)
    error = torch.randn(4, 8_000, generator=draw, dtype=torch.float64)
    return target + error * torch.tensor([[3.0], [1.0], [0.1], [0.01]], dtype=torch.float64), target


def test_si_sdr_is_that_of_torchmetrics(pair):
    wanted = scale_invariant_signal_distortion_ratio(*pair, zero_mean=False)
    torch.testing.assert_close(si_sdr(*pair), wanted, rtol=0, atol=1e-3)


def test_sdr_is_the_signal_to_noise_ratio_of_torchmetrics(pair):
    torch.testing.assert_close(sdr(*pair), signal_noise_ratio(*pair), rtol=0, atol=1e-3)


@pytest.mark.parametrize("gain", [0.01, 100.0, -1.0])
def test_si_sdr_does_not_depend_on_the_estimates_scale(pair, gain):
    estimate, target = pair
    torch.testing.assert_close(si_sdr(gain * estimate, target), si_sdr(estimate, target), rtol=0, atol=1e-3)


def test_sdr_does(pair):
    estimate, target = pair
    assert float((sdr(0.5 * estimate, target) - sdr(estimate, target)).abs().min()) > 0.1


def test_an_orthogonal_error_of_a_tenth_is_20_db():
    assert float(si_sdr(SINE + 0.1 * COSINE, SINE)) == pytest.approx(20, abs=1e-2)
    assert float(sdr(SINE + 0.1 * COSINE, SINE)) == pytest.approx(20, abs=1e-2)
    # Half the amplitude costs sdr 6 dB of signal as error, and si_sdr nothing.
    assert float(sdr(0.5 * SINE, SINE)) == pytest.approx(20 * math.log10(2), abs=1e-2)
    assert float(si_sdr(0.5 * SINE, SINE)) > 70


def test_a_perfect_estimate_is_finite():
    assert float(si_sdr(SINE, SINE)) == pytest.approx(80, abs=0.1)
    assert float(sdr(SINE, SINE)) == pytest.approx(80, abs=0.1)


def test_a_silent_estimate_is_strongly_negative():
    assert float(si_sdr(torch.zeros_like(SINE), SINE)) == pytest.approx(-80, abs=0.1)
    assert float(si_sdr(COSINE, SINE)) < -60  # as is one that has nothing to do with the target


@pytest.mark.parametrize("batch", [False, True], ids=["alone", "one_of_two"])
def test_a_silent_target_is_refused(batch):
    silent = torch.stack((SINE, 0 * SINE)) if batch else 0 * SINE
    with pytest.raises(ValueError, match="silent target is undefined"):
        si_sdr(silent, silent)


@pytest.mark.parametrize("figure", [si_sdr, sdr], ids=["si_sdr", "sdr"])
def test_shapes_must_agree(figure):
    with pytest.raises(ValueError, match=r"estimate \(1, 8000\) and target \(8000,\) differ"):
        figure(SINE[None], SINE)


def test_leading_axes_are_kept(pair):
    estimate, target = (x.view(2, 2, -1) for x in pair)
    for figure in (si_sdr, sdr):
        assert figure(estimate, target).flatten().tolist() == pytest.approx(figure(*pair).tolist())


def test_improvement_of_the_mixture_is_zero_and_of_a_cleaner_one_the_difference():
    mixture = SINE + COSINE  # 0 dB
    assert float(improvement(mixture, SINE, mixture)) == 0
    assert float(improvement(SINE + 0.1 * COSINE, SINE, mixture)) == pytest.approx(20, abs=1e-2)
    assert float(improvement(COSINE, SINE, mixture)) < -60


def test_error_relative_to_the_mixture():
    mixture = SINE + COSINE
    assert float(error_db(SINE, SINE, mixture)) == pytest.approx(-30)  # the floor
    assert float(error_db(mixture, SINE, mixture)) == pytest.approx(10 * math.log10(0.5 + 1e-3), abs=1e-3)
    assert float(error_db(0 * SINE, 0 * SINE, mixture)) == pytest.approx(-30)  # silence, as asked
    assert float(error_db(mixture, 0 * SINE, mixture)) == pytest.approx(10 * math.log10(1 + 1e-3), abs=1e-3)
