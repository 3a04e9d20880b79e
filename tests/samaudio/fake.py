"""A model whose answers are known: "low" is everything below 1 kHz, "high" everything above.

It has the interface of `samaudio.model.MaskModel`, and its latent is the waveform itself, one hop per frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samaudio.model import Split
from samaudio.prompts import Prompt, Span, Text

RATE = 16_000
HOP = 160
CROSSOVER = 1_000.0  # Hz
LEAKS = (
    0.2,
    0.0,
    0.5,
)  # how much of the other half (amplitude) each hypothesis lets through: the second is best
CONFIDENCE = (0.3, 0.5, 0.2)
LOW, HIGH, OTHER = (torch.eye(3)[i] for i in range(3))


@dataclass
class FakeModel:
    scale: float = 1.0  # of the estimates, which must not matter
    confidence: tuple[float, ...] = CONFIDENCE
    noise: float = 0.0  # random part of the estimates
    encoded: list[int] = field(default_factory=list)  # lengths of the mixtures given to `encode`

    sample_rate = RATE
    frame_rate = RATE / HOP
    hypotheses = 3
    presence_threshold = 0.5
    device = torch.device("cpu")

    def query(self, prompts: Sequence[Prompt], sight=None, offset: float = 0.0) -> Tensor:
        words = [p.text for p in prompts if isinstance(p, Text)]
        if not words:
            return torch.full((3,), math.nan)
        return {"low": LOW, "high": HIGH}.get(words[0], OTHER)

    def anchors(self, prompts: Sequence[Prompt], start: float, frames: int) -> Tensor | None:
        spans = [p for p in prompts if isinstance(p, Span)]
        if not spans:
            return None
        middle = start + (torch.arange(frames) + 0.5) / self.frame_rate
        inside = torch.zeros(frames, dtype=torch.bool)
        for span in spans:
            inside |= (middle >= span.start) & (middle < span.end)
        return inside

    def encode(self, mixture: Tensor) -> Tensor:
        self.encoded.append(mixture.shape[-1])
        padded = torch.nn.functional.pad(mixture, (0, -mixture.shape[-1] % HOP))
        return padded.unflatten(-1, (-1, HOP)).transpose(1, 2)

    def split(self, heard: Tensor, latent: Tensor, query: Tensor, anchors: Tensor | None, hypotheses=None,
              start: float = 0.0) -> Split:
        mixture = latent.transpose(1, 2).flatten(1)
        low, high = _bands(mixture)
        nothing = torch.zeros_like(mixture)
        wanted, other = nothing, mixture
        if bool(query.isnan().any()):
            wanted, other = mixture, nothing
        elif query.equal(LOW):
            wanted, other = low, high
        elif query.equal(HIGH):
            wanted, other = high, low
        if anchors is not None:
            inside = anchors.repeat_interleave(HOP).to(mixture)
            wanted, other = wanted * inside, other + wanted * (1 - inside)
        targets = torch.stack([wanted + leak * other for leak in LEAKS])
        if wanted is nothing:
            targets = targets * 1e-4
        targets = targets + self.noise * torch.randn(targets.shape)
        level = wanted.abs().amax(0).unflatten(-1, (-1, HOP)).amax(-1)
        active = level > 0.02 * mixture.abs().max()
        present = bool(active.any())
        return Split(
            self.scale * targets[..., : heard.shape[-1]],
            self.scale * (mixture - targets)[..., : heard.shape[-1]],
            torch.where(active, 0.95, 0.05),
            0.98 if present else 0.02,
            torch.tensor(self.confidence),
        )

    def similarity(self, query: Tensor, waveform: Tensor) -> float:
        """Share of the energy that is in the right half."""
        if bool(query.isnan().any()) or float(waveform.abs().max()) < 1e-6:
            return math.nan
        low, high = (float(band.square().sum()) for band in _bands(waveform))
        return {0: low, 1: high}.get(int(query.argmax()), 0.0) / (low + high)


def _bands(wave: Tensor) -> tuple[Tensor, Tensor]:
    spectrum = torch.fft.rfft(wave)
    below = torch.linspace(0, RATE / 2, spectrum.shape[-1]) < CROSSOVER
    low = torch.fft.irfft(spectrum * below, n=wave.shape[-1])
    return low, wave - low


def tone(frequency: float, seconds: float, rate: int, amplitude: float = 0.3) -> Tensor:
    """``[T]``"""
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * rate)) / rate)


def snr(estimate: Tensor, truth: Tensor) -> float:
    """dB, higher is better."""
    error = (estimate - truth).square().sum().clamp(min=1e-20)
    return float(10 * torch.log10(truth.square().sum() / error))
