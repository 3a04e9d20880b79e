"""How good a stem is that a mask cuts out of a mixture, as numbers that gradients go through.

What the separator is trained by is the stem that `samaudio.project` cuts, not what the codec decodes. Its error needs
two numbers of the mask alone: its energy on the mixture, and how much of it lies along the target. Written in plain
torch, the way back through the spectra takes a third of a training step on a CPU: a dozen passes over complex arrays,
and a complex transform twice as long as needed. Here the derivative is written down, one item after the other, so
that everything stays in the cache.

With the estimate's spectrum ``E``, the mixture's ``X``, ``a = |E|^2``, ``r = |X - E|^2`` and the mask
``m = a / (a + r)``, the derivative of ``m`` along ``E`` is ``2 (r E + a (X - E)) / (a + r)^2``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .project import FLOOR, squared, stft


def cut_scores(
    decoded: Tensor, mixture: Tensor, target: Tensor, window: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``energy, along, power, constant``, each ``[Q]``, sums over all bins of the spectrogram.

    ``energy`` is that of the cut stem ``m X``, ``along`` its product with the target's spectrum ``Re(m X S*)``,
    ``power`` the mixture's energy and ``constant`` the target's. The error of the stem is
    ``energy - 2 along + constant``. Gradients go to ``decoded`` alone.

    Args:
        decoded: estimates of the target ``[Q, T]``; what is missing to the mixture counts as residual.
        mixture: ``[M, T]``; question ``q`` is about mixture ``q // (Q / M)``.
        target: ``[Q, T]``.
        window: of the analysis, as of `samaudio.project.stft`.
    """
    return _CutScores.apply(decoded, mixture, target, window)


def stem_error(energy: Tensor, along: Tensor, power: Tensor, constant: Tensor) -> Tensor:
    """Loss of every cut stem ``[Q]`` in dB, lower is better, from what `cut_scores` returns.

    Where the target sounds, seven tenths scale-invariant distortion and three tenths plain error against the mixture.
    """
    floor = power.clamp_min(1e-8)
    error = (energy - 2 * along + constant).clamp_min(0)
    explained = along.clamp_min(0).square() / constant.clamp_min(1e-8)
    ratio = (explained + 1e-3 * constant) / ((energy - explained).clamp_min(0) + 1e-3 * constant + 1e-8)
    # A silent guess costs a present target its whole score, whatever its level; and silence earns only so much where
    # nothing is to be heard. With a plain error in dB, saying nothing at all is the first thing that is learned.
    silence = 10 * (error / floor + 0.05).log10()
    heard = 3 * (error / floor + 1e-3).log10() - 7 * ratio.clamp_min(1e-6).log10()
    return torch.where(constant <= 1e-8, silence, heard)


class _CutScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, decoded: Tensor, mixture: Tensor, target: Tensor, window: Tensor):
        Q, each = len(decoded), len(decoded) // len(mixture)
        X, S, E = (stft(x.detach(), window) for x in (mixture, target, decoded))
        power, constant = squared(X).sum((1, 2)).repeat_interleave(each), squared(S).sum((1, 2))
        energy, along = torch.empty_like(power), torch.empty_like(power)
        slopes = []
        # On a GPU all at once; there, launching costs more than memory.
        step = 1 if decoded.device.type == "cpu" else Q
        for q in range(0, Q, step):
            now = slice(q, q + step)
            x = X[q // each: q // each + 1] if step == 1 else X.repeat_interleave(each, 0)
            e, rest = E[now], x - E[now]
            a, r = squared(e).add_(FLOOR), squared(rest).add_(FLOOR)
            share = (a + r).reciprocal_()
            m = a * share
            P, C = squared(x), x.real * S[now].real + x.imag * S[now].imag
            weighed = m * P
            energy[now], along[now] = (weighed * m).sum((1, 2)), (m * C).sum((1, 2))
            if ctx.needs_input_grad[0]:
                share.square_().mul_(2)
                slopes.append((weighed.mul_(2), C, (e * r).add_(rest * a).mul_(share)))
        ctx.slopes, ctx.length = slopes, decoded.shape[-1]
        ctx.save_for_backward(window)
        ctx.mark_non_differentiable(power, constant)
        return energy, along, power, constant

    @staticmethod
    def backward(ctx, by_energy: Tensor, by_along: Tensor, *_):  # type: ignore[override]
        (window,) = ctx.saved_tensors
        waves, q = [], 0
        for weighed, C, slope in ctx.slopes:
            now = slice(q, q + len(C))
            q += len(C)
            by_mask = by_energy[now, None, None] * weighed + by_along[now, None, None] * C
            waves.append(_adjoint(slope * by_mask, window, ctx.length))
        return torch.cat(waves), None, None, None


def _adjoint(gradient: Tensor, window: Tensor, length: int) -> Tensor:
    """Of `samaudio.project.stft`: gradients ``[Q, bins, frames]`` by real and imaginary part, to ``[Q, length]``."""
    n, (Q, _, frames) = len(window), gradient.shape
    half = gradient.transpose(1, 2).contiguous()
    half[..., 1:-1] /= 2  # the inverse transform counts these bins twice, once for the half that is not written down
    pieces = (torch.fft.irfft(half, n, norm="forward") * window).view(Q, frames, 4, n // 4)
    wave = pieces.new_zeros(Q, frames + 3, n // 4)
    for i in range(4):
        wave[:, i: i + frames] += pieces[:, :, i]
    return wave.flatten(1)[:, n // 2: n // 2 + length]
