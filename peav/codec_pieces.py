"""The codec's encoder on a CPU, without gradients: the same layers, run so that little memory is touched.

Axes: ``B`` batch, ``C`` channels, ``T`` steps in time.

At 48 kHz the first layers turn ten seconds into tensors of 123 MB, and half of the time went into the snakes, which
write several of them each. Here a block of the encoder runs over pieces of time that stay in the processor's cache, and
snakes and skips work in place. A piece is taken with as many steps to either side as its convolutions can see, so the
result is that of the whole to within the rounding of a convolution, and memory no longer holds the wide layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from peav.lapped import LappedStem

_AT_ONCE = 2**19  # numbers per piece and thread: 2 MB; twice and half as much were slower
_LEAST = 16  # pieces are at least so many times longer than what is computed twice at each end


def suits(x: Tensor) -> bool:
    """Whether this is the faster way: on a CPU, and nothing is to be differentiated."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def encode(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """What ``nn.Sequential(*layers)`` makes of ``x [B, 1, T]``; `layers` are those of `peav.codec.Encoder`."""
    stage: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, LappedStem):  # mirrors at the ends of the clip, which a piece does not have
            x = layer(x)
            continue
        stage.append(layer)
        if _stride(layer) > 1:
            x, stage = _in_pieces(stage, x), []
    return _in_pieces(stage, x)


def _in_pieces(stage: Sequence[nn.Module], x: Tensor) -> Tensor:
    """`stage`, of which only the last layer may stride, over ``x`` in pieces along time."""
    B, _, T = x.shape
    convs = [conv for layer in stage for conv in layer.modules() if isinstance(conv, nn.Conv1d)]
    stride = max([conv.stride[0] for conv in convs], default=1)
    reach = sum(conv.dilation[0] * (conv.kernel_size[0] - 1) for conv in convs)
    halo = -(-(reach // 2 + stride) // stride) * stride  # steps, whole output steps of them
    width = max([conv.in_channels for conv in convs], default=1)
    size = max(_AT_ONCE * torch.get_num_threads() // (B * width), _LEAST * halo) // stride * stride
    if size >= T or T % stride:
        return _run(stage, x, ours=False)
    out: Tensor | None = None
    for start in range(0, T, size):
        stop, first = min(start + size, T), max(0, start - halo)
        piece = _run(stage, x[..., first : min(stop + halo, T)], ours=False)
        if out is None:
            out = piece.new_empty(*piece.shape[:2], T // stride)
        before = (start - first) // stride
        out[..., start // stride : stop // stride] = piece[..., before : before + (stop - start) // stride]
    assert out is not None
    return out


def _run(layers: Iterable[nn.Module], x: Tensor, ours: bool) -> Tensor:
    """Layers in order; `ours` says that nobody else holds ``x``, so that it may be overwritten."""
    for layer in layers:
        inner = getattr(layer, "block", None)
        alpha = getattr(layer, "alpha", None)
        if alpha is not None:
            x = _snake(x, alpha, in_place=ours)
        elif inner is None:
            x = layer(x)
        elif _stride(layer) > 1:
            x = _run(inner, x, ours)
        else:  # a residual unit
            x = _run(inner, x, ours=False).add_(x)
        ours = True
    return x


def _stride(layer: nn.Module) -> int:
    return max((conv.stride[0] for conv in layer.modules() if isinstance(conv, nn.Conv1d)), default=1)


def _snake(x: Tensor, alpha: Tensor, in_place: bool) -> Tensor:
    """``x + sin(alpha x)^2 / alpha`` (Ziyin et al. 2020), as descript-audio-codec guards it against a zero."""
    wave = torch.mul(x, alpha).sin_().square_()
    return torch.addcmul(x, wave, (alpha + 1e-9).reciprocal(), out=x if in_place else wave)
