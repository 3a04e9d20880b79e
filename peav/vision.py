"""The PE vision tower: images to one embedding each, in the names of the published PE weights.

Axes: ``B`` images, ``N`` tokens (patches row by row, after the class token if there is one), ``C`` width,
``H`` heads, ``d`` head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from .transformer import rotate_interleaved


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a PE vision tower.

    ``rope_reference``: grid that rotary positions are scaled to, as timm does; None leaves them as they are.
    ``rope_offset``: position of the first row and column; None is 1 with a class token and 0 without.
    ``stem``: widths of residual convolutions before the patches, each of which halves the picture; none in published
    towers. Small towers learn far faster with them (arXiv 2106.14881; figures in docs/training-log.md).
    """

    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    output_dim: int
    patch_size: tuple[int, int]  # pixels, height and width
    grid: tuple[int, int]  # patches of the stored position embedding, rows and columns
    class_token: bool = True
    pool_heads: int = 8
    pool_mlp_width: int | None = None
    proj_bias: bool = False
    rope_theta: float = 10_000.0
    rope_offset: float | None = None
    rope_reference: tuple[int, int] | None = None
    norm_eps: float = 1e-5
    stem: tuple[int, ...] = ()
    parts: int | None = None

    def __post_init__(self) -> None:
        if any(side % 2 ** len(self.stem) for side in self.patch_size):
            raise ValueError(f"patches of {self.patch_size} pixels cannot be halved {len(self.stem)} times by the stem")
        if self.width % (4 * self.num_heads):
            raise ValueError(
                f"vision width {self.width} and {self.num_heads} heads: a head must be a multiple of 4 wide, half of "
                "its pairs turn with the row and half with the column"
            )
        if self.width % self.pool_heads:
            raise ValueError(f"vision width {self.width} is not a multiple of pool_heads {self.pool_heads}")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that the tower was trained at."""
        return self.grid[0] * self.patch_size[0], self.grid[1] * self.patch_size[1]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VisionConfig:
        """From what JSON or YAML holds, which know no tuples.

        Raises:
            TypeError: a size is unknown or missing.
            ValueError: sizes contradict each other.
        """
        sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**sizes)

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Tensor],
        *,
        num_heads: int,
        pool_heads: int = 8,
        grid: tuple[int, int] | None = None,
        rope_theta: float = 10_000.0,
        rope_offset: float | None = None,
        rope_reference: tuple[int, int] | None = None,
    ) -> VisionConfig:
        """Read every size off the weights; only what no shape shows must be told.

        Args:
            state: weights of a `VisionTransformer`.
            grid: needed for images that are not square.

        Raises:
            KeyError: a weight is missing.
            ValueError: the position embedding is no square and no `grid` was given.
        """
        width, _, *patch = state["conv1.weight"].shape
        class_token = "class_embedding" in state
        patches = state["positional_embedding"].shape[0] - class_token
        side = math.isqrt(patches)
        if grid is None and side * side == patches:
            grid = (side, side)
        if grid is None or grid[0] * grid[1] != patches:
            raise ValueError(f"the vision tower's position embedding has {patches} patches, which is not {grid}")
        blocks = {name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")}
        return cls(
            width=width,
            num_layers=len(blocks),
            num_heads=num_heads,
            mlp_width=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            output_dim=state["proj"].shape[1],
            patch_size=(patch[0], patch[1]),
            grid=grid,
            class_token=class_token,
            pool_heads=pool_heads,
            pool_mlp_width=state["attn_pool.mlp.c_fc.weight"].shape[0],
            proj_bias="proj_bias" in state,
            rope_theta=rope_theta,
            rope_offset=rope_offset,
            rope_reference=rope_reference,
        )


def grid_angles(config: VisionConfig, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Angles ``[N, d / 2]`` in radians of a grid of patches, and of the class token, which does not turn.

    The first half of the pairs turns with the column, the second half with the row.
    """
    half = config.width // config.num_heads // 2
    frequencies = config.rope_theta ** (-torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
    offset = float(config.class_token) if config.rope_offset is None else config.rope_offset
    y = torch.arange(rows, device=device, dtype=torch.float32) + offset
    x = torch.arange(columns, device=device, dtype=torch.float32) + offset
    if config.rope_reference is not None:
        y, x = y / rows * config.rope_reference[0], x / columns * config.rope_reference[1]
    with_x = (x[:, None] * frequencies).expand(rows, columns, -1)
    with_y = (y[:, None, None] * frequencies).expand(rows, columns, -1)
    angles = torch.cat((with_x, with_y), dim=-1).flatten(0, 1)
    return F_.pad(angles, (0, 0, 1, 0)) if config.class_token else angles


class _Attention(nn.Module):
    """Self-attention with the weights of `nn.MultiheadAttention` and rotary queries and keys."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = F_.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        out = F_.scaled_dot_product_attention(rotate_interleaved(q, angles), rotate_interleaved(k, angles), v)
        return self.out_proj(out.transpose(1, 2).reshape(B, N, C))


class _MLP(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, inner)
        self.c_proj = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F_.gelu(self.c_fc(x)))


class _Block(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = _Attention(config.width, config.num_heads)
        self.ln_2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = _MLP(config.width, config.mlp_width)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), angles)
        return x + self.mlp(self.ln_2(x))


class _Transformer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))


class _AttentionPool(nn.Module):
    """One learned query over all tokens, class token included, then a residual MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, config.width) * 0.02)
        self.attn = nn.MultiheadAttention(config.width, config.pool_heads, batch_first=True)
        self.layernorm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = _MLP(config.width, config.pool_mlp_width or 4 * config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.probe.expand(x.shape[0], -1, -1).to(x.dtype), x, x, need_weights=False)[0]
        return (x + self.mlp(self.layernorm(x)))[:, 0]


