"""Zero-shot classification: which class name is nearest to a clip.

A class is scored by the mean over its templates of the dot product with the clip. Where every item has one class,
the figures are top-1 and top-5 accuracy, and where some classes cannot be told apart by name
(`peav.captions.overlap`) also the accuracy that lets these pass. Where items have several, they are mAP, the mean
over the classes of their average precision as in AudioSet, and the share of items whose nearest class is one of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..captions import overlap
from ..errors import UserError
from .detection import average_precision, mean_defined, per_class
from .embeddings import TEXT_FOR, Embeddings
from .figures import Figure
from .manifest import Item
from .ranking import ranks_of
from .sets import INPUTS, EvaluationSet


def classes_of(what: EvaluationSet, items: Sequence[Item]) -> list[str]:
    """The classes of the set, or those of the items in alphabetical order.

    Raises:
        UserError: an item has a class that the set does not know.
    """
    found = {label for item in items for label in item.labels}
    if not what.labels:
        return sorted(found)
    if strange := sorted(found - set(what.labels)):
        raise UserError(f"class '{strange[0]}' is none of {what.title or what.name}; check the split and the metadata")
    return list(what.labels)


def inputs_of(what: EvaluationSet, items: Sequence[Item], embeddings: Embeddings) -> list[str]:
    """Inputs of the set, or all, that the items and the model allow."""
    if not any(item.labels for item in items):
        return []
    has = {"audio": any(item.audio for item in items), "video": any(item.video for item in items)}
    wanted = what.inputs or INPUTS
    return [kind for kind in wanted if embeddings.can(kind) and all(has[part] for part in kind.split("+"))]


def classify(
    items: Sequence[Item], embeddings: Embeddings, inputs: Iterable[str], what: EvaluationSet, *, cosine: bool = False
) -> list[Figure]:
    """Figures for each input: audio, video, audio+video."""
    # An item with known times and no events is one without any of the classes; else it says nothing.
    items = [item for item in items if item.labels or item.events is not None]
    classes = classes_of(what, items)
    single = all(len(item.labels) == 1 for item in items)
    figures = []
    for kind in inputs:
        vectors = embeddings.media(kind, items)
        kept = [(item, vector) for item, vector in zip(items, vectors, strict=True) if vector is not None]
        if not kept:
            raise UserError(f"no item has {kind} to classify; choose another task with --task")
        clips = torch.stack([vector for _, vector in kept])
        scores = _scores(clips, class_vectors(classes, embeddings, TEXT_FOR[kind], what, cosine), cosine)
        truth = torch.tensor([[name in item.labels for name in classes] for item, _ in kept])
        values = _one_class(scores, truth, classes) if single else _many_classes(scores, truth)
        figures.append(Figure("classification", kind, values, {"items": len(kept), "classes": len(classes)}))
    return figures


def class_vectors(
    classes: Sequence[str], embeddings: Embeddings, text_for: str, what: EvaluationSet, cosine: bool
) -> Tensor:
    """``[C, E]``: the mean over each class's templates."""
    prompts = [what.prompts(name) for name in classes]
    vectors = embeddings.texts([text for texts in prompts for text in texts], text_for)
    if cosine:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return vectors.unflatten(0, (len(classes), len(what.templates))).mean(1)


def _scores(clips: Tensor, classes: Tensor, cosine: bool) -> Tensor:
    if cosine:
        clips = torch.nn.functional.normalize(clips, dim=-1)
    return clips.double() @ classes.double().T


def _one_class(scores: Tensor, truth: Tensor, classes: Sequence[str]) -> dict[str, float]:
    ranks = ranks_of(scores, truth)
    values = {"top-1": ranks.recall(1), "top-5": ranks.recall(5)}
    near = torch.tensor([[overlap(a, b) for b in classes] for a in classes])
    if bool((near & ~torch.eye(len(classes), dtype=torch.bool)).any()):
        values["top-1, similar names pass"] = ranks_of(scores, near[truth.int().argmax(1)]).recall(1)
    return values


def _many_classes(scores: Tensor, truth: Tensor) -> dict[str, float]:
    each = per_class(average_precision, scores.numpy(), truth.numpy())
    values = {"mAP": mean_defined(np.asarray(each))}
    some = truth.any(1)
    if bool(some.any()):
        values["nearest is right"] = ranks_of(scores[some], truth[some]).recall(1)
    return values
