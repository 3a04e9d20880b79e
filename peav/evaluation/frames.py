"""When something sounds: AUROC over frames, and F1 over spans.

The micro AUROC pools all frames of all clips with every class, so it also asks whether scores of different classes
can be compared; the class mean leaves that out. Spans are the frames above a threshold, joined, and count as right
with DCASE's collar (`peav.evaluation.detection.match_spans`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .. import media
from ..errors import UserError
from ..localize import OVERLAP, WINDOW, frame_logits
from ..spans import THRESHOLD, find_spans
from .classification import classes_of
from .detection import Counts, auroc, frame_truth, match_spans, mean_defined
from .embeddings import Embeddings, first_sample, until
from .figures import Figure
from .manifest import Item
from .sets import EvaluationSet
from .store import file_key, key_of

_LOWEST = -1e4  # log-odds in a silent recording, of which no model says anything


def can_frames(items: Sequence[Item], embeddings: Embeddings) -> bool:
    """Whether the items have times and the model has frames."""
    return bool(getattr(embeddings.model, "has_frames", False)) and any(item.events is not None for item in items)


def evaluate_frames(
    items: Sequence[Item], embeddings: Embeddings, what: EvaluationSet, *, threshold: float | None = None
) -> list[Figure]:
    """Figures over all classes, and for each class.

    Args:
        threshold: probability above which a frame is on; None: the model's own, which for published ones is 0.3.
    """
    if threshold is None:
        threshold = getattr(embeddings.model, "frame_threshold", THRESHOLD)
    items = [item for item in items if item.events is not None and item.audio is not None]
    classes = classes_of(what, [_with_labels(item) for item in items])
    if not classes:
        raise UserError("no item has an event, so there is nothing to find; check the manifest")
    step = embeddings.model.frame_seconds
    scores: list[np.ndarray] = []
    truths: list[np.ndarray] = []
    counts = [Counts() for _ in classes]
    for item in embeddings.track(items, "frames"):
        try:
            logits = class_logits(item, embeddings, classes, what)
        except UserError:
            if not embeddings.lenient:
                raise
            embeddings.left_out.setdefault("cannot be read", set()).add(item.id)
            continue
        end = logits.shape[1] * step if item.end is None else item.end - item.start
        found = find_spans(torch.from_numpy(logits), step, end=end, threshold=threshold)
        truth = np.zeros(logits.shape, dtype=bool)
        for c, name in enumerate(classes):
            true = [(event.start, event.end) for event in item.events or () if event.label == name]
            truth[c] = frame_truth(true, logits.shape[1], step)
            counts[c] += match_spans([(span.start, span.end) for span in found[c]], true)
        scores.append(logits)
        truths.append(truth)
    if not scores:
        raise UserError("no item with events can be read; check the files")
    return _figures(np.concatenate(scores, 1), np.concatenate(truths, 1), counts, classes, len(scores))


def _figures(
    scores: np.ndarray, truth: np.ndarray, counts: Sequence[Counts], classes: Sequence[str], items: int
) -> list[Figure]:
    each = np.array([auroc(row, true) for row, true in zip(scores, truth, strict=True)])
    f1 = np.array([count.f1 for count in counts])
    values = {
        "AUROC": auroc(scores.ravel(), truth.ravel()),
        "AUROC, class mean": mean_defined(each),
        "event F1": sum(counts, Counts()).f1,
        "event F1, class mean": mean_defined(f1),
    }
    total = {"items": items, "frames": scores.shape[1], "classes": len(classes)}
    return [Figure("frames", "all classes", values, total)] + [
        Figure("frames", name, {"AUROC": float(area), "event F1": float(share)}, {"frames": int(true.sum())})
        for name, area, share, true in zip(classes, each, f1, truth, strict=True)
    ]


def class_logits(item: Item, embeddings: Embeddings, classes: Sequence[str], what: EvaluationSet) -> np.ndarray:
    """Log-odds ``[C, F]`` that each class sounds in each frame: the mean over its templates."""
    assert item.audio is not None
    prompts = [text for name in classes for text in what.prompts(name)]
    key = key_of("frames", WINDOW, OVERLAP, file_key(item.audio), item.start, item.end, *prompts)
    kept = embeddings.store.get(key)
    if kept is None:
        with media.stream(item.audio, 1 << 16, first_sample(item)) as blocks:
            rate = blocks.info.sample_rate
            heard = frame_logits(embeddings.model, until(blocks, item, rate), rate, prompts)
        made = heard.logits.clamp(min=_LOWEST).unflatten(0, (len(classes), len(what.templates))).mean(1)
        kept = made.numpy()
        embeddings.store.put(key, kept)
    return kept


def _with_labels(item: Item) -> Item:
    return Item(item.id, labels=tuple(event.label for event in item.events or ()))
