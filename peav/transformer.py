"""The temporal transformer shared by every tower, in the layout of the published PE-AV weights.

Axes: ``B`` batch, ``F`` frames, ``D`` width, ``H`` heads, ``d`` head width.

A learned class token is put in front of the frames, a masked residual convolution block mixes neighbours,
then pre-norm layers of rotary self-attention and SwiGLU follow. Row 0 of the output is the pooled vector, the
other rows are the frame sequence. Parameter names are those of the published files, so weights load without
renaming inside this module.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F_
from torch import Tensor, nn


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of one tower.

    ``head_dim`` defaults to ``hidden_size // num_heads``. ``rope_theta`` is 20000 in every published model.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    head_dim: int | None = None
    num_key_value_heads: int | None = None
    rope_theta: float = 20_000.0
    norm_eps: float = 1e-5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.head_dim is None and self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.width_per_head % 2:
            raise ValueError(f"head_dim {self.width_per_head} must be even: rotary embeddings turn pairs")
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_key_value_heads {self.kv_heads}")

    @property
    def width_per_head(self) -> int:
        """``head_dim`` with its default filled in."""
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def kv_heads(self) -> int:
        """``num_key_value_heads`` with its default filled in."""
        return self.num_key_value_heads or self.num_heads

    def to_dict(self) -> dict:
        return asdict(self)


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last axis, computed in float32."""

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * self.weight.float()).to(x.dtype)


def rotary_angles(num_positions: int, head_dim: int, theta: float, device=None) -> Tensor:
    """Angles ``[num_positions, head_dim / 2]`` in radians: position times ``theta^(-2i / head_dim)``.

    Computed for as many positions as asked, so no table limits the length of a clip.
    """
    frequencies = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    return torch.arange(num_positions, device=device, dtype=torch.float32)[:, None] * frequencies


def rotate_interleaved(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs ``(x[2i], x[2i+1])`` of ``x [B, H, F, d]`` by ``angles [F, d / 2]``."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Attention(nn.Module):
    """Bidirectional self-attention with per-head RMSNorm on queries and keys before the rotation."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = (
            config.num_heads, config.kv_heads, config.width_per_head)
        width = config.hidden_size
        self.q_proj = nn.Linear(width, self.num_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.num_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.num_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, width, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.norm_eps)

    def forward(self, x: Tensor, angles: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """``x [B, F, D]``, ``angles [F, d / 2]``, ``key_mask [B, F]`` bool, true where a key counts."""
        B, F, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, F, self.num_heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(B, F, self.num_kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(B, F, self.num_kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate_interleaved(q, angles), rotate_interleaved(k, angles)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        out = F_.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, enable_gqa=self.num_kv_heads != self.num_heads)
        return self.o_proj(out.transpose(1, 2).reshape(B, F, -1))


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` without biases."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F_.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, angles: Tensor, key_mask: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), angles, key_mask))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm with one group whose statistics leave out padded frames.

    Everything is normalised with the statistics of the valid frames, then padding is set to zero so that the
    convolution after it sees silence. Without a mask this is the ordinary group norm.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x [B, D, F]``, ``mask [B, F]`` bool."""
        if mask is None:
            return super().forward(x)
        keep = mask[:, None, :].to(x.dtype)
        count = keep.sum((1, 2), keepdim=True) * x.shape[1]
        mean = (x * keep).sum((1, 2), keepdim=True) / count
        variance = ((x - mean).square() * keep).sum((1, 2), keepdim=True) / count
        x = (x - mean) * torch.rsqrt(variance + self.eps)
        return (x * self.weight[:, None] + self.bias[:, None]) * keep


class ConvBlock(nn.Module):
    """Group norm, SiLU, convolution of three frames."""

    def __init__(self, width: int):
        super().__init__()
        self.groupnorm = MaskedGroupNorm(1, width, eps=1e-5)
        self.project = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.project(F_.silu(self.groupnorm(x, mask)))


class ResidualConv(nn.Module):
    """Two :class:`ConvBlock` with a skip: ``x + f2(f1(x))`` over ``[B, D, F]``."""

    def __init__(self, width: int):
        super().__init__()
        self.block1, self.block2 = ConvBlock(width), ConvBlock(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x + self.block2(self.block1(x, mask), mask)


class Embeddings(nn.Module):
    """Class token in front, then the residual convolution over token and frames together."""

    def __init__(self, width: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.resnet_block = ResidualConv(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x), dim=1)
        if mask is not None:  # the class token is always valid, whichever side the padding is on
            mask = torch.cat((mask.new_ones(mask.shape[0], 1), mask), dim=1)
        return self.resnet_block(x.transpose(1, 2), mask).transpose(1, 2), mask


@dataclass
class TowerOutput:
    """``pooled [B, D]`` and ``frames [B, F, D]`` of one tower."""

    pooled: Tensor
    frames: Tensor


class TemporalTransformer(nn.Module):
    """The tower itself: ``[B, F, D]`` in, a pooled vector and a frame sequence out."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> TowerOutput:
        """Args:
            x: frames ``[B, F, D]``, already at the tower's width.
            mask: ``[B, F]`` bool, true on valid frames; None when no frame is padding.
        """
        x, mask = self.embeddings(x, mask)
        angles = rotary_angles(x.shape[1], self.config.width_per_head, self.config.rope_theta, x.device)
        for layer in self.layers:
            x = layer(x, angles, mask)
        x = self.output(self.norm(x))
        return TowerOutput(pooled=x[:, 0], frames=x[:, 1:])
