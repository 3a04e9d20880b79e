"""Audio tower, video tower and their fusion, as in the published PE-AV.

Axes: ``B`` batch, ``T`` samples, ``F`` audio frames, ``N`` video frames, ``D`` a tower's width, ``K`` latent channels.
An audio token is one latent frame or several (`PEAVConfig.token_frames`); towers count in tokens.

Clips of different lengths share a batch with padding and a mask. By default what a clip is batched with makes no
difference to it. The published code lets padding reach the last frames of a shorter clip through the codec, and in
special cases stretches its video by the padded length; ``compatible=True`` reproduces that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F_
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .codec import CodecConfig, DACEncoder
from .latents import log_features
from .transformer import TemporalTransformer, TransformerConfig
from .vision import VisionConfig, VisionTransformer

_IMAGES_AT_ONCE = 64  # bounds memory; every image is independent of the others


@dataclass
class Encoded:
    """What a tower makes of a batch."""

    pooled: Tensor  # [B, D]
    frames: Tensor  # [B, F, D]; meaningless in the padding
    mask: Tensor | None  # [B, F] bool, true on valid frames; None when there is no padding


class Head(nn.Module):
    """LayerNorm, then a linear map without bias: from a tower's width to the shared space."""

    def __init__(self, width: int, output_dim: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.projection = nn.Linear(width, output_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.layer_norm(x))


class AudioTower(nn.Module):
    """Waveform, codec latents, tokens, temporal transformer. The codec is never trained along.

    Args:
        token_frames: latent frames per token; the last token is filled up by repeating the last frame.
        log_input: see `PEAVConfig`.
    """

    def __init__(
        self, codec: CodecConfig, tower: TransformerConfig, token_frames: int = 1, log_input: bool = False
    ) -> None:
        super().__init__()
        self.token_frames, self.log_input = token_frames, log_input
        self.codec = DACEncoder(codec).requires_grad_(False)
        channels = codec.codebook_dim * (2 if log_input else 1)
        self.data_proj = nn.Linear(channels * token_frames, tower.hidden_size)
        self.transformer = TemporalTransformer(tower)

    @torch.no_grad()
    def latents(
        self, waveform: Tensor, mask: Tensor | None = None, *, compatible: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Latents ``[B, K, F]``, zero in the padding, and the mask over their frames.

        Args:
            waveform: ``[B, 1, T]``.
            mask: ``[B, T]``, true or 1 on the samples of a clip; None when all are.
            compatible: run the codec over the padded batch, as published; else every clip as if it were alone,
                continued to a whole frame by its own reflection.

        Raises:
            ValueError: shapes do not fit, or a clip has no samples.
        """
        if waveform.ndim != 3 or waveform.shape[1] != 1:
            raise ValueError(f"waveform has shape {tuple(waveform.shape)}; give mono clips [B, 1, T]")
        if mask is not None and mask.shape != waveform[:, 0].shape:
            raise ValueError(f"mask has shape {tuple(mask.shape)} for clips of shape {tuple(waveform.shape)}")
        waveform = waveform.to(self.data_proj.weight)
        if mask is None or compatible:
            frame_mask = None if mask is None else mask[:, :: self.codec.hop_length].bool()
            return self.codec.latents(waveform), frame_mask
        found = self.codec.encode_clips([clip[keep] for clip, keep in zip(waveform[:, 0], mask.bool(), strict=True)])
        lengths = torch.tensor([z.shape[-1] for z in found], device=waveform.device)
        padded = pad_sequence([z.T for z in found], batch_first=True).transpose(1, 2)
        return padded, torch.arange(padded.shape[-1], device=waveform.device) < lengths[:, None]

    def tokens(self, latents: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What the transformer's input projection sees: ``[B, N, C]`` and the mask ``[B, N]`` over it.

        Args:
            latents: ``[B, K, F]``.
            mask: ``[B, F]``, true or 1 on valid frames, which come first; None when all are.
        """
        K = self.codec.config.codebook_dim
        if latents.ndim != 3 or latents.shape[1] != K:
            raise ValueError(f"latents has shape {tuple(latents.shape)}; this tower takes [B, {K}, F]")
        mask = None if mask is None else mask.bool()
        if mask is None or (self.token_frames == 1 and not self.log_input):
            return self._stacked(latents), mask
        # Level and neighbourhood are the clip's own, so padding must not have a part in them.
        found = [self._stacked(z[None, :, keep])[0] for z, keep in zip(latents, mask, strict=True)]
        lengths = torch.tensor([len(x) for x in found], device=latents.device)
        padded = pad_sequence(found, batch_first=True)
        return padded, torch.arange(padded.shape[1], device=latents.device) < lengths[:, None]

    def _stacked(self, latents: Tensor) -> Tensor:
        x = log_features(latents) if self.log_input else latents
        if self.token_frames > 1:
            x = F_.pad(x, (0, -x.shape[-1] % self.token_frames), mode="replicate")
        return x.unflatten(-1, (-1, self.token_frames)).permute(0, 2, 3, 1).flatten(2)

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> Encoded:
        """Args:
            latents: ``[B, K, F]``.
            mask: ``[B, F]``, true or 1 on valid frames; None when all are.
        """
        tokens, token_mask = self.tokens(latents, mask)
        out = self.transformer(self.data_proj(tokens.to(self.data_proj.weight)), token_mask)
        return Encoded(out.pooled, out.frames, token_mask)


class VideoTower(nn.Module):
    """Images, one unit vector each, temporal transformer."""

    def __init__(self, vision: VisionConfig, tower: TransformerConfig) -> None:
        super().__init__()
        self.vision = VisionTransformer(vision)
        self.proj = nn.Linear(vision.output_dim, tower.hidden_size, bias=False)
        self.data_proj = nn.Linear(tower.hidden_size, tower.hidden_size)
        self.transformer = TemporalTransformer(tower)

    def features(self, video: Tensor, mask: Tensor | None = None) -> Tensor:
        """Unit vectors ``[B, N, E]`` of images ``[B, N, 3, height, width]`` in -1..1; zero where `mask` is."""
        if video.ndim != 5:
            raise ValueError(f"video has shape {tuple(video.shape)}; give [B, N, 3, height, width]")
        B, N = video.shape[:2]
        keep = torch.ones(B, N, dtype=torch.bool, device=video.device) if mask is None else mask.bool()
        if keep.shape != (B, N):
            raise ValueError(f"mask has shape {tuple(keep.shape)} for video of shape {tuple(video.shape)}")
        images = video[keep].to(self.proj.weight)
        found = [F_.normalize(self.vision(part), dim=-1) for part in images.split(_IMAGES_AT_ONCE)]
        features = self.proj.weight.new_zeros(B, N, self.proj.in_features)
        features[keep] = torch.cat(found).to(features)
        return features

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Encoded:
        """Args:
            features: unit vectors ``[B, N, E]``, one per image.
            mask: ``[B, N]``, true or 1 on valid images; None when all are.
        """
        mask = None if mask is None else mask.bool()
        out = self.transformer(self.data_proj(self.proj(features.to(self.proj.weight))), mask)
        return Encoded(out.pooled, out.frames, mask)


class FusionTower(nn.Module):
    """Audio and video frames of the same clips, on the audio's frames."""

    def __init__(self, audio_width: int, video_width: int, tower: TransformerConfig) -> None:
        super().__init__()
        self.video_proj = nn.Conv1d(video_width, audio_width, 1)
        self.video_norm = nn.LayerNorm(audio_width, eps=1e-5)
        self.concat_modality_proj = nn.Linear(2 * audio_width, tower.hidden_size)
        self.data_proj = nn.Linear(tower.hidden_size, tower.hidden_size)
        self.transformer = TemporalTransformer(tower)

    def forward(self, audio: Encoded, video: Encoded, *, compatible: bool = False) -> Encoded:
        """Args:
            audio, video: what the two towers made of the same batch.
            compatible: align ragged batches as published, see `align_as_published`.
        """
        frames = self.video_proj(video.frames.transpose(1, 2)).transpose(1, 2)
        align_frames = align_as_published if compatible else align
        aligned = align_frames(frames, audio.frames.shape[1], video.mask, audio.mask)
        x = torch.cat((audio.frames, self.video_norm(aligned)), dim=-1)
        out = self.transformer(self.data_proj(self.concat_modality_proj(x)), audio.mask)
        return Encoded(out.pooled, out.frames, audio.mask)


def align(video: Tensor, num_frames: int, video_mask: Tensor | None, audio_mask: Tensor | None) -> Tensor:
    """Spread the valid frames of each video evenly over the valid frames of its audio.

    Frame i of L audio frames gets video frame ``floor(i * M / L)`` of M, padding gets zeros.

    Args:
        video: ``[B, N, D]``.
        num_frames: F.
        video_mask, audio_mask: ``[B, N]`` and ``[B, F]`` bool, or None when all frames are valid.

    Returns:
        ``[B, F, D]``.
    """
    if video_mask is None and audio_mask is None:
        return _nearest(video, num_frames)
    aligned = video.new_zeros(video.shape[0], num_frames, video.shape[2])
    for i, frames in enumerate(video):
        if video_mask is not None:
            frames = frames[video_mask[i]]
        to = slice(None) if audio_mask is None else audio_mask[i]
        length = aligned[i, to].shape[0]
        if length and frames.shape[0]:
            aligned[i, to] = _nearest(frames[None], length)[0]
    return aligned


def align_as_published(video: Tensor, num_frames: int, video_mask: Tensor | None, audio_mask: Tensor | None) -> Tensor:
    """`align` with the shortcuts of the published code, which look at padded lengths.

    Equal padded lengths leave the video as it is, whatever the true lengths are. When all audio clips are as long
    as the padded video, or all videos as long as the padded audio, the padded video is stretched as a whole.
    """
    B, N = video.shape[:2]
    if num_frames == N:
        return video
    video_lengths = [N] * B if video_mask is None else video_mask.sum(1).tolist()
    audio_lengths = [num_frames] * B if audio_mask is None else audio_mask.sum(1).tolist()
    if set(audio_lengths) == {N} or set(video_lengths) == {num_frames}:
        return _nearest(video, num_frames)
    return align(video, num_frames, video_mask, audio_mask)


def _nearest(x: Tensor, length: int) -> Tensor:
    """``[B, N, D]`` to ``[B, length, D]``, rounding positions as the published code does."""
    return F_.interpolate(x.transpose(1, 2), size=length, mode="nearest").transpose(1, 2)
