"""Separation quality on the fixed list of mixtures: SI-SDR improvement, wrong prompts, presence, speed.

    python -m benchmarks.separation PATH/manifest.jsonl --out docs/benchmarks
    python -m benchmarks.separation PATH/manifest.jsonl --system oracle     # ideal ratio mask: the ceiling
    python -m benchmarks.separation PATH/manifest.jsonl --system mixture    # unprocessed: 0 dB by definition

Both stems of a mixture are asked for by their plain labels. "Other prompt" is the output for the other stem's label
measured against this stem; "absent prompt" the output for a label that is not in the mixture. The presence gate is
off for those figures, so that a silenced output cannot hide a mistake, and is reported by itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from peav import media
from peav.tracks import scene_of
from samaudio.metrics import improvement, sdr
from samaudio.project import project, window_length

LIST = Path(__file__).parent / "lists" / "two_sources_0db.jsonl"


@dataclass
class Item:
    """A rendered mixture: ``stems [2, T]`` at equal energy, their labels, a label that is absent."""

    id: int
    labels: list[str]
    absent: str
    stems: Tensor

    @property
    def mixture(self) -> Tensor:
        return self.stems.sum(0)


@dataclass
class Answer:
    """Outputs for one mixture: a waveform ``[T]`` and presence for each prompt."""

    targets: list[Tensor]
    presence: list[float]
    seconds: float = 0.0


Separate = Callable[[Item, Sequence[str], int], Answer]


def render(line: dict, pool: Path, rate: int, cache: dict[str, Tensor]) -> Item:
    """One line of the list as sound. Stems are set to equal energy, the mixture to a peak of 0.5."""
    T = round(line["seconds"] * rate)
    stems = torch.zeros(len(line["stems"]), T)
    for stem, spec in zip(stems, line["stems"], strict=True):
        for event in spec["events"]:
            if event["path"] not in cache:
                waveform, source_rate = media.read(pool / event["path"])
                cache[event["path"]] = media.resample(waveform.mean(0), source_rate, rate)
            clip = cache[event["path"]][round(event["from"] * rate):][: round(event["length"] * rate)]
            at = round(event["at"] * rate)
            clip = clip[: T - at]
            stem[at:at + len(clip)] += event["gain"] * clip
        stem /= stem.square().sum().sqrt().clamp_min(1e-6)
    return Item(line["id"], [s["label"] for s in line["stems"]], line["absent"],
                stems * (0.5 / stems.sum(0).abs().max()))


def ours(model: str | None, device: str) -> tuple[Separate, float]:
    """The separator of a model folder (None: the packaged one) and its presence threshold."""
    import samaudio

    separator = samaudio.load(model, device, judge=False)  # one candidate: nothing to choose
    threshold = separator.model.presence_threshold
    separator.model.settings["presence_threshold"] = 0.0

    def run(item: Item, prompts: Sequence[str], rate: int) -> Answer:
        started = time.perf_counter()
        results = separator.separate_many(item.mixture[None], list(prompts), sample_rate=rate)
        return Answer([r.target[0] for r in results], [r.scores.presence for r in results],
                      time.perf_counter() - started)

    return run, threshold


def oracle(item: Item, prompts: Sequence[str], rate: int) -> Answer:
    """Ideal ratio mask on the STFT that the projection uses; silence for a label that is not there."""
    window = torch.hann_window(window_length(rate))
    targets = []
    for prompt in prompts:
        stem = item.stems[item.labels.index(prompt)] if prompt in item.labels else torch.zeros_like(item.mixture)
        targets.append(project(item.mixture, stem, item.mixture - stem, window))
    return Answer(targets, [float(p in item.labels) for p in prompts])


def unprocessed(item: Item, prompts: Sequence[str], rate: int) -> Answer:
    return Answer([item.mixture for _ in prompts], [1.0 for _ in prompts])


@dataclass
class Figures:
    """Everything measured, item by item."""

    gains: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    absent: list[float] = field(default_factory=list)
    by_label: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    there: list[float] = field(default_factory=list)
    not_there: list[float] = field(default_factory=list)
    compute: float = 0.0
    audio: float = 0.0


def measure(separate: Separate, items: Sequence[Item], rate: int) -> Figures:
    figures = Figures()
    for number, item in enumerate(items, 1):
        answer = separate(item, [*item.labels, item.absent], rate)
        mixture = item.mixture
        for i, label in enumerate(item.labels):
            stem = item.stems[i]
            gain = float(improvement(answer.targets[i], stem, mixture))
            figures.gains.append(gain)
            figures.plain.append(float(sdr(answer.targets[i], stem) - sdr(mixture, stem)))
            figures.by_label[label].append(gain)
            figures.other.append(float(improvement(answer.targets[1 - i], stem, mixture)))
            figures.absent.append(float(improvement(answer.targets[2], stem, mixture)))
        figures.there += answer.presence[:2]
        figures.not_there.append(answer.presence[2])
        figures.compute += answer.seconds
        figures.audio += len(mixture) / rate * 3
        if number % 50 == 0:
            print(f"{number}/{len(items)}  mean SI-SDRi {fmean(figures.gains):.2f} dB", flush=True)
    return figures


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive outranks a negative; ties count half. Rank-sum formula."""
    values = np.concatenate((positive, negative))
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def summary(figures: Figures, threshold: float) -> dict:
    gains = figures.gains
    scenes: dict[str, list[float]] = defaultdict(list)
    for label, values in figures.by_label.items():
        scenes[scene_of(label)] += values
    return {
        "items": len(gains),
        "si_sdri_mean": fmean(gains), "si_sdri_median": median(gains), "sdri_mean": fmean(figures.plain),
        "worse_than_mixture": float(np.mean(np.array(gains) < 0)),
        "other_prompt_mean": fmean(figures.other), "absent_prompt_mean": fmean(figures.absent),
        "presence_auroc": auroc(figures.there, figures.not_there),
        "presence_threshold": threshold,
        "false_alarms": float(np.mean(np.array(figures.not_there) >= threshold)),
        "misses": float(np.mean(np.array(figures.there) < threshold)),
        "real_time_factor": figures.audio / figures.compute if figures.compute else None,
        "scenes": {k: {"items": len(v), "si_sdri_mean": fmean(v)} for k, v in sorted(scenes.items())},
        "labels": {k: {"items": len(v), "si_sdri_mean": fmean(v), "si_sdri_median": median(v)}
                   for k, v in sorted(figures.by_label.items())},
    }


