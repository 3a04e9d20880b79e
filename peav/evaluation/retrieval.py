"""Retrieval in every direction that the items and the model allow.

Which answers are right is one of three rules (``match``):

item   the item that the query belongs to, as the field counts it. Every caption is a query of its own; asked for a
       caption, any of the item's own is right.
text   also items described in the same words. Texts are then told apart by their words alone, each once.
label  also items and texts of the same class, or of classes that cannot be told apart by name
       (`peav.captions.overlap`). Texts are the captions and the names of the classes, each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..captions import overlap
from ..errors import UserError
from .embeddings import TEXT_FOR, Embeddings
from .figures import RECALLS, Figure
from .manifest import Item
from .ranking import Ranks, Relevance, rank
from .sets import DIRECTIONS, EvaluationSet

# The name of a model's logits for two kinds, see `peav.model.PEAV.logits`.
_PAIRS = {
    frozenset({"text", "audio"}): "text_audio",
    frozenset({"text", "video"}): "text_video",
    frozenset({"text", "audio+video"}): "text_audio_video",
    frozenset({"audio", "video"}): "audio_video",
    frozenset({"audio+text", "video"}): "audio_plus_text",
    frozenset({"video+text", "audio"}): "video_plus_text",
}


@dataclass(frozen=True)
class Side:
    """Queries or candidates: vectors ``[N, E]``, and for each the keys that it shares with what is right for it."""

    vectors: Tensor
    keys: list[frozenset[Any]]


def match_of(what: EvaluationSet, items: Sequence[Item]) -> str:
    """The rule of the set; without one, ``label`` where items with captions share classes, ``item`` otherwise."""
    if what.match is not None:
        return what.match
    classes = Counter(label for item in items for label in item.labels)
    shared = bool(classes) and max(classes.values()) > 1
    return "label" if shared and any(item.captions or item.captions_of for item in items) else "item"


def directions_of(what: EvaluationSet, items: Sequence[Item], embeddings: Embeddings, match: str) -> list[str]:
    """Directions of the set, or all, that the items and the model allow."""
    has = {"audio": any(item.audio for item in items), "video": any(item.video for item in items)}

    def allowed(kind: str, partner: str) -> bool:
        worded = any(item.texts(_described(partner)) for item in items) or (
            kind == "text" and match == "label" and any(item.labels for item in items)
        )
        return embeddings.can(kind) and all(worded if part == "text" else has[part] for part in kind.split("+"))

    pairs = {name: name.split("->") for name in what.directions or DIRECTIONS}
    return [name for name, (ask, answer) in pairs.items() if allowed(ask, answer) and allowed(answer, ask)]


def _described(partner: str) -> str:
    """What texts describe, alone or joined with something: the partner that they are compared with."""
    return TEXT_FOR.get(partner, "audio")


def retrieve(
    items: Sequence[Item],
    embeddings: Embeddings,
    directions: Iterable[str],
    what: EvaluationSet,
    match: str,
    *,
    cosine: bool = False,
    dual: bool = False,
    temperature: float | None = None,
) -> list[Figure]:
    """R@1, R@5, R@10 and median rank of each direction.

    Args:
        cosine: compare by cosine instead of the dot product, which the models are trained on.
        dual: use the dual softmax, see `peav.evaluation.ranking.dual_softmax`.
        temperature: of the dual softmax; by default the scale that the model was trained with, for cosines 100.
    """
    sides = _Sides(items, embeddings, what, match)
    figures = []
    for direction in directions:
        ask, answer = direction.split("->")
        queries, candidates = sides.of(ask, answer), sides.of(answer, ask)
        queries = _answerable(queries, candidates, similar=match == "label")
        if not len(queries.keys):
            raise UserError(f"{direction}: no query has a right answer; the manifest lacks pairs of {ask} and {answer}")
        rows, columns = queries.vectors, candidates.vectors
        if cosine:
            rows, columns = (torch.nn.functional.normalize(side, dim=-1) for side in (rows, columns))
        heat = None
        if dual:
            own = 100.0 if cosine else _scale(embeddings.model, ask, answer, rows.shape[-1])
            heat = own if temperature is None else temperature
        ranks = rank(rows, columns, _relevance(queries, candidates), temperature=heat)
        counts = {"queries": len(ranks), "candidates": len(candidates.keys)}
        figures.append(Figure("retrieval", direction, values_of(ranks), counts))
    return figures


def values_of(ranks: Ranks) -> dict[str, float]:
    """R@k and the median rank by name."""
    return {f"R@{k}": ranks.recall(k) for k in RECALLS} | {"median rank": ranks.median()}


class _Sides:
    """The queries and candidates of each kind, built once."""

    def __init__(self, items: Sequence[Item], embeddings: Embeddings, what: EvaluationSet, match: str) -> None:
        self.items, self.embeddings, self.what, self.match = items, embeddings, what, match
        self._made: dict[tuple[str, str], Side] = {}

    def of(self, kind: str, partner: str) -> Side:
        """The side of ``kind`` in a comparison with ``partner``."""
        # Only texts have an embedding for each partner; and texts alone know items by their words.
        worded = self.match == "text" and "text" in (kind, partner)
        described = _described(partner)
        key = kind, (described if kind == "text" else "") + ("worded" if worded else "")
        if key not in self._made:
            made = self._texts(described) if kind == "text" else self._things(kind, described, worded)
            self._made[key] = made
        return self._made[key]

    def _texts(self, text_for: str) -> Side:
        pairs: list[tuple[str, frozenset[Any]]]
        if self.match == "item":
            pairs = [(text, frozenset({i})) for i, item in enumerate(self.items) for text in item.texts(text_for)]
        elif self.match == "text":
            texts = dict.fromkeys(text for item in self.items for text in item.texts(text_for))
            pairs = [(text, frozenset({text})) for text in texts]
        else:
            classes: dict[str, set[str]] = {}
            for item in self.items:
                for text in (*item.texts(text_for), *map(self.what.words, item.labels)):
                    classes.setdefault(text, set()).update(item.labels)
            pairs = [(text, frozenset(labels)) for text, labels in classes.items()]
        if not pairs:
            return Side(torch.zeros(0, 1), [])
        return Side(self.embeddings.texts([text for text, _ in pairs], text_for), [keys for _, keys in pairs])

    def _things(self, kind: str, described: str, worded: bool) -> Side:
        if kind.endswith("+text"):
            many = self.embeddings.joined(kind, self.items, [item.texts(described) for item in self.items])
        else:
            many = [None if one is None else [one] for one in self.embeddings.media(kind, self.items)]
        found = [(vector, self._keys(i, kind, worded)) for i, own in enumerate(many) for vector in own or ()]
        if not found:
            return Side(torch.zeros(0, 1), [])
        return Side(torch.stack([vector for vector, _ in found]), [keys for _, keys in found])

    def _keys(self, i: int, kind: str, worded: bool) -> frozenset[Any]:
        if self.match == "label":
            return frozenset(self.items[i].labels)
        return frozenset(self.items[i].texts(TEXT_FOR[kind])) if worded else frozenset({i})


def _answerable(queries: Side, candidates: Side, similar: bool) -> Side:
    """The queries that have a right answer; their keys become those of right answers, ``similar`` classes too."""
    known: frozenset[Any] = frozenset().union(*candidates.keys)
    wide: dict[Any, frozenset[Any]] = {}
    for key in frozenset().union(*queries.keys):
        wide[key] = frozenset(other for other in known if overlap(key, other)) if similar else known & {key}
    keys: list[frozenset[Any]] = [frozenset().union(*(wide[key] for key in own)) for own in queries.keys]
    kept = [i for i, own in enumerate(keys) if own]
    return Side(queries.vectors[kept], [keys[i] for i in kept])


def _relevance(queries: Side, candidates: Side) -> Relevance:
    places: dict[Any, list[int]] = {}
    for column, keys in enumerate(candidates.keys):
        for key in keys:
            places.setdefault(key, []).append(column)

    def relevant(start: int, stop: int) -> Tensor:
        rows = torch.zeros(min(stop, len(queries.keys)) - start, len(candidates.keys), dtype=torch.bool)
        for row, keys in enumerate(queries.keys[start:stop]):
            for key in keys:
                rows[row, places[key]] = True
        return rows

    return relevant


def _scale(model: Any, ask: str, answer: str, width: int) -> float:
    """What the model multiplies dot products of this pair with; 1 where that was never trained."""
    name = _PAIRS[frozenset({ask, answer})]
    unit = torch.eye(1, width, device=model.device)
    scale = float((model.logits(name, unit, unit) - model.logits(name, unit, 0 * unit)).detach())
    return scale if scale > 0 else 1.0