class _Stage(nn.Module):
    """Two convolutions beside a shortcut, at half the resolution."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(inner, width, 3, 2, 1), nn.GroupNorm(1, width)
        self.second, self.second_norm = nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(1, width)
        self.shortcut = nn.Conv2d(inner, width, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = self.second_norm(self.second(F_.gelu(self.first_norm(self.first(x)))))
        return F_.gelu(found + self.shortcut(x))


def _stem(widths: tuple[int, ...]) -> nn.Sequential:
    """Images ``[B, 3, height, width]`` to ``[B, widths[-1], height / 2^n, width / 2^n]``, n stages."""
    first = nn.Sequential(nn.Conv2d(3, widths[0], 4, 2, 1), nn.GroupNorm(1, widths[0]), nn.GELU())
    return nn.Sequential(first, *(_Stage(a, b) for a, b in zip(widths, widths[1:], strict=False)))


class _PartsPool(nn.Module):
    """Means over parts of the picture, side by side."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        assert config.parts is not None
        self.first = int(config.class_token)
        self.mean = nn.AdaptiveAvgPool2d(config.parts)
        self.out = nn.Linear(config.parts**2 * config.width, config.width)

    def forward(self, x: Tensor, rows: int) -> Tensor:
        plane = x[:, self.first :].transpose(1, 2).unflatten(2, (rows, -1))
        return self.out(self.mean(plane).flatten(1))


class VisionTransformer(nn.Module):
    """Images to embeddings, not normalised."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.grid
        scale = config.width**-0.5
        if config.stem:
            self.stem = _stem(config.stem)
        patch = tuple(side // 2 ** len(config.stem) for side in config.patch_size)
        channels = config.stem[-1] if config.stem else 3
        self.conv1 = nn.Conv2d(channels, config.width, patch, stride=patch, bias=False)
        if config.class_token:
            self.class_embedding = nn.Parameter(torch.randn(config.width) * scale)
        tokens = rows * columns + config.class_token
        self.positional_embedding = nn.Parameter(torch.randn(tokens, config.width) * scale)
        self.ln_pre = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.transformer = _Transformer(config)
        self.ln_post = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn_pool = _AttentionPool(config) if config.parts is None else _PartsPool(config)
        self.proj = nn.Parameter(torch.randn(config.width, config.output_dim) * scale)
        if config.proj_bias:
            self.proj_bias = nn.Parameter(torch.zeros(config.output_dim))

    def forward(self, images: Tensor) -> Tensor:
        """``[B, output_dim]`` of images ``[B, 3, height, width]`` in -1..1.

        Raises:
            ValueError: the size is not a whole number of patches.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images has shape {tuple(images.shape)}; give [B, 3, height, width]")
        height, width = self.config.patch_size
        if images.shape[2] % height or images.shape[3] % width:
            raise ValueError(f"images of {images.shape[2]}x{images.shape[3]} pixels do not split into {height}x{width}")
        x = self.conv1(self.stem(images) if self.config.stem else images)
        rows, columns = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        if self.config.class_token:
            x = torch.cat((self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x), dim=1)
        x = self.ln_pre(x + self._positions(rows, columns).to(x.dtype))
        angles = grid_angles(self.config, rows, columns, x.device)
        for block in self.transformer.resblocks:
            x = block(x, angles)
        x = self.ln_post(x)
        x = (self.attn_pool(x) if self.config.parts is None else self.attn_pool(x, rows)) @ self.proj
        return x + self.proj_bias if self.config.proj_bias else x

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Position embedding ``[N, C]``, resized bilinearly when the grid is not the trained one."""
        if (rows, columns) == self.config.grid:
            return self.positional_embedding
        stored = self.positional_embedding.float()
        first = int(self.config.class_token)
        plane = stored[first:].view(1, *self.config.grid, -1).permute(0, 3, 1, 2)
        plane = F_.interpolate(plane, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat((stored[:first], plane[0].flatten(1).T))
