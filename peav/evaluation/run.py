"""One evaluation: items and a model in, figures out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from . import classification, frames, retrieval
from .embeddings import Embeddings, Track, _silently
from .figures import Figure
from .manifest import Item
from .sets import TASKS, EvaluationSet
from .store import Store


@dataclass(frozen=True)
class Options:
    """How to evaluate; everything has the field's usual value.

    ``tasks``: empty for all that is possible. ``directions``: of retrieval, empty for those of the set. ``cosine``:
    compare by cosine, not by dot product. ``dual``, ``temperature``: see `peav.evaluation.retrieval.retrieve`.
    ``threshold``: see `peav.evaluation.frames`. ``cache``: folder for embeddings. ``fps``, ``lenient``: see
    `peav.evaluation.embeddings.Embeddings`.
    """

    tasks: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    cosine: bool = False
    dual: bool = False
    temperature: float | None = None
    threshold: float | None = None
    cache: str | os.PathLike | None = None
    fps: float | None = None
    lenient: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came out: the figures, the rule for right answers, the model's identity, and per reason how many items
    were left out."""

    figures: list[Figure]
    match: str
    identity: str
    left_out: dict[str, int] = field(default_factory=dict)


def evaluate(
    model: Any, items: Sequence[Item], what: EvaluationSet, options: Options | None = None, track: Track = _silently
) -> Outcome:
    """Every figure that the items and the model allow, or that was asked for.

    Raises:
        UserError: an asked task or direction is not possible, nothing is, or a file cannot be read.
    """
    options = options or Options()
    if what.directions and (unknown := set(options.directions) - set(what.directions)):
        raise UserError(f"{what.title} is not evaluated {sorted(unknown)[0]}; choose {', '.join(what.directions)}")
    match = retrieval.match_of(what, items)
    figures: list[Figure] = []
    identity = model.identity  # reads all weights, so once
    with Store(options.cache, identity) as store:
        embeddings = Embeddings(model, store, fps=options.fps, lenient=options.lenient, track=track)
        directions = retrieval.directions_of(what, items, embeddings, match)
        if impossible := [name for name in options.directions if name not in directions]:
            raise UserError(f"{impossible[0]} is not possible: the model or the manifest lacks a part of it")
        inputs = classification.inputs_of(what, items, embeddings)
        possible = {
            "retrieval": bool(directions),
            "classification": bool(inputs),
            "frames": frames.can_frames(items, embeddings),
        }
        for task in _tasks(options.tasks, what, possible):
            if task == "retrieval":
                figures += retrieval.retrieve(
                    items, embeddings, options.directions or directions, what, match,
                    cosine=options.cosine, dual=options.dual, temperature=options.temperature,
                )  # fmt: skip
            elif task == "classification":
                figures += classification.classify(items, embeddings, inputs, what, cosine=options.cosine)
            else:
                figures += frames.evaluate_frames(items, embeddings, what, threshold=options.threshold)
    return Outcome(figures, match, identity, {why: len(ids) for why, ids in embeddings.left_out.items()})


_NEEDS = {
    "retrieval": "two kinds of audio, video and captions, and a model that embeds both",
    "classification": "labels, and a model that embeds clips",
    "frames": "events, and a model with frames such as facebook/pe-a-frame-small",
}


def _tasks(asked: Sequence[str], what: EvaluationSet, possible: dict[str, bool]) -> list[str]:
    for task in asked:
        if not possible[task]:
            raise UserError(f"{task} is not possible here; it needs {_NEEDS[task]}")
    wanted = asked or [task for task in what.tasks or TASKS if possible[task]]
    if not wanted:
        task = (what.tasks or TASKS)[0]
        raise UserError(f"nothing can be evaluated with this manifest and model; {task} needs {_NEEDS[task]}")
    return list(wanted)
