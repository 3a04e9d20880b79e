"""Change the sample rate of a waveform, whole or as a stream.

Both ways are one windowed-sinc filter. With t the distance between an output and an input sample, in zero
crossings of the sinc (one per period of `_ROLLOFF` times the lower rate), the weight of that input sample is

    h(t) = sinc(t) * kaiser(t / _ZERO_CROSSINGS) * _ROLLOFF * min(from, to) / from,    |t| <= _ZERO_CROSSINGS

Output n lies at input position n * from / to. For a ratio such as 147:160 only 160 different fractions of a
sample occur, so the weights are a small table and the filter is one strided convolution (torchaudio's
construction). For 44101:24000 the table would hold a billion numbers; there the weights are computed as they
are needed, exactly, because a nearby simpler ratio would drift by a third of a second per hour.
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
_WEIGHTS_AT_ONCE = 2**21  # without a table; bounds the memory


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
        self._pending: Tensor | None = None  # [..., samples], starting at input position `_origin`
        self._origin = -self._width  # the filter sees silence before the start
        self._received = 0  # input samples
        self._produced = 0  # output samples

    def push(self, block: Tensor) -> Tensor:
        """Take ``[..., T]`` and return all output samples that no later input can change, maybe none."""
        if self._from == self._to:
            return block
        if self._pending is None:
            self._pending = block.new_zeros(*block.shape[:-1], self._width)
        self._received += block.shape[-1]
        self._pending = torch.cat([self._pending, block], dim=-1)
        return self._advance(self._received)

    def flush(self) -> Tensor:
        """The remaining output, ``[..., T]``. The resampler is then ready for another waveform."""
        if self._from == self._to or self._pending is None:
            return torch.zeros(0) if self._pending is None else self._pending[..., :0]
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
        self._pending = self._pending[..., keep_from - self._origin :]
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
        offsets = torch.arange(taps, dtype=torch.float64) - self._width
        outs = []
        at_once = max(1, _WEIGHTS_AT_ONCE // taps)
        for start in range(self._produced, end, at_once):
            # Whole numbers, so that no position drifts however long the stream.
            n = torch.arange(start, min(end, start + at_once), dtype=torch.int64)
            whole = n * self._from // self._to
            fraction = (n * self._from % self._to).double() / self._to
            weights = _filter(offsets - fraction[:, None], self._from, self._to)
            chosen = windows[..., (whole - self._width - self._origin).to(pending.device), :]
            outs.append((chosen * weights.to(pending)).sum(dim=-1))
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
    )
    return module.kernel


def _filter(distance: Tensor, rate_from: int, rate_to: int) -> Tensor:
    """h at `distance` input samples, see the top of the file."""
    scale = min(rate_from, rate_to) * _ROLLOFF / rate_from
    t = distance * scale
    shape = torch.sqrt((1 - (t / _ZERO_CROSSINGS) ** 2).clamp(min=0))
    inside = (t.abs() <= _ZERO_CROSSINGS).to(t)
    kaiser = torch.i0(_KAISER_BETA * shape) / torch.i0(torch.tensor(_KAISER_BETA, dtype=t.dtype))
    return torch.sinc(t) * kaiser * inside * scale
