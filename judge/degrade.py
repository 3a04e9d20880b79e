"""Known ways to spoil a true stem, each with a strength: what separators get wrong, one fault at a time.

Waveforms are float32 ``[T]`` tensors, levels in dB, times in seconds. Functions that draw take a numpy generator and
depend on it alone. ``target`` is the true stem, ``rest`` everything else in the mixture, so the mixture is their sum.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor

RAMP_SECONDS = 0.01  # of every switch, so that a gap is a gap and not a click


class Codec(Protocol):
    """What `codec_noise` needs; `peav.codec.DACVAE` is one."""

    def latents(self, waveform: Tensor) -> Tensor: ...
    def decode(self, latent: Tensor, length: int | None = None) -> Tensor: ...


def gain(db: float) -> float:
    """Decibels as a factor."""
    return float(10 ** (db / 20))


def leak(target: Tensor, rest: Tensor, db: float) -> Tensor:
    """The rest comes through, ``db`` dB relative to its level in the mixture."""
    return target + gain(db) * rest


def suppress(x: Tensor, db: float) -> Tensor:
    """Everything lower by ``db`` dB."""
    return gain(-db) * x


def suppress_stretch(x: Tensor, start: float, seconds: float, db: float, sample_rate: int) -> Tensor:
    """A stretch of time lower by ``db`` dB; from some 60 dB on, a gap."""
    inside = torch.zeros(len(x))
    inside[max(0, round(start * sample_rate)) : max(0, round((start + seconds) * sample_rate))] = 1
    width = max(1, round(RAMP_SECONDS * sample_rate))
    inside = F_.avg_pool1d(inside[None, None], 2 * width + 1, 1, width, count_include_pad=False)[0, 0, : len(x)]
    return x * (1 - inside * (1 - gain(-db)))


def suppress_band(x: Tensor, low: float, high: float, db: float, sample_rate: int) -> Tensor:
    """The band between ``low`` and ``high`` Hz lower by ``db`` dB, with slopes of a sixth of an octave."""
    octaves = torch.fft.rfftfreq(len(x), 1 / sample_rate).clamp_min(1.0).log2()
    rise = (octaves - np.log2(max(low, 1.0))) * 6 + 0.5
    fall = (np.log2(max(high, 1.0)) - octaves) * 6 + 0.5
    inside = torch.minimum(rise, fall).clamp(0, 1)
    return _filtered(x, 1 - inside * (1 - gain(-db)))


def equalise(x: Tensor, rng: np.random.Generator, depth_db: float, sample_rate: int) -> Tensor:
    """A smooth random gain curve within ``depth_db`` dB either way."""
    octaves = torch.fft.rfftfreq(len(x), 1 / sample_rate).clamp_min(20.0).div(20.0).log2().numpy()
    knots = np.linspace(0, np.log2(sample_rate / 40.0), 8)
    curve = np.interp(octaves, knots, rng.uniform(-depth_db, depth_db, len(knots)))
    return _filtered(x, torch.from_numpy(10 ** (curve / 20)).to(x))


def codec_noise(x: Tensor, codec: Codec, rng: np.random.Generator, snr_db: float) -> Tensor:
    """Through the codec with noise on the latent, ``snr_db`` dB below each channel's envelope.

    Noise that follows the signal in time and frequency is what lossy coding and generation leave behind.
    """
    with torch.inference_mode():
        latent = codec.latents(x[None, None])
        envelope = F_.avg_pool1d(latent.square(), 5, 1, 2, count_include_pad=False).sqrt()
        noise = torch.from_numpy(rng.standard_normal(latent.shape, dtype=np.float32))
        return codec.decode(latent + gain(-snr_db) * envelope * noise, length=len(x))[0, 0].clone()


def musical_noise(x: Tensor, rng: np.random.Generator, share: float, db: float, window: int) -> Tensor:
    """``share`` of the time-frequency bins, drawn one by one, are lower by ``db`` dB: warbling leftovers of a mask that
    cannot make up its mind."""
    spectrum = _stft(x, window)
    hit = torch.from_numpy(rng.random(spectrum.shape, dtype=np.float32)) < share
    return _istft(torch.where(hit, gain(-db) * spectrum, spectrum), window, len(x))


def gaps(x: Tensor, rng: np.random.Generator, count: int, seconds: float, sample_rate: int) -> Tensor:
    """``count`` drop-outs of ``seconds`` each."""
    for start in rng.uniform(0, max(len(x) / sample_rate - seconds, 0), count):
        x = suppress_stretch(x, float(start), seconds, 80.0, sample_rate)
    return x


def clip(x: Tensor, db: float) -> Tensor:
    """Cut off ``db`` dB below the peak."""
    limit = float(x.abs().max()) * gain(-db)
    return x.clamp(-limit, limit)


def noise(x: Tensor, rng: np.random.Generator, snr_db: float) -> Tensor:
    """White noise ``snr_db`` dB below."""
    n = torch.from_numpy(rng.standard_normal(len(x), dtype=np.float32))
    return x + gain(-snr_db) * x.square().mean().sqrt() * n


def wrong_mask(target: Tensor, rest: Tensor, rng: np.random.Generator, error: float, bias: float, window: int,
               coarse: tuple[int, int] = (1, 1)) -> Tensor:
    """The mixture through a ratio mask that errs: the Wiener mask's log-odds plus noise.

    Args:
        error: spread of the noise on the log-odds (natural units), constant over patches of ``coarse`` (bins, frames).
        bias: added to the log-odds; above 0 generous, below 0 strict.
        window: samples of the STFT.
    """
    S, N = _stft(target, window), _stft(rest, window)
    odds = (S.abs().square() + 1e-9).log() - (N.abs().square() + 1e-9).log()
    rows, columns = (-(-size // step) for size, step in zip(odds.shape, coarse, strict=True))
    patches = torch.from_numpy(rng.standard_normal((1, 1, rows, columns), dtype=np.float32))
    wrong = F_.interpolate(patches, size=odds.shape, mode="bilinear")[0, 0]
    return _istft((S + N) * torch.sigmoid(odds + error * wrong + bias), window, len(target))


def _filtered(x: Tensor, response: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x) * response.to(x), len(x))


def _stft(x: Tensor, window: int) -> Tensor:
    return torch.stft(x, window, window // 4, window=torch.hann_window(window), center=True, pad_mode="constant",
                      return_complex=True)


def _istft(spectrum: Tensor, window: int, length: int) -> Tensor:
    return torch.istft(spectrum, window, window // 4, window=torch.hann_window(window), center=True, length=length)
