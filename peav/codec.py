"""DAC-VAE: waveform to a continuous latent and back.

Axes: ``B`` batch, ``T`` samples, ``F`` latent frames (``ceil(T / hop)``), ``D`` latent channels.

The published codec and our small one are the same classes with other sizes. `DACEncoder` is the half that
turns sound into latents, all that an embedder or a judge needs; `DACVAE` adds the posterior and the decoder.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peav import codec_files, codec_keys, codec_pieces
from peav.lapped import LappedHead, LappedStem, lapped_init_
from peav.watermark import Watermark, WatermarkConfig

__all__ = [
    "CodecConfig",
    "DACEncoder",
    "DACVAE",
    "Posterior",
    "Reconstruction",
    "WatermarkConfig",
    "lapped_init_",
    "pad_to_hop",
]


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of a codec. The defaults are those of the published 48 kHz codec without its watermark."""

    sample_rate: int = 48_000  # Hz
    stem_kernel: int = 7  # samples seen by the first and by the last layer
    stem_stride: int = 1  # above 1 the first layer is a lapped transform, see `peav.lapped`
    stem_units: tuple[int, ...] = ()  # dilations of residual units next to the first and last layer
    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (2, 8, 10, 12)  # each divides time by itself and doubles the width
    latent_dim: int = 1024  # width around the bottleneck
    codebook_dim: int = 128  # D, channels of the latent
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (12, 10, 8, 2)
    final_tanh: bool = True  # False leaves the codec able to be exactly linear
    watermark: WatermarkConfig | None = None

    def __post_init__(self) -> None:
        for name in ("sample_rate", "stem_kernel", "stem_stride", "encoder_dim", "latent_dim", "codebook_dim",
                     "decoder_dim"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        for name in ("encoder_rates", "decoder_rates"):
            # A kernel of 2s with padding ceil(s / 2) yields one frame too many for s = 1.
            if any(rate < 2 for rate in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} must all be 2 or more")
        if any(d < 1 for d in self.stem_units):
            raise ValueError(f"stem_units={self.stem_units} are dilations, each 1 or more")
        down, up = math.prod(self.encoder_rates), math.prod(self.decoder_rates)
        if down != up:
            raise ValueError(
                f"encoder_rates={self.encoder_rates} divide time by {down}, "
                f"decoder_rates={self.decoder_rates} multiply it by {up}; the products must agree"
            )
        if self.decoder_dim % 2 ** len(self.decoder_rates):
            raise ValueError(
                f"decoder_dim={self.decoder_dim} is halved {len(self.decoder_rates)} times and must be a "
                f"multiple of {2 ** len(self.decoder_rates)}"
            )
        if self.stem_stride == 1 and self.stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel={self.stem_kernel} must be odd when stem_stride=1")
        if self.stem_stride > 1:
            flanks = self.stem_kernel - self.stem_stride
            if flanks % 2 or not 0 <= flanks <= 2 * self.stem_stride:
                raise ValueError(
                    f"stem_kernel={self.stem_kernel} must exceed stem_stride={self.stem_stride} by an even "
                    f"number of samples from 0 to {2 * self.stem_stride}, so that frames are centred on hops"
                )

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return self.stem_stride * math.prod(self.encoder_rates)

    @property
    def frame_rate(self) -> float:
        """Latent frames per second."""
        return self.sample_rate / self.hop_length

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()} | {
            "watermark": self.watermark and self.watermark.to_dict()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CodecConfig:
        """Inverse of `to_dict`. Unknown names are refused."""
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(f"unknown codec settings {unknown}; known: {sorted(names)}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if values.get("watermark"):
            values["watermark"] = WatermarkConfig.from_dict(values["watermark"])
        return cls(**values)


@dataclass
class Posterior:
    """Gaussian over latents, one per frame and channel."""

    mean: Tensor  # [B, D, F]
    scale: Tensor  # [B, D, F], before the softplus

    @property
    def std(self) -> Tensor:
        """Standard deviation ``[B, D, F]``; the floor keeps its logarithm finite."""
        return F.softplus(self.scale) + 1e-4

    def sample(self, generator: torch.Generator | None = None, *, eps: Tensor | None = None) -> Tensor:
        """Latents ``[B, D, F]`` drawn from the posterior, with the standard normal `eps` if it is given.

        Noise comes from the generator's own device and is then moved, so that a CPU generator gives the same
        latents everywhere.
        """
        if eps is None:
            device = self.mean.device if generator is None else generator.device
            eps = torch.randn(self.mean.shape, generator=generator, device=device)
        return self.mean + self.std * eps.to(self.mean)

    def kl(self) -> Tensor:
        """Twice the divergence from a standard normal, in nats: sum over channels, mean over the rest."""
        var = self.std.square()
        return (self.mean.square() + var - var.log() - 1).sum(1).mean()


@dataclass
class Reconstruction:
    """A waveform that went through the codec."""

    waveform: Tensor  # [B, 1, T], exactly as long as the input
    posterior: Posterior
    latent: Tensor  # [B, D, F], what was decoded


@functools.cache
def _dac() -> SimpleNamespace:
    """The building blocks of descript-audio-codec.

    Imported on first use, because it takes most of a second, and inside `catch_warnings`, because it switches
    off every UserWarning of the process.
    """
    with warnings.catch_warnings():
        from dac.model.dac import DecoderBlock, EncoderBlock, ResidualUnit
        from dac.nn.layers import Snake1d
    return SimpleNamespace(
        DecoderBlock=DecoderBlock, EncoderBlock=EncoderBlock, ResidualUnit=ResidualUnit, Snake1d=Snake1d
    )


def _plain(build: Any, *args: int, **kwargs: int) -> Any:
    """Build a block and replace its weight-normalised convolutions by ordinary ones.

    The norm is folded when weights are loaded; kept, it would recompute every weight on every call.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old spelling of weight norm is deprecated
        block = build(*args, **kwargs)
        for module in block.modules():
            if hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)
    return block


class Encoder(nn.Module):
    """Waveform ``[B, 1, F * hop]`` to features ``[B, latent_dim, F]``."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        dac, width = _dac(), config.encoder_dim
        stem: nn.Module
        if config.stem_stride > 1:
            stem = LappedStem(width, config.stem_kernel, config.stem_stride)
        else:
            stem = nn.Conv1d(1, width, config.stem_kernel, padding=config.stem_kernel // 2)
        layers: list[nn.Module] = [stem]
        layers += [_plain(dac.ResidualUnit, width, dilation=d) for d in config.stem_units]
        for rate in config.encoder_rates:
            width *= 2
            layers.append(_plain(dac.EncoderBlock, width, stride=rate))
        layers += [dac.Snake1d(width), nn.Conv1d(width, config.latent_dim, 3, padding=1)]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return codec_pieces.encode(self.block, x) if codec_pieces.suits(x) else self.block(x)


class Decoder(nn.Module):
    """Features ``[B, latent_dim, F]`` to the clean waveform ``[B, 1, F * hop]``."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        dac, width = _dac(), config.decoder_dim
        self.trunk = nn.Sequential(nn.Conv1d(config.latent_dim, width, 7, padding=3))
        for rate in config.decoder_rates:
            block = _plain(dac.DecoderBlock, width, width // 2, stride=rate)
            # Padding ceil(s / 2) on both sides drops one sample too many when s is odd.
            block.block[1].output_padding = (rate % 2,)
            self.trunk.append(block)
            width //= 2
        for dilation in reversed(config.stem_units):
            self.trunk.append(_plain(dac.ResidualUnit, width, dilation=dilation))
        self.snake = dac.Snake1d(width)
        self.head: nn.Module
        if config.stem_stride > 1:
            self.head = LappedHead(width, config.stem_kernel, config.stem_stride)
        else:
            self.head = nn.Conv1d(width, 1, config.stem_kernel, padding=config.stem_kernel // 2)
        self.final_tanh = config.final_tanh

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.snake(self.trunk(x)))
        return torch.tanh(x) if self.final_tanh else x


def pad_to_hop(waveform: Tensor, hop_length: int) -> Tensor:
    """Reflect ``[..., T]`` at its right end up to a multiple of `hop_length` samples.

    A clip shorter than the padding is reflected back and forth, as numpy does; one sample is repeated.
    """
    T = waveform.shape[-1]
    if T == 0:
        raise ValueError(f"empty clip, shape {tuple(waveform.shape)}: a clip needs at least one sample")
    extra = -T % hop_length
    if not extra:
        return waveform
    index = torch.arange(T, T + extra, device=waveform.device) % max(2 * (T - 1), 1)
    index = torch.where(index < T, index, 2 * (T - 1) - index)
    return torch.cat([waveform, waveform[..., index]], dim=-1)


class DACEncoder(nn.Module):
    """The analysis half of the codec: deterministic latents, no decoder and no posterior width.

    Its last layer holds the mean rows only, as in the checkpoints of the embedder.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.in_proj = nn.Conv1d(config.latent_dim, self._projected_channels(), 1)

    def _projected_channels(self) -> int:
        return self.config.codebook_dim

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return self.config.hop_length

    def features(self, waveform: Tensor) -> Tensor:
        """Encoder output before the bottleneck: ``[B, 1, T] -> [B, latent_dim, F]``."""
        if waveform.ndim != 3 or waveform.shape[1] != 1:
            raise ValueError(f"waveform has shape {tuple(waveform.shape)}; give mono clips [B, 1, T]")
        return self.encoder(pad_to_hop(waveform, self.config.hop_length))

    def latents(self, waveform: Tensor) -> Tensor:
        """Mean of the posterior, ``[B, 1, T] -> [B, D, F]``: the latents that every other model uses."""
        return self.in_proj(self.features(waveform))[:, : self.config.codebook_dim]

    def encode_clips(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Latents ``[D, F_i]`` of clips ``[T_i]``, each as if it were encoded alone.

        The codec has no mask: padding a short clip with zeros to the length of a longer one would reach its
        last frames. So each clip is padded by its own reflection and only clips of equal frame count share a
        batch.
        """
        groups: dict[int, list[int]] = {}
        padded = []
        for i, clip in enumerate(clips):
            if clip.ndim != 1:
                raise ValueError(f"clip {i} has shape {tuple(clip.shape)}; encode_clips takes mono clips [T]")
            padded.append(pad_to_hop(clip, self.config.hop_length))
            groups.setdefault(padded[-1].shape[0], []).append(i)
        found: dict[int, Tensor] = {}
        for members in groups.values():
            latents = self.latents(torch.stack([padded[i] for i in members])[:, None])
            found.update(zip(members, latents, strict=True))
        return [found[i] for i in range(len(padded))]

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``; `dtype` torch.float16 halves the file."""
        codec_files.write_codec(folder, self.config.to_dict(), self.state_dict(), dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Encoder half of the codec in `folder`, ours or published; its other half is left out."""
        settings, state = codec_files.read_codec(folder, watermark=False)
        model = cls(CodecConfig.from_dict(settings))
        state = codec_keys.encoder_part(state, model.config.codebook_dim)
        codec_keys.load_strictly(model, state, str(folder))
        return model.eval()


class DACVAE(DACEncoder):
    """The whole codec: waveform -> posterior over latents -> waveform."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config)
        self.out_proj = nn.Conv1d(config.codebook_dim, config.latent_dim, 1)
        self.decoder = Decoder(config)
        self.watermark = Watermark(config.watermark) if config.watermark else None

    def _projected_channels(self) -> int:
        return 2 * self.config.codebook_dim  # mean rows, then scale rows

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, watermark: bool = True) -> Self:
        """Codec from a folder written by `save_pretrained`, or from a published one (see `peav.codec_files`).

        Args:
            folder: holds the weights; float16 on disk becomes float32.
            watermark: False accepts the weights of a watermark and leaves them out.

        Raises:
            ValueError: there is no codec, or its weights do not fit; lists missing and left-over names.
        """
        settings, state = codec_files.read_codec(folder, watermark=watermark)
        model = cls(CodecConfig.from_dict(settings))
        codec_keys.load_strictly(model, state, str(folder))
        return model.eval()

    def encode(self, waveform: Tensor) -> Posterior:
        """Posterior over the latents of ``[B, 1, T]``."""
        return Posterior(*self.in_proj(self.features(waveform)).chunk(2, dim=1))

    def decode(self, latent: Tensor, length: int | None = None, message: Tensor | None = None) -> Tensor:
        """Waveform ``[B, 1, length]`` of latents ``[B, D, F]``; all ``F * hop`` samples without `length`.

        Args:
            latent: as given by `latents` or `Posterior.sample`.
            length: samples to keep, at most ``F * hop``.
            message: bits ``[B, nbits]`` to hide as a watermark. None adds no watermark.
        """
        D = self.config.codebook_dim
        if latent.ndim != 3 or latent.shape[1] != D:
            raise ValueError(f"latent has shape {tuple(latent.shape)}; this codec decodes [B, {D}, F]")
        if message is not None and self.watermark is None:
            raise ValueError("message given, but this codec has no watermark; decode with message=None")
        samples = latent.shape[-1] * self.config.hop_length
        if length is not None and not 0 < length <= samples:
            raise ValueError(f"length={length} samples, but {latent.shape[-1]} frames hold 1 to {samples}")
        waveform = self.decoder(self.out_proj(latent))
        if message is not None and self.watermark is not None:
            waveform = waveform + self.watermark.config.alpha * self.watermark(waveform, message)
        return waveform[..., :length]

    def forward(
        self, waveform: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Encode and decode ``[B, 1, T]``: through the mean, or through a draw from the posterior."""
        posterior = self.encode(waveform)
        latent = posterior.sample(generator) if sample else posterior.mean
        return Reconstruction(self.decode(latent, length=waveform.shape[-1]), posterior, latent)
