"""What the separator learns from, against the same thing in plain torch, where autograd finds the way back."""

from __future__ import annotations

import pytest
import torch

from samaudio.cut_loss import cut_scores, stem_error
from samaudio.project import power_ratio, project, squared, stft, window_length


def plain(decoded, mixture, target, window):
    X = stft(mixture, window).repeat_interleave(len(target) // len(mixture), 0)
    S, E = stft(target, window), stft(decoded, window)
    mask = power_ratio(E, X - E)
    return (mask.square() * squared(X)).sum((1, 2)), (mask * (X * S.conj()).real).sum((1, 2)), *(
        squared(spectrum).sum((1, 2)) for spectrum in (X, S))


def sounds(T: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Estimates ``[4, T]``, mixtures ``[2, T]`` of a low and a high sound, and targets: both of the first mixture, the
    low one of the second, and silence."""
    generator = torch.Generator().manual_seed(T)
    noise = 0.2 * torch.randn(2, 2, T, generator=generator)
    spectrum = torch.fft.rfft(noise)
    split = spectrum.shape[-1] // 3
    spectrum[:, 0, split:], spectrum[:, 1, :split] = 0, 0
    stems = torch.fft.irfft(spectrum, T)
    target = torch.stack((stems[0, 0], stems[0, 1], stems[1, 0], torch.zeros(T)))
    return target + 0.02 * torch.randn(4, T, generator=generator), stems.sum(1), target


@pytest.mark.parametrize("T", [8_000, 5_003, 300])
def test_scores_and_gradient_are_those_of_autograd(T):
    window = torch.hann_window(window_length(8_000), dtype=torch.float64)
    decoded, mixture, target = (x.double() for x in sounds(T))
    found = {}
    for name, scores in (("plain", plain), ("ours", cut_scores)):
        leaf = decoded.clone().requires_grad_()
        numbers = scores(leaf, mixture, target, window)
        stem_error(*numbers).sum().backward()
        found[name] = (*numbers, leaf.grad)
    for ours, theirs in zip(found["ours"], found["plain"], strict=True):
        ours, theirs = ours.detach(), theirs.detach()
        assert float((ours - theirs).abs().max()) < 1e-9 * float(theirs.abs().max())
    assert float(found["ours"][-1].abs().amax(1).min()) > 0


def test_the_scores_are_the_error_of_the_stem_that_is_cut():
    window = torch.hann_window(window_length(8_000))
    decoded, mixture, target = sounds(8_000)
    energy, along, power, constant = cut_scores(decoded, mixture, target, window)
    assert not energy.requires_grad
    both = mixture.repeat_interleave(2, 0)
    stem = project(both, decoded, both - decoded, window)
    error = (energy - 2 * along + constant) / power
    # Bins that do not fit together count in the spectrogram, and cancel in time.
    in_time = (stem - target).square().sum(1) / both.square().sum(1)
    assert (in_time < error).all() and (in_time > 0.3 * error).all()


def test_the_mixture_itself_is_no_bargain_and_the_truth_costs_least():
    window = torch.hann_window(window_length(8_000))
    _, mixture, target = sounds(8_000)
    both = mixture.repeat_interleave(2, 0)
    truth, everything, nothing = (
        stem_error(*cut_scores(guess, mixture, target, window)) for guess in (target, both, 1e-4 * both))
    assert (truth[:3] < everything[:3] - 3).all() and (truth[:3] < nothing[:3] - 3).all()
    assert float(nothing[3]) < float(everything[3]) - 10
