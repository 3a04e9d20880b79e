"""What choosing among candidates brings: the Judge's choice against the mean, the first and the best candidate.

    python -m benchmarks.reranking PATH/manifest.jsonl --out docs/benchmarks

On the fixed list of mixtures every hypothesis of the separator is a candidate for both labels of an item. "Share" is
the part of the gain of an oracle, which knows the true stem, over the mean candidate. The weights of the last row are
searched on one half of the items and measured on the other, both ways round, so that they are not fitted to what they
are measured on; the row above has the weights that are shipped.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from torch import Tensor

from judge.rank import ranking
from samaudio.metrics import si_sdr
from samaudio.rank import ALONE, WITH_JUDGE, order

from .separation import LIST, Item, render

MEASURES = ("overall", "recall", "precision", "faithfulness", "similarity", "confidence", "order")
GRID = (0.0, 0.5, 1.0, 2.0)
SILENT = -30.0  # dB: a silent candidate would count for any number of decibels


@dataclass
class Case:
    """Candidates of one question: their SI-SDR in dB, and what is known of them without the truth."""

    item: int
    si_sdr: list[float]
    measures: dict[str, list[float]]


@dataclass(frozen=True)
class Choice:
    """Mean over the cases, dB: over the mean candidate; and as a share of what an oracle gains."""

    gain: float
    share: float


def choose(cases: Sequence[Case], weights: Mapping[str, float]) -> Choice:
    """What taking the candidate that ranks first brings."""
    return _choice(cases, [_first(ranking(case.measures, weights)) for case in cases])


def _first(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda k: values[k])


def _choice(cases: Sequence[Case], chosen: Sequence[int]) -> Choice:
    gains = [case.si_sdr[k] - fmean(case.si_sdr) for case, k in zip(cases, chosen, strict=True)]
    most = [max(case.si_sdr) - fmean(case.si_sdr) for case in cases]
    return Choice(fmean(gains), sum(gains) / max(sum(most), 1e-9))


def search(cases: Sequence[Case], measures: Sequence[str] = ("overall", "recall", "confidence", "order")
           ) -> dict[str, float]:  # fmt: skip
    """The weights of a small grid with the highest gain; the first one of equals."""
    every = (dict(zip(measures, values, strict=True)) for values in itertools.product(GRID, repeat=len(measures)))
    return max((weights for weights in every if any(weights.values())), key=lambda weights: choose(cases, weights).gain)


def crossed(cases: Sequence[Case]) -> Choice:
    """Weights searched on one half, measured on the other."""
    halves = [[case for case in cases if case.item % 2 == parity] for parity in (0, 1)]
    found = [choose(halves[1 - i], search(halves[i])) for i in (0, 1)]
    return Choice(fmean(choice.gain for choice in found), fmean(choice.share for choice in found))


def summary(cases: Sequence[Case]) -> dict:
    """Every way to choose, by name, and the weights that a search over all cases finds."""
    rows = {"first": _choice(cases, [0] * len(cases)),
            "oracle": _choice(cases, [_first(case.si_sdr) for case in cases])}
    rows |= {name: choose(cases, {name: 1.0}) for name in MEASURES}
    rows |= {"without a Judge": choose(cases, ALONE), "shipped": choose(cases, WITH_JUDGE), "searched": crossed(cases)}
    return {"questions": len(cases), "candidates": len(cases[0].si_sdr),
            "mean_si_sdr": fmean(fmean(case.si_sdr) for case in cases),
            "choices": {name: vars(choice) for name, choice in rows.items()},
            "shipped_weights": WITH_JUDGE, "searched_weights": search(cases)}  # fmt: skip


def cases_of(separator, item: Item, rate: int) -> list[Case]:
    """Both labels of an item asked for, every hypothesis a candidate."""
    K = separator.model.hypotheses
    results = separator.separate_many(item.mixture[None], list(item.labels), sample_rate=rate, candidates=K)
    found = []
    for stem, result in zip(item.stems, results, strict=True):
        measures: dict[str, list[float]] = {name: [] for name in MEASURES}
        for candidate in result.candidates:
            for name, value in ({**vars(candidate.quality), "similarity": candidate.similarity,
                                 "confidence": candidate.confidence}).items():  # fmt: skip
                measures[name].append(value)
        measures["order"] = order(len(result.candidates))
        truth = [max(float(si_sdr(candidate.target[0], stem)), SILENT) for candidate in result.candidates]
        found.append(Case(item.id, truth, measures))
    return found


def markdown(result: dict) -> str:
    named = {"first": "always the first candidate", "oracle": "oracle", "shipped": "**shipped weights**",
             "searched": "weights searched on the other half"}  # fmt: skip
    lines = ["# Choosing among candidates", "",
             f"{result['questions']} questions with {result['candidates']} candidates each, on mixtures of two "
             f"sources at 0 dB of recordings never trained on (`benchmarks/lists/{LIST.name}`); the mean candidate "
             f"has {result['mean_si_sdr']:.2f} dB SI-SDR. `python -m benchmarks.reranking`.", "",
             "| chosen by | gain over the mean candidate | share of the oracle's gain |", "|---|---:|---:|"]
    for name, choice in result["choices"].items():
        lines.append(f"| {named.get(name, name)} | {choice['gain']:.2f} dB | {100 * choice['share']:.0f} % |")
    told = [", ".join(f"{name} {value:g}" for name, value in weights.items() if value)
            for weights in (result["shipped_weights"], result["searched_weights"])]
    lines += ["", f"Shipped weights: {told[0]}. Best of the grid over all items: {told[1]}."]
    lines += ["", "\"order\" is 1 for the first hypothesis, 0 for the others. A Judge that compares with what a "
              "separator makes of the mixture (docs/judge-training.md) is of little use among hypotheses of the same "
              "separator; its use is to choose among the outputs of others."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="manifest of the pool that the list names")
    parser.add_argument("--model", help="model folder; without it the packaged model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rate", type=int, default=24_000, help="Hz at which mixtures are made and measured")
    parser.add_argument("--limit", type=int, help="only the first N mixtures")
    parser.add_argument("--out", type=Path, help="folder for reranking.json and reranking.md")
    args = parser.parse_args()

    import samaudio

    separator = samaudio.load(args.model, args.device)
    if separator.network is None:
        parser.error("this model has no Judge")
    separator.model.settings["presence_threshold"] = 0.0
    lines = [json.loads(line) for line in LIST.read_text().splitlines()][: args.limit]
    cache: dict[str, Tensor] = {}
    cases: list[Case] = []
    for number, line in enumerate(lines, 1):
        cases += cases_of(separator, render(line, args.manifest.parent, args.rate, cache), args.rate)
        if number % 25 == 0:
            now = choose(cases, WITH_JUDGE)
            print(f"{number}/{len(lines)}  gain {now.gain:.2f} dB, {100 * now.share:.0f} % of the oracle's", flush=True)
    result = summary(cases)
    print(markdown(result))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "reranking.json").write_text(json.dumps(result, indent=1) + "\n")
        (args.out / "reranking.md").write_text(markdown(result))


if __name__ == "__main__":
    main()
