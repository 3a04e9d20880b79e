"""Guess what a frozen random quantiser says of masked frames (BEST-RQ, arXiv 2202.01855).

PE-AV (arXiv 2512.19687) adds this to the audio tower's contrastive losses, in pretraining and fine-tuning: a caption
says little of what a recording sounds like in detail, and speech retrieval needs that detail. Labels come from the
unmasked codec features; the tower's output without its class token predicts them where the input is masked. How
strongly it counts beside the ten pairs, and the sizes of its codebook, are ours to choose: defaults are those of
BEST-RQ's own paper, in frames of 40 ms.

Axes: ``B`` clips, ``N`` input frames, ``D`` features of one, ``M`` groups of ``stack`` frames, ``C`` codebooks,
``V`` entries of one, ``W`` the tower's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

Tower = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class BestRQConfig:
    """Fields:

    stack: input frames that share a label.
    codebook_size, codebook_dim, num_codebooks: V, width of an entry, C. Several codebooks make several guesses.
    mask_probability: chance that a masked span starts at a group.
    mask_length: groups in a span; the paper's 0.4 s are 10 of 40 ms. With its 0.04 a third of a clip is masked, as
        with the paper's 0.01 at 10 ms.
    noise: standard deviation of what a masked frame is replaced with, features having mean 0 and deviation 1.
    seed: of projection and codebook.
    """

    stack: int = 1
    codebook_size: int = 8192
    codebook_dim: int = 16
    num_codebooks: int = 1
    mask_probability: float = 0.04
    mask_length: int = 10
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("stack", "codebook_size", "codebook_dim", "num_codebooks", "mask_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; give at least 1")
        if not 0 < self.mask_probability <= 1:
            raise ValueError(f"mask_probability={self.mask_probability}; give a number above 0, at most 1")


class RandomProjectionQuantizer(nn.Module):
    """Labels: the entry of a random codebook nearest to a random projection, both on the unit sphere, never trained.

    Args:
        width: of what is quantised, ``stack`` frames of D features.
    """

    projection: Tensor
    codebook: Tensor

    def __init__(self, width: int, config: BestRQConfig) -> None:
        super().__init__()
        # A generator of its own, so that targets depend on nothing but the seed, on any device and in any process.
        generator = torch.Generator().manual_seed(config.seed)
        C, V, d = config.num_codebooks, config.codebook_size, config.codebook_dim
        projection = torch.empty(C, width, d)
        for one in projection:
            nn.init.xavier_uniform_(one, generator=generator)
        codebook = torch.randn(C, V, d, generator=generator)
        self.register_buffer("projection", projection)
        self.register_buffer("codebook", F_.normalize(codebook, dim=-1))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Labels ``[..., C]`` int64 of ``[..., width]``."""
        with torch.autocast(x.device.type, enabled=False):
            found = F_.normalize(torch.einsum("...w,cwd->...cd", x.float(), self.projection), dim=-1)
            # On the unit sphere the nearest entry is the one with the largest dot product.
            return torch.einsum("...cd,cvd->...cv", found, self.codebook).argmax(-1)


class BestRQ(nn.Module):
    """The loss, with the linear map that makes the guesses.

    Args:
        features: D.
        width: W.
    """

    def __init__(self, features: int, width: int, config: BestRQConfig | None = None) -> None:
        super().__init__()
        self.config = config or BestRQConfig()
        self.quantizer = RandomProjectionQuantizer(features * self.config.stack, self.config)
        self.guess = nn.Linear(width, self.config.num_codebooks * self.config.codebook_size)

    def forward(self, features: Tensor, tower: Tower, mask: Tensor | None = None) -> Tensor:
        """Mean cross-entropy, in nats, over masked groups and codebooks.

        Zero, with zero gradients, where nothing was masked, as may happen to a few short clips.

        Args:
            features: what the tower reads, ``[B, N, D]``.
            tower: features ``[B, N, D]`` and mask to frames ``[B, N, W]``, or ``[B, M, W]`` if it stacks them itself.
            mask: ``[B, N]``, true on valid frames, which come first; None when all are.

        Raises:
            ValueError: shapes do not fit.
        """
        if features.dim() != 3 or (mask is not None and mask.shape != features.shape[:2]):
            raise ValueError(f"features {tuple(features.shape)} and mask "
                             f"{None if mask is None else tuple(mask.shape)}; give [B, N, D] and [B, N]")
        groups, whole = self.groups(features, mask)
        hidden = draw_spans(whole, self.config.mask_probability, self.config.mask_length)
        frames = tower(self.hide(features, hidden, mask), mask)
        if frames.shape[1] == features.shape[1]:
            frames = _grouped(frames, self.config.stack).mean(2)
        if frames.shape[:2] != hidden.shape:
            raise ValueError(f"the tower made {frames.shape[1]} frames of {features.shape[1]}; "
                             f"expected as many, or {hidden.shape[1]}")
        logits = self.guess(frames[hidden]).unflatten(-1, (self.config.num_codebooks, -1))
        with torch.autocast(features.device.type, enabled=False):
            if not logits.shape[0]:
                return logits.sum().float()
            return F_.cross_entropy(logits.float().flatten(0, 1), self.quantizer(groups[hidden]).flatten())

    @torch.no_grad()
    def groups(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is quantised, ``[B, M, stack D]``, and ``[B, M]`` bool, true on groups without padding.

        The features with mean 0 and deviation 1, over each clip. Unless they are centred, nearly all frames get the
        label of their mean. The paper does not say over what; by clip and feature, a label depends neither on other
        clips nor on a recording's level and colouring.
        """
        mean, deviation = _statistics(features, mask)
        x = _grouped((features.float() - mean) / deviation, self.config.stack)
        valid = features.new_ones(features.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        return x.flatten(2), _grouped(valid[:, :, None], self.config.stack).all(2)[:, :, 0]

    @torch.no_grad()
    def hide(self, features: Tensor, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features with the groups ``hidden [B, M]`` replaced by noise around the clip's mean."""
        mean, deviation = _statistics(features, mask)
        noise = mean + self.config.noise * deviation * torch.randn_like(features, dtype=torch.float32)
        where = hidden.repeat_interleave(self.config.stack, 1)[:, : features.shape[1], None]
        return torch.where(where, noise.to(features.dtype), features)


def draw_spans(valid: Tensor, probability: float, length: int) -> Tensor:
    """Random spans ``[B, M]`` bool inside ``valid [B, M]`` bool; each place starts one with ``probability``."""
    starts = torch.rand(valid.shape, device=valid.device) < probability
    # A place is hidden if a span started there or at one of the length - 1 places before it.
    reach = F_.pad(starts.float(), (length - 1, 0))[:, None]
    return (F_.max_pool1d(reach, length, stride=1)[:, 0] > 0) & valid


def _statistics(features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[B, 1, D]`` of each clip's valid frames."""
    x = features.float()
    keep = torch.ones_like(x[..., :1]) if mask is None else mask[..., None].to(x)
    count = keep.sum(1, keepdim=True).clamp_min(1)
    mean = (x * keep).sum(1, keepdim=True) / count
    variance = ((x - mean).square() * keep).sum(1, keepdim=True) / count
    return mean, (variance + 1e-5).sqrt()


def _grouped(x: Tensor, stack: int) -> Tensor:
    """``[B, N, D]`` as ``[B, M, stack, D]``, the last group filled up with zeros."""
    return F_.pad(x, (0, 0, 0, -x.shape[1] % stack)).unflatten(1, (-1, stack))
