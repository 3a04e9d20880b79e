"""Change the sample rate of a waveform, whole or as a stream.

Both ways are one windowed-sinc filter. With t the distance between an output and an input sample, in zero
crossings of the sinc (one per period of `_ROLLOFF` times the lower rate), the weight of that input sample is

    h(t) = sinc(t) * kaiser(t / _ZERO_CROSSINGS) * _ROLLOFF * min(from, to) / from,    |t| <= _ZERO_CROSSINGS

Output n lies at input position n * from / to. For a ratio such as 147:160 only 160 different fractions of a
sample occur, so the weights are a small table and the filter is one strided convolution (torchaudio's
construction). For 44101:24000 that table would hold a billion numbers; there the weights come from a table of
evenly spaced fractions, between which they are interpolated. The positions stay exact: a nearby simpler ratio
would drift by a third of a second per hour.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torchaudio.transforms import Resample

_ZERO_CROSSINGS = 32  # on each side; passes up to about 0.9 of the lower Nyquist frequency
_ROLLOFF = 0.945  # puts the end of the transition at the lower Nyquist frequency
_KAISER_BETA = 8.6  # stop band near -90 dB
_LARGEST_TABLE = 2**22  # weights
_WEIGHTS_AT_ONCE = 2**20  # for the interpolated ones; bounds the memory
# Linear interpolation of h errs by at most its curvature, pi^2 / 3, times step^2 / 8: 1e-7 of its peak.
_FRACTIONS = 2048


def resample(waveform: Tensor, rate_from: int, rate_to: int) -> Tensor:
    """Resample ``[..., T]`` from `rate_from` to `rate_to` Hz.

    Returns:
        ``[..., ceil(T * rate_to / rate_from)]``; the waveform itself if the rates are equal. Differentiable,
        on the waveform's device and in its type.
    """
    resampler = StreamResampler(rate_from, rate_to)
    out = [resampler.push(waveform), resampler.flush()]
    return torch.cat(out, dim=-1) if out[1].shape[-1] else out[0]


class StreamResampler:
    """`resample` for a waveform that arrives in blocks.

    The blocks that `push` and `flush` return, put together, are what `resample` makes of the whole input.
    Holds about as many samples as the filter is long, whatever the length of the stream.
    """

    def __init__(self, rate_from: int, rate_to: int) -> None:
        for rate in (rate_from, rate_to):
            if rate != int(rate) or rate < 1:
                raise ValueError(f"sample rate {rate}; give a whole number of Hz above 0")
        common = math.gcd(int(rate_from), int(rate_to))
        self._from, self._to = int(rate_from) // common, int(rate_to) // common
        self._width = math.ceil(_ZERO_CROSSINGS * self._from / (min(self._from, self._to) * _ROLLOFF))
        self._tabled = self._to * (2 * self._width + self._from) <= _LARGEST_TABLE
        self._reset()

    def _reset(self) -> None:
        self._started = False
        self._pending: Tensor  # [..., samples] once started, from input position `_origin` on
        self._origin = -self._width  # the filter sees silence before the start
        self._received = 0  # input samples
        self._produced = 0  # output samples

    def push(self, block: Tensor) -> Tensor:
        """Take ``[..., T]`` and return all output samples that no later input can change, maybe none."""
        if self._from == self._to:
            self._started = True
            self._pending = block[..., :0]
            return block
        if not self._started:
            self._started = True
            self._pending = block.new_zeros(*block.shape[:-1], self._width)
        self._received += block.shape[-1]
        self._pending = torch.cat([self._pending, block], dim=-1)
        return self._advance(self._received)

    def flush(self) -> Tensor:
        """The remaining output, ``[..., T]``. The resampler is then ready for another waveform."""
        if not self._started:
            return torch.zeros(0)  # nothing came, so not even the number of channels is known
        if self._from == self._to:
            self._started = False
            return self._pending
        total = -(-self._received * self._to // self._from)
        silence = self._pending.new_zeros(*self._pending.shape[:-1], 2 * self._width + self._from)
        self._pending = torch.cat([self._pending, silence], dim=-1)
        out = self._advance(self._received + silence.shape[-1])[..., : total - self._produced_before]
        self._reset()
        return out

    def _advance(self, available: int) -> Tensor:
        """Every output whose filter ends before input position `available`; forgets what is used up."""
        self._produced_before = self._produced
        if self._tabled:
            out = self._by_table(available)
        else:
            out = self._by_position(available)
        self._produced += out.shape[-1]
        # What the next output needs starts `width` before its position.
        keep_from = self._produced * self._from // self._to - self._width
        self._pending = self._pending[..., keep_from - self._origin :].clone()  # lets go of the block
        self._origin = keep_from
        return out

    def _by_table(self, available: int) -> Tensor:
        # One step of the convolution turns `from` input samples into `to` output samples.
        pending = self._pending
        steps = max(0, (available - self._width - self._produced * self._from // self._to) // self._from)
        length = (steps - 1) * self._from + 2 * self._width + self._from
        if steps == 0:
            return pending[..., :0]
        kernel = _table(self._from, self._to).to(pending)
        flat = pending[..., :length].reshape(-1, 1, length)
        out = nn.functional.conv1d(flat, kernel, stride=self._from)
        return out.transpose(1, 2).reshape(*pending.shape[:-1], steps * self._to)

    def _by_position(self, available: int) -> Tensor:
        pending = self._pending
        # The last output n with floor(n * from / to) + width < available.
        end = max(self._produced, -(-(available - self._width) * self._to // self._from))
        if end == self._produced:
            return pending[..., :0]
        taps = 2 * self._width + 1
        windows = pending.unfold(-1, taps, 1)
        rows = _rows(self._from, self._to).to(pending)
        outs = []
        at_once = max(1, _WEIGHTS_AT_ONCE // taps)
        for start in range(self._produced, end, at_once):
            # Whole numbers, so that no position drifts however long the stream.
            n = torch.arange(start, min(end, start + at_once), dtype=torch.int64)
            whole = n * self._from // self._to
            # The fraction of a sample in `_FRACTIONS`: a row, and how far it is to the next one.
            scaled = n * self._from % self._to * _FRACTIONS
            row = (scaled // self._to).to(pending.device)
            beyond = ((scaled % self._to).double() / self._to).to(pending)
            weights = torch.lerp(rows[row], rows[row + 1], beyond[:, None])
            chosen = windows[..., (whole - self._width - self._origin).to(pending.device), :]
            outs.append(torch.einsum("...nk,nk->...n", chosen, weights))
        return torch.cat(outs, dim=-1)


@lru_cache(maxsize=16)
def _table(rate_from: int, rate_to: int) -> Tensor:
    """``[to, 1, 2 * width + from]`` weights, made by torchaudio."""
    module = Resample(
        rate_from,
        rate_to,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=_ZERO_CROSSINGS,
        rolloff=_ROLLOFF,
        beta=_KAISER_BETA,
        dtype=torch.float64,  # in single precision its fractions of a sample are off by up to 1e-4 crossings
    )
    return module.kernel.float()


@lru_cache(maxsize=4)
def _rows(rate_from: int, rate_to: int) -> Tensor:
    """``[_FRACTIONS + 1, 2 * width + 1]``: h around outputs lying a fraction of a sample after an input."""
    scale = min(rate_from, rate_to) * _ROLLOFF / rate_from
    width = math.ceil(_ZERO_CROSSINGS / scale)
    fractions = torch.arange(_FRACTIONS + 1, dtype=torch.float64) / _FRACTIONS
    t = (torch.arange(-width, width + 1) - fractions[:, None]) * scale
    shape = torch.sqrt((1 - (t / _ZERO_CROSSINGS) ** 2).clamp(min=0))
    kaiser = torch.i0(_KAISER_BETA * shape) / torch.i0(torch.tensor(_KAISER_BETA, dtype=t.dtype))
    inside = t.abs() <= _ZERO_CROSSINGS
    return (torch.sinc(t) * kaiser * inside * scale).float()
