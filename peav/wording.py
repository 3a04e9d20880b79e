"""Unusual wordings: what a text head makes of "the crack on two and four" when training said "snare drum".

A text head is one linear layer over the frozen sentence encoder, and has seen a few words per sound. In front of it,
`Wording` moves sentence vectors of other wordings towards those that the heads know; vectors of known wordings, and of
sounds that nothing in the pool makes, stay about where they are. `peav.train_wording` teaches it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch.nn.functional as F_
from torch import Tensor, nn

PHRASINGS = Path(__file__).with_name("phrasings.json")


class Wording(nn.Module):
    """Sentence vectors ``[B, D]`` to sentence vectors ``[B, D]``: one hidden layer, added to its input.

    Starts as nothing, so that it can be given to a model that was trained without it.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.5):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Linear(hidden, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors + self.leave(self.dropout(F_.gelu(self.enter(self.norm(vectors)))))


@lru_cache(maxsize=1)
def phrasings() -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Phrases as people would ask for a sound, by its label, and phrases for sounds that no label covers."""
    found = json.loads(PHRASINGS.read_text(encoding="utf-8"))
    return {label: tuple(phrases) for label, phrases in found["labels"].items()}, tuple(found["absent"])
