"""ModernBERT, the text tower of the published embedders, in the names of its published weights.

Axes: ``B`` batch, ``S`` tokens, ``D`` width, ``H`` heads, ``d`` head width.

The text vector of these models is the first row of a layer's output *before* the final norm. That state is what
`ModernBert` returns; the norm exists only when `ModernBertConfig.final_norm` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50_368,
    "hidden_size": 1024,
    "intermediate_size": 2624,
    "num_hidden_layers": 22,
    "num_attention_heads": 16,
    "local_attention": 128,
    "norm_eps": 1e-5,
}


@dataclass(frozen=True)
class ModernBertConfig:
    """Sizes of the text tower.

    ``full_attention`` has one entry per layer: true where a token sees every other, false where it sees those at
    most ``local_attention // 2`` away. ``final_norm`` returns the state after the last norm instead of before it.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    full_attention: tuple[bool, ...]
    local_attention: int = 128  # tokens, both sides together
    full_theta: float = 160_000.0
    local_theta: float = 10_000.0
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    final_norm: bool = False

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"text hidden_size {self.hidden_size} does not split into {self.num_heads} even heads")
        if not self.full_attention:
            raise ValueError("the text tower needs at least one layer")

    @property
    def num_layers(self) -> int:
        return len(self.full_attention)

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, num_layers: int | None = None, final_norm: bool = False
    ) -> ModernBertConfig:
        """From the ``text_config`` of a published file, old and new spellings.

        Args:
            values: absent fields have the values of the published models.
            num_layers: keep only so many of the layers.
            final_norm: see the class.
        """
        activation = values.get("hidden_activation", "gelu")
        if activation != "gelu":
            raise ValueError(f"text hidden_activation {activation!r} is not supported, only 'gelu'")
        get = _DEFAULTS | {name: value for name, value in values.items() if value is not None}
        layers = int(get["num_hidden_layers"])
        kinds = get.get("layer_types")
        if kinds is None:
            every = get.get("global_attn_every_n_layers", 3)
            full = [layer % every == 0 for layer in range(layers)]
        else:
            full = [kind == "full_attention" for kind in kinds][:layers]
        if len(full) < layers or (num_layers is not None and not 0 < num_layers <= layers):
            raise ValueError(f"{num_layers or layers} text layers wanted, {min(len(full), layers)} described")
        rope = get.get("rope_parameters") or {}
        return cls(
            vocab_size=get["vocab_size"],
            hidden_size=get["hidden_size"],
            intermediate_size=get["intermediate_size"],
            num_heads=get["num_attention_heads"],
            full_attention=tuple(full[:num_layers]),
            local_attention=get["local_attention"],
            full_theta=_theta(rope, "full_attention", get.get("global_rope_theta", 160_000.0)),
            local_theta=_theta(rope, "sliding_attention", get.get("local_rope_theta", 10_000.0)),
            norm_eps=get["norm_eps"],
            norm_bias=bool(get.get("norm_bias")),
            attention_bias=bool(get.get("attention_bias")),
            mlp_bias=bool(get.get("mlp_bias")),
            final_norm=final_norm,
        )


def _theta(rope: Mapping[str, Any], kind: str, default: float) -> float:
    part = rope.get(kind) or {}
    if part.get("rope_type", "default") != "default":
        raise ValueError(f"rope_type {part['rope_type']!r} of the text tower is not supported")
    return float(part.get("rope_theta", default))


def rotate_halves(x: Tensor, theta: float) -> Tensor:
    """Rotate ``x [B, H, S, d]``: channel i of a head pairs with channel ``i + d / 2``, in float32."""
    S, d = x.shape[-2:]
    frequencies = theta ** (-torch.arange(0, d, 2, device=x.device, dtype=torch.float32) / d)
    angles = torch.arange(S, device=x.device, dtype=torch.float32)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class _Attention(nn.Module):
    def __init__(self, config: ModernBertConfig, theta: float) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.theta = config.num_heads, theta
        self.Wqkv = nn.Linear(width, 3 * width, bias=config.attention_bias)
        self.Wo = nn.Linear(width, width, bias=config.attention_bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        B, S, D = x.shape
        q, k, v = self.Wqkv(x).view(B, S, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate_halves(q, self.theta), rotate_halves(k, self.theta)
        out = F_.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.Wo(out.transpose(1, 2).reshape(B, S, D))


class _MLP(nn.Module):
    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.Wi = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.Wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        inner, gate = self.Wi(x).chunk(2, dim=-1)
        return self.Wo(F_.gelu(inner) * gate)


class _Layer(nn.Module):
    def __init__(self, config: ModernBertConfig, index: int) -> None:
        super().__init__()
        self.full = config.full_attention[index]
        # The embeddings are normalised already, so the first layer has no norm of its own.
        self.attn_norm = _norm(config) if index else nn.Identity()
        self.attn = _Attention(config, config.full_theta if self.full else config.local_theta)
        self.mlp_norm = _norm(config)
        self.mlp = _MLP(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.attn_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


def _norm(config: ModernBertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


class _Embeddings(nn.Module):
    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = _norm(config)

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.norm(self.tok_embeddings(token_ids))


class ModernBert(nn.Module):
    """Token ids to the last layer's states, before the final norm unless the config asks for it."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.layers = nn.ModuleList(_Layer(config, i) for i in range(config.num_layers))
        self.final_norm = _norm(config) if config.final_norm else None

    def forward(self, token_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """States ``[B, S, D]``; row 0 of each text is its vector.

        Args:
            token_ids: integers ``[B, S]``.
            mask: ``[B, S]``, true or 1 on real tokens; None when there is no padding.
        """
        if token_ids.ndim != 2:
            raise ValueError(f"token_ids has shape {tuple(token_ids.shape)}; give [B, S]")
        if mask is not None and mask.shape != token_ids.shape:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, token_ids {tuple(token_ids.shape)}")
        everywhere, nearby = self._masks(token_ids, mask)
        x = self.embeddings(token_ids)
        for layer in self.layers:
            x = layer(x, everywhere if layer.full else nearby)
        return x if self.final_norm is None else self.final_norm(x)

    def _masks(self, token_ids: Tensor, mask: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Who sees whom, ``[B or 1, 1, S, S]`` bool: in full layers (None for all) and in sliding ones."""
        position = torch.arange(token_ids.shape[1], device=token_ids.device)
        distance = (position[:, None] - position).abs()
        near = (distance <= self.config.local_attention // 2)[None, None]
        if mask is None:
            return None, near
        keys = mask.bool()[:, None, None, :]
        # A padded token far from every real one would see nothing, and a softmax over nothing is NaN.
        itself = (distance == 0)[None, None] & ~mask.bool()[:, None, :, None]
        return keys | itself, (keys & near) | itself
