"""How well a Judge judges: its scores of a collection against what is true of it.

Axes: ``N`` mixtures, ``Q`` questions, ``M`` outputs of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .collection import Collection
from .comparisons import Comparisons
from .grid import Compared, Words, encoded, judge_compared, judge_grid
from .model import SCORES, JudgeModel


@dataclass
class Table:
    """Scores ``told [N, Q, M, 4]`` and ``true`` (NaN where undefined), ``si_sdr [N, Q, M]`` dB (NaN for absent sounds),
    ``of [N, M]`` the question that an output answers (-1: none), ``candidate [N, M]`` whether it is one of several,
    ``present [N, Q]``, ``presence [N, Q]`` log-odds (NaN without that head)."""

    told: np.ndarray
    true: np.ndarray
    si_sdr: np.ndarray
    of: np.ndarray
    candidate: np.ndarray
    present: np.ndarray
    presence: np.ndarray


@torch.inference_mode()
def table(
    model: JudgeModel, collection: Collection, batch: int = 8, most: int | None = None,
    known: tuple[Comparisons, int] | None = None,
) -> Table:
    """Let ``model`` judge the first ``most`` mixtures of a collection: every output by every question. ``known``: what
    was compared already, and the collection's number there."""
    words = Words(model)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in Table.__annotations__}
    count = min(len(collection), most or len(collection))
    for first in range(0, count, batch):
        items = [collection[i] for i in range(first, min(first + batch, count))]
        examples = [item.example for item in items]
        if known is None:
            grid = judge_grid(model, *encoded(model, examples, words))
        else:
            comparisons, number = known
            compared = comparisons.batch(torch.tensor([[number, i] for i in range(first, first + len(items))]))
            grid = judge_compared(model, Compared(*(x.to(model.device) for x in vars(compared).values())))
        rows["told"].append(grid.scores.cpu().numpy())
        missing = torch.full(grid.scores.shape[:2], torch.nan)
        rows["presence"].append((missing if grid.presence is None else grid.presence.mean(2)).cpu().numpy())
        rows["true"].append(torch.stack([item.scores for item in items]).numpy())
        rows["si_sdr"].append(torch.stack([item.si_sdr for item in items]).numpy())
        rows["of"].append(np.array([e.of for e in examples]))
        rows["candidate"].append(np.array([[k.startswith("candidate") for k in e.kinds] for e in examples]))
        rows["present"].append(np.array([[q.present for q in e.questions] for e in examples]))
    return Table(**{name: np.concatenate(values) for name, values in rows.items()})


def figures(found: Table) -> dict[str, float]:
    """Everything that can be said in one number; NaN where a table does not hold what it takes."""
    asked = _asked(found)
    result = {"spearman_si_sdr": spearman(found.told[..., 0][asked], found.si_sdr[asked])}
    for i, name in enumerate(SCORES):
        known = asked & ~np.isnan(found.true[..., i])
        result[f"spearman_{name}"] = spearman(found.told[..., i][known], found.true[..., i][known])
        result[f"error_{name}"] = float(np.abs(found.told[..., i][known] - found.true[..., i][known]).mean())
    other, absent = right_prompt(found)
    cases = [*other, *absent]
    result |= {"right_prompt": share(cases), "right_prompt_other": share(other), "right_prompt_absent": share(absent),
               "right_prompt_cases": float(len(cases))}  # fmt: skip
    result |= gains(found, found.told[..., 0])
    result["presence_auroc"] = auroc(found.presence[found.present], found.presence[~found.present])
    return result


def _asked(found: Table) -> np.ndarray:
    """``[N, Q, M]``: an output and the question it answers, where that sound is in the mixture."""
    answers = found.of[:, None, :] == np.arange(found.present.shape[1])[None, :, None]
    return answers & found.present[:, :, None]


def right_prompt(found: Table) -> tuple[list[bool], list[bool]]:
    """Whether an output's own prompt scores more than a wrong one: for the prompt of another sound in the mixture, and
    of a sound that is absent. Only outputs that deserve it count: their true score is at least one point higher."""
    asked = _asked(found)
    other: list[bool] = []
    absent: list[bool] = []
    for n, q, m in zip(*np.nonzero(asked), strict=True):
        for wrong in range(found.present.shape[1]):
            if wrong == q or not found.true[n, q, m, 0] >= found.true[n, wrong, m, 0] + 1:
                continue
            cases = other if found.present[n, wrong] else absent
            cases.append(bool(found.told[n, q, m, 0] > found.told[n, wrong, m, 0]))
    return other, absent


def gains(found: Table, score: np.ndarray) -> dict[str, float]:
    """What choosing among the candidates of a question by ``score [N, Q, M]`` brings over their mean, dB, what the best
    choice would bring, and the share of it that is reached."""
    asked = _asked(found) & found.candidate[:, None]
    chosen, best = [], []
    for n, q in zip(*np.nonzero(asked.sum(2) > 1), strict=True):
        these = np.nonzero(asked[n, q])[0]
        truth = np.maximum(found.si_sdr[n, q, these], -30.0)  # silence would count for any number of decibels
        chosen.append(float(truth[np.argmax(score[n, q, these])] - truth.mean()))
        best.append(float(truth.max() - truth.mean()))
    if not best:
        return {"gain": float("nan"), "oracle_gain": float("nan"), "gain_share": float("nan"), "questions": 0.0}
    return {"gain": float(np.mean(chosen)), "oracle_gain": float(np.mean(best)),
            "gain_share": float(np.sum(chosen) / max(np.sum(best), 1e-9)), "questions": float(len(best))}  # fmt: skip


def share(cases: Sequence[bool]) -> float:
    return float(np.mean(cases)) if len(cases) else float("nan")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the ranks (mean rank for equals); NaN for fewer than three pairs or without any spread."""
    a, b = ranks(a), ranks(b)
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive outranks a negative; ties count half."""
    n, m = len(positive), len(negative)
    if not n or not m or np.isnan(positive).any():
        return float("nan")
    return float((ranks(np.concatenate((positive, negative)))[:n].sum() - n * (n + 1) / 2) / (n * m))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equals share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