def markdown(name: str, result: dict) -> str:
    """The summary as a page."""
    speed = result["real_time_factor"]
    lines = [
        f"# Separation benchmark: {name}", "",
        f"{result['items']} questions on {result['items'] // 2} mixtures of two sources at 0 dB, 4 s, "
        f"{result['rate']} Hz, "
        f"recordings that were never trained on (`benchmarks/lists/{LIST.name}`). {platform.machine()}, "
        f"{torch.get_num_threads()} threads.", "",
        "| figure | value |", "|---|---:|",
        f"| SI-SDRi, mean | {result['si_sdri_mean']:.2f} dB |",
        f"| SI-SDRi, median | {result['si_sdri_median']:.2f} dB |",
        f"| SDRi, mean | {result['sdri_mean']:.2f} dB |",
        f"| worse than the mixture | {100 * result['worse_than_mixture']:.1f} % |",
        f"| prompt for the other source, mean SI-SDRi | {result['other_prompt_mean']:.2f} dB |",
        f"| prompt for an absent sound, mean SI-SDRi | {result['absent_prompt_mean']:.2f} dB |",
        f"| presence, AUROC | {result['presence_auroc']:.3f} |",
        f"| at the threshold {result['presence_threshold']:.2f}: false alarms | {100 * result['false_alarms']:.1f} % |",
        f"| at the threshold {result['presence_threshold']:.2f}: misses | {100 * result['misses']:.1f} % |",
        f"| speed, times real time per prompt | {speed:.1f} |" if speed else "| speed | - |",
        "", "| kind | items | mean SI-SDRi (dB) |", "|---|---:|---:|",
    ]
    lines += [f"| {k} | {v['items']} | {v['si_sdri_mean']:.2f} |" for k, v in result["scenes"].items()]
    lines += ["", "| label | items | mean SI-SDRi (dB) | median |", "|---|---:|---:|---:|"]
    lines += [f"| {k} | {v['items']} | {v['si_sdri_mean']:.2f} | {v['si_sdri_median']:.2f} |"
              for k, v in result["labels"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="manifest of the pool that the list names")
    parser.add_argument("--system", default="ours", choices=("ours", "oracle", "mixture"))
    parser.add_argument("--model", help="model folder; without it the packaged model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rate", type=int, default=24_000, help="Hz at which mixtures are made and measured")
    parser.add_argument("--limit", type=int, help="only the first N mixtures")
    parser.add_argument("--out", type=Path, help="folder for <name>.json and <name>.md")
    parser.add_argument("--name", help="name of the result files; the system's by default")
    args = parser.parse_args()
    lines = [json.loads(line) for line in LIST.read_text().splitlines()][: args.limit]
    cache: dict[str, Tensor] = {}
    items = [render(line, args.manifest.parent, args.rate, cache) for line in lines]
    threshold = 0.5
    if args.system == "ours":
        separate, threshold = ours(args.model, args.device)
    else:
        separate = oracle if args.system == "oracle" else unprocessed
    result = summary(measure(separate, items, args.rate), threshold) | {"rate": args.rate}
    name = args.name or args.system
    text = markdown(name, result)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        (args.out / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
