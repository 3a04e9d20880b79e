"""BERT's encoder (Devlin et al., arXiv 1810.04805), as the frozen sentence encoder needs it: no dropout, no pooler.

Written out because importing it from a library of models takes longer than separating a minute of sound. Parameter
names are those of published files, so weights load without renaming.

Axes: ``B`` batch, ``S`` tokens, ``W`` width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F_
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclass(frozen=True)
class BertConfig:
    """Sizes, named as in ``config.json``."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


class _Embeddings(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        W = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, W)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, W)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, W)
        self.LayerNorm = nn.LayerNorm(W, config.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        # One sentence, not a pair: every token is of the first type.
        places = self.position_embeddings.weight[: tokens.shape[1]] + self.token_type_embeddings.weight[0]
        return self.LayerNorm(self.word_embeddings(tokens) + places)


class _Output(nn.Module):
    """A linear layer, added to what came in, and normalised after that."""

    def __init__(self, inner: int, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class _Attention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        W = config.hidden_size
        self.heads = config.num_attention_heads
        self.self = nn.ModuleDict({name: nn.Linear(W, W) for name in ("query", "key", "value")})
        self.output = _Output(W, config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self.self[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for name in ("query", "key", "value"))  # fmt: skip
        found = F_.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(found.transpose(1, 2).flatten(2), x)


class _Layer(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = _Output(config.intermediate_size, config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.output(F_.gelu(self.intermediate["dense"](x)), x)


class Bert(nn.Module):
    """Tokens ``[B, S]`` and their mask, 1 or true where they are real, to the last hidden state ``[B, S, W]``."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))})

    @classmethod
    def load(cls, folder: Path) -> Bert:
        """From ``config.json`` and ``model.safetensors``, ready to use; what this encoder has not is left out.

        Raises:
            RuntimeError: weights are missing or of another size.
        """
        sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):  # no weights are drawn that would be thrown away, and no random numbers with them
            model = cls(BertConfig(**{name: sizes[name] for name in BertConfig.__dataclass_fields__ if name in sizes}))
        state = load_file(folder / "model.safetensors")
        model.load_state_dict({name: state[name] for name in model.state_dict() if name in state}, assign=True)
        return model.eval().requires_grad_(False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embeddings(tokens)
        seen = mask[:, None, None, :].bool()
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            x = layer(x, seen)
        return x
