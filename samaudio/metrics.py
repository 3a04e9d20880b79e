"""How close an estimate is to the true stem. Waveforms are ``[..., T]``; higher is better; dB."""

from __future__ import annotations

from torch import Tensor


def si_sdr(estimate: Tensor, target: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., arXiv 1811.02508), ``[...]`` in dB.

    The mean is not removed (it belongs to the signal). A silent estimate gives ``10 log10(eps)`` = -80 dB; a
    silent target is refused, because nothing can be said of it.

    Raises:
        ValueError: shapes differ or a target is silent.
    """
    if estimate.shape != target.shape:
        raise ValueError(f"estimate {tuple(estimate.shape)} and target {tuple(target.shape)} differ in shape")
    energy = target.square().sum(-1, keepdim=True)
    if bool((energy == 0).any()):
        raise ValueError("SI-SDR of a silent target is undefined; measure the output's level instead")
    projection = (estimate * target).sum(-1, keepdim=True) / energy * target
    error = (estimate - projection).square().sum(-1)
    wanted = projection.square().sum(-1)
    # In proportion to the estimate, or a quiet one would score less; the rest keeps silence from being 0 / 0.
    floor = eps * estimate.square().sum(-1) + 1e-12 * energy[..., 0]
    return 10 * ((wanted + eps * floor) / (error + floor)).log10()


def sdr(estimate: Tensor, target: Tensor, eps: float = 1e-8) -> Tensor:
    """Plain signal-to-distortion ratio ``10 log10(|s|^2 / |s - e|^2)``, ``[...]`` in dB: scale matters."""
    if estimate.shape != target.shape:
        raise ValueError(f"estimate {tuple(estimate.shape)} and target {tuple(target.shape)} differ in shape")
    energy = target.square().sum(-1)
    return 10 * ((energy + 1e-12) / ((target - estimate).square().sum(-1) + eps * energy + 1e-12)).log10()


def improvement(estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """SI-SDRi: SI-SDR of the estimate minus that of the unprocessed mixture, ``[...]`` in dB."""
    return si_sdr(estimate, target) - si_sdr(mixture, target)


def error_db(estimate: Tensor, target: Tensor, mixture: Tensor, floor_db: float = -30.0) -> Tensor:
    """Training loss ``[...]``: energy of the error relative to the mixture, in dB, with a soft floor.

    Same gradient direction as the negative SDR, but it is defined for a silent target too, where it asks for
    silence; the floor stops good items from dominating a batch.
    """
    energy = mixture.square().sum(-1).clamp_min(1e-8)
    return 10 * ((estimate - target).square().sum(-1) / energy + 10 ** (floor_db / 10)).log10()
