"""Strided first and last layer of a codec, and an initialisation that makes the codec a lapped transform.

A codec whose first layer is a learned transform of 2N samples every N starts from something that already
works: with the weights of an MDCT, analysis followed by its own transpose is the identity, so training begins
at perfect reconstruction and only has to learn what to throw away.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from peav.codec import DACVAE


def mdct_basis(size: int) -> Tensor:
    """Orthonormal MDCT with a sine window, ``[size, 2 * size]``, row k is band k from low to high frequency.

    Frames of ``2 * size`` samples taken every ``size`` samples and multiplied by this matrix, then by its
    transpose and overlap-added, give the signal back (time-domain alias cancellation).
    """
    n = torch.arange(2 * size, dtype=torch.float64)
    k = torch.arange(size, dtype=torch.float64)
    window = torch.sin(math.pi / (2 * size) * (n + 0.5))
    phase = math.pi / size * (n + 0.5 + size / 2)[None, :] * (k + 0.5)[:, None]
    return (math.sqrt(2 / size) * window * torch.cos(phase)).float()


class LappedStem(nn.Conv1d):
    """Strided convolution ``[B, 1, F * stride] -> [B, channels, F]`` with frame f centred on its own hop.

    Frame f also reads ``(kernel - stride) / 2`` samples to either side of ``[f * stride, (f + 1) * stride)``.
    At the two ends of the clip those samples do not exist and are mirrored. An MDCT frame folds its left
    flank back with a minus sign and its right flank with a plus sign, so what comes out at the left end is
    ``w * (w * x - v * pad)``, with w the window inside and v its mirror image outside. It equals x for
    ``pad = -(v / w) * mirror(x)``, and likewise with a plus on the right: with these mirrors the transform is
    exact up to the edges although there are only F frames. v / w falls from 1 at the edge to 0.
    """

    taper: Tensor  # v / w, [flank]

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(1, channels, kernel, stride=stride)
        self.flank = (kernel - stride) // 2  # samples
        n = torch.arange(self.flank, dtype=torch.float64)
        angle = math.pi / (4 * max(self.flank, 1)) * (n + self.flank + 0.5)
        self.register_buffer("taper", (torch.cos(angle) / torch.sin(angle)).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.flank:
            taper = self.taper.to(x.dtype)
            left = -(taper * x[..., : self.flank]).flip(-1)
            right = taper.flip(-1) * x[..., -self.flank :]
            x = torch.cat([left, x, right.flip(-1)], dim=-1)
        return super().forward(x)


class LappedHead(nn.ConvTranspose1d):
    """Mirror image of `LappedStem`: ``[B, channels, F] -> [B, 1, F * stride]``."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(channels, 1, kernel, stride=stride, padding=(kernel - stride) // 2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        kernel, stride, flank = self.kernel_size[0], self.stride[0], (self.kernel_size[0] - self.stride[0]) // 2
        if kernel != 2 * stride:
            return super().forward(x, output_size)
        # The same sum as one matrix product and one addition of neighbouring halves: several times faster on a
        # CPU than the general transposed convolution, most of all in bfloat16.
        frames = x.transpose(1, 2) @ self.weight[:, 0]
        first, second = frames.split(stride, dim=-1)
        y = nn.functional.pad(first, (0, 0, 0, 1)) + nn.functional.pad(second, (0, 0, 1, 0))
        y = y.flatten(1)[:, None, flank : flank + x.shape[-1] * stride]
        return y if self.bias is None else y + self.bias[:, None]


@torch.no_grad()
def lapped_init_(codec: DACVAE, *, std: float = 0.05, gain: float = 1.0, alpha: float = 1e-4) -> DACVAE:
    """Set the weights of a `DACVAE` so that it is an MDCT followed by its inverse, and return it.

    The latent mean is the first D of N bands times `gain`; with D = N the reconstruction is exact over the
    whole clip but for the snakes, with D < N it is the low-passed clip. Residual units keep their ordinary
    weights behind a last convolution of zeros, so they add nothing yet and learn from the first step.

    Args:
        codec: needs ``stem_kernel == 2 * stem_stride``, no rates, all widths stem_stride and no tanh.
        std: standard deviation of the posterior, the same for every channel, in units of the latent.
        gain: latent units per unit of MDCT coefficient. Coefficients of a waveform have the waveform's RMS
            (about 0.1), so a gain of 10 or so gives latents of unit size.
        alpha: of the two snakes on the trunk. A snake adds about alpha * x^2, so x = 10 (a full-scale tone)
            is off by 0.1 % for 1e-4.

    Raises:
        ValueError: the sizes do not allow it, or `std` is below the floor of the posterior (1e-4).
    """
    config = codec.config
    size = config.stem_stride
    wanted = {
        "stem_kernel": 2 * size,
        "encoder_dim": size,
        "latent_dim": size,
        "decoder_dim": size,
        "encoder_rates": (),
        "final_tanh": False,
    }
    found = {name: getattr(config, name) for name in wanted}
    wrong = [f"{k}={found[k]!r} (needs {v!r})" for k, v in wanted.items() if found[k] != v]
    if size < 2 or size % 2:
        wrong.append(f"stem_stride={size} (needs an even number, 2 or more)")
    if config.codebook_dim > size:
        wrong.append(f"codebook_dim={config.codebook_dim} (at most {size})")
    if wrong:
        raise ValueError(f"a lapped initialisation does not fit this codec: {', '.join(wrong)}")
    if not std > 1e-4 or not gain > 0:
        raise ValueError(f"std={std} must be above 1e-4, gain={gain} above 0")

    encoder: Any = codec.encoder.block  # torch types the members of a Sequential too loosely to use
    decoder: Any = codec.decoder
    basis = mdct_basis(size)[:, None, :]
    for layer in (encoder[0], decoder.head):
        layer.weight.copy_(basis)
        layer.bias.zero_()
    for conv in (encoder[-1], decoder.trunk[0]):
        _delta_(conv)
    for snake in (encoder[-2], decoder.snake):
        snake.alpha.fill_(alpha)
    for unit in (*encoder[1:-2], *decoder.trunk[1:]):
        unit.block[-1].weight.zero_()
        unit.block[-1].bias.zero_()

    bands = config.codebook_dim
    in_proj: Any = codec.in_proj
    _delta_(in_proj)
    in_proj.weight[:bands].mul_(gain)
    in_proj.weight[bands:].zero_()
    in_proj.bias[bands:].fill_(math.log(math.expm1(std - 1e-4)))  # inverse of softplus(scale) + 1e-4
    _delta_(codec.out_proj)
    codec.out_proj.weight.div_(gain)
    return codec


def _delta_(conv: Any) -> None:
    """Copy channel i to channel i as far as both exist, zero elsewhere."""
    conv.weight.zero_()
    conv.bias.zero_()
    i = torch.arange(min(conv.weight.shape[:2]))
    conv.weight[i, i, conv.kernel_size[0] // 2] = 1.0
