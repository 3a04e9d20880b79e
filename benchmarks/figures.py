"""The sums of the separation benchmark: what a system's outputs are worth, question by question and altogether."""

from __future__ import annotations

import resource
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np
from torch import Tensor

from peav.evaluation import detection
from peav.tracks import scene_of
from samaudio.metrics import improvement, sdr

from .conditions import Mixtures
from .mixtures import Item
from .systems import Separate

SILENCE = -80.0  # dB: an output that is quieter than its mixture by more counts as silent


@dataclass(frozen=True)
class Question:
    """One target of one mixture, and what asking for it brought: improvements in dB."""

    item: str
    target: int
    label: str
    si_sdri: float
    sdri: float


@dataclass
class Figures:
    """Everything measured in a condition. Improvements are SI-SDRi, dB.

    Attributes:
        other: of a target, by the outputs for the other stems' prompts.
        absent: of a target, by the output for a prompt that fits nothing.
        absent_level: of such an output against its mixture, dB.
        there, not_there: presence of targets, and of what is absent; empty for a system that says nothing of it.
        compute, audio: seconds that the system took, and that it was asked to listen, once per prompt.
    """

    mixtures: int = 0
    questions: list[Question] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    absent: list[float] = field(default_factory=list)
    absent_level: list[float] = field(default_factory=list)
    there: list[float] = field(default_factory=list)
    not_there: list[float] = field(default_factory=list)
    compute: float = 0.0
    audio: float = 0.0


def measure(separate: Separate, items: Sequence[Item] | Mixtures, rate: int, title: str = "") -> Figures:
    """Ask for every stem of each mixture and for one thing that is not there. ``title`` stands before the progress."""
    figures = Figures()
    for number, item in enumerate(items, 1):
        answer, mixture = separate(item, item.prompts, rate), item.mixture
        *outputs, stray = answer.targets
        for i in item.targets:
            stem = item.stems[i]
            figures.questions.append(Question(
                item.name, i, item.labels[i], float(improvement(outputs[i], stem, mixture)),
                float(sdr(outputs[i], stem) - sdr(mixture, stem))))  # fmt: skip
            figures.other += [float(improvement(x, stem, mixture)) for k, x in enumerate(outputs) if k != i]
            figures.absent.append(float(improvement(stray, stem, mixture)))
        figures.absent_level.append(level(stray, mixture))
        if answer.presence is not None:
            figures.there += [answer.presence[i] for i in item.targets]
            figures.not_there.append(answer.presence[-1])
        figures.mixtures = number
        figures.compute += answer.seconds
        figures.audio += len(mixture) / rate * len(item.prompts)
        if number % 25 == 0 or number == len(items):
            mean = fmean(q.si_sdri for q in figures.questions)
            print(f"{title}  {number}/{len(items)}  mean SI-SDRi {mean:.2f} dB".strip(), file=sys.stderr, flush=True)
    return figures


def level(output: Tensor, mixture: Tensor) -> float:
    """Energy of an output ``[T]`` against that of its mixture, dB; -80 for silence."""
    ratio = output.square().sum() / mixture.square().sum()
    return max(SILENCE, float(10 * ratio.clamp_min(1e-12).log10()))


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive outranks a negative; ties count half."""
    truth = np.repeat([True, False], [len(positive), len(negative)])
    return detection.auroc(np.concatenate((positive, negative)), truth)


def spread(questions: Sequence[Question]) -> dict:
    """Means, medians and the share that got worse, of some questions."""
    gains, plain = [q.si_sdri for q in questions], [q.sdri for q in questions]
    return {
        "items": len(questions),
        "si_sdri_mean": fmean(gains), "si_sdri_median": median(gains), "worse_than_mixture": worse(gains),
        "sdri_mean": fmean(plain), "sdri_median": median(plain), "sdr_worse_than_mixture": worse(plain),
    }  # fmt: skip


def worse(gains: Sequence[float]) -> float:
    return fmean(gain < 0 for gain in gains)


def summary(figures: Figures, threshold: float | None = None) -> dict:
    """A condition's section of the JSON. What the system says nothing of is left out: presence, speed.

    Args:
        threshold: of the presence at which the system calls a sound present.
    """
    kinds, labels = defaultdict(list), defaultdict(list)
    for question in figures.questions:
        labels[question.label].append(question)
        kinds[scene_of(question.label)].append(question)
    result = {"mixtures": figures.mixtures} | spread(figures.questions) | {
        "other_prompt_mean": fmean(figures.other), "absent_prompt_mean": fmean(figures.absent),
        "absent_level_median": median(figures.absent_level)}  # fmt: skip
    if figures.there:
        result["presence_auroc"] = auroc(figures.there, figures.not_there)
        if threshold is not None:
            result |= {"presence_threshold": threshold,
                       "false_alarms": fmean(presence >= threshold for presence in figures.not_there),
                       "misses": fmean(presence < threshold for presence in figures.there)}  # fmt: skip
    if figures.compute:
        result["real_time_factor"] = figures.audio / figures.compute
    return result | {"scenes": {name: spread(kinds[name]) for name in sorted(kinds)},
                     "labels": {name: spread(labels[name]) for name in sorted(labels)}}  # fmt: skip


def loss(figures: Figures, plain: Figures) -> dict | None:
    """How much worse SI-SDRi is than by plain labels, dB, over the questions that both were asked; None without one."""
    known = {(q.item, q.target): q.si_sdri for q in plain.questions}
    losses = [known[q.item, q.target] - q.si_sdri for q in figures.questions if (q.item, q.target) in known]
    return {"items": len(losses), "mean": fmean(losses), "median": median(losses)} if losses else None


def peak_memory() -> float:
    """The most resident memory that this process had so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # Linux counts KiB
