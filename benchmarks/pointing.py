"""Pointing at one of two drawn objects: what comes out for the one that was meant, and for the other one.

    python -m samaudio.drawn films/pairs PATH/manifest.jsonl --pictures pictures --split valid --objects 2 \
        --rate 24000 --fps 24 --size 288
    python -m samaudio.drawn films/alike PATH/manifest.jsonl --pictures pictures --split valid --alike \
        --rate 24000 --fps 24 --size 288
    python -m benchmarks.pointing films/pairs --alike films/alike --out docs/benchmarks

Recordings and drawing style are unseen. Every sounding object of a film is asked for in turn: by a click, which is
followed through the film as a user's would be; by its exact masks; and by its name, which is what looks can hope for.
"Other object" is the click on the other one, measured against the first one's stem. SI-SDRi is the gain in SI-SDR over
the unprocessed mixture.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor

import samaudio
from peav import media
from peav.errors import UserError
from samaudio.drawn.files import read_truth
from samaudio.metrics import si_sdr
from samaudio.prompts import Click, Prompt
from samaudio.sight import looks, shown_at
from samaudio.visual.track import ObjectTrack

SILENT = -30.0  # dB: what a silent target counts for


@dataclass
class Measured:
    """SI-SDRi in dB of every object of every film, by how it was asked for."""

    click: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    exact: list[float] = field(default_factory=list)
    words: list[float] = field(default_factory=list)
    missed: int = 0  # clicks after which nothing could be followed
    silent: int = 0  # clicks whose target was said not to be there
    overlap: list[float] = field(default_factory=list)  # intersection over union of followed and true masks
    seconds: float = 0.0  # per click, following and separating


def gain(estimate: Tensor, target: Tensor, mixture: Tensor) -> float:
    """SI-SDRi in dB of waveforms ``[T]``; a silent estimate counts as :data:`SILENT` dB of SI-SDR."""
    before = float(si_sdr(mixture, target))
    after = SILENT if float(estimate.abs().max()) < 1e-6 else max(SILENT, float(si_sdr(estimate, target)))
    return after - before


def measure(separator: samaudio.Separator, folder: Path, count: int | None, exact: bool = True) -> Measured:
    """Ask for every sounding object of the films in a folder that `samaudio.drawn` wrote."""
    found = Measured()
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()][:count]
    for number, row in enumerate(rows, 1):
        film = folder / row["video"]
        truth = read_truth(film.with_suffix(".npz"))
        sound, rate = media.read(film)
        mixture, stems = sound[0], truth.stems[:, : sound.shape[1]]
        if rate != truth.sample_rate:
            raise UserError(f"{film}: its sound has {rate} Hz and its stems {truth.sample_rate}; draw the films again")
        clicks = [Click(*one["click"]) if one["click"] else None for one in truth.about["objects"]]
        answers: list[Tensor | None] = []
        for k, click in enumerate(clicks[: len(stems)]):
            if click is None:
                answers.append(None)
                continue
            begun = time.monotonic()
            target, track, present = ask(separator, film, click)
            found.seconds += time.monotonic() - begun
            answers.append(target)
            found.missed += track is None
            found.silent += track is not None and not present
            found.click.append(gain(target, stems[k], mixture))
            if track is not None:
                found.overlap.append(iou(track, truth.masks[k], truth.times))
            if exact:
                found.words.append(gain(ask(separator, film, row["objects"][k]["label"])[0], stems[k], mixture))
                times = looks(len(mixture) / rate)
                masks = truth.masks[k][shown_at(truth.times, torch.tensor(times))]
                true = ObjectTrack(tuple(times), masks, torch.ones(len(times)), "drawn", *_size(truth))
                seen, offset = separator.viewer(film, (click,), 0.0, found=true)
                found.exact.append(gain(ask(separator, film, click)[0], stems[k], mixture))
        for k in range(len(stems)):
            other = answers[1 - k] if len(stems) == 2 else None
            if other is not None and clicks[k] is not None:
                found.other.append(gain(other, stems[k], mixture))
        print(f"{number}/{len(rows)}  click {fmean(found.click):.2f} dB  other {fmean(found.other or [0]):.2f} dB  "
              f"exact {fmean(found.exact or [0]):.2f}  words {fmean(found.words or [0]):.2f}", flush=True)
    found.seconds /= max(1, len(found.click))
    return found


def ask(separator: samaudio.Separator, film: Path, prompt: str | Prompt) -> tuple[Tensor, ObjectTrack | None, bool]:
    """The target ``[T]``, whether a threshold would have kept it or not; the object's track; and whether it would."""
    try:
        result = separator.separate(film, prompt)
    except UserError as error:
        if "nothing was found" not in str(error):
            raise
        return torch.zeros(media.read(film)[0].shape[1]), None, False
    track = None if isinstance(prompt, str) else separator.viewer(film, (prompt,), 0.0)[0].track
    return result.candidates[result.chosen].target[0], track, result.present


def iou(track: ObjectTrack, masks: Tensor, times: Tensor) -> float:
    """Mean intersection over union with the true masks ``[N, H, W]``, over the frames in which the object is seen."""
    own = track.resized(*masks.shape[-2:])
    true = masks[shown_at(times, torch.tensor(track.times))]
    seen = true.flatten(1).any(1)
    both, either = (own & true).flatten(1).sum(1), (own | true).flatten(1).sum(1)
    return float((both[seen] / either[seen].clamp_min(1)).mean()) if bool(seen.any()) else 0.0


def _size(truth) -> tuple[int, int]:
    return truth.masks.shape[-1], truth.masks.shape[-2]


def summary(found: Measured) -> dict:
    """Figures of one kind of film."""
    return {"clicks": len(found.click), "seconds_per_click": found.seconds, "nothing_followed": found.missed,
            "said_absent": found.silent, "iou": fmean(found.overlap or [0])} | {
        name: {"mean": fmean(values), "median": median(values), "worse": fmean(v < 0 for v in values)}
        for name in ("click", "exact", "words", "other") if (values := getattr(found, name))
    }  # fmt: skip


def table(results: dict[str, dict]) -> str:
    """Markdown."""
    lines = ["| films | asked by | mean SI-SDRi, dB | median | worse than the mixture |", "|---|---|---|---|---|"]
    names = {"click": "click on it, followed", "exact": "its exact masks", "words": "its name",
             "other": "click on the other object"}
    for kind, figures in results.items():
        for name, text in names.items():
            if name in figures:
                mean, middle, worse = (figures[name][key] for key in ("mean", "median", "worse"))
                lines.append(f"| {kind} | {text} | {mean:.2f} | {middle:.2f} | {100 * worse:.1f} % |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, help="films of two objects")
    parser.add_argument("--alike", type=Path, help="films of two objects that look alike")
    parser.add_argument("--model", help="a model folder; default: the one in the package")
    parser.add_argument("--count", type=int, help="only so many films of each kind")
    parser.add_argument("--out", type=Path, help="a folder for pointing.json and pointing.md")
    given = parser.parse_args(arguments)
    separator = samaudio.load(given.model, judge=False)
    kinds = {"two objects": given.films} | ({"look-alikes": given.alike} if given.alike else {})
    measured = {kind: measure(separator, folder, given.count) for kind, folder in kinds.items()}
    results = {kind: summary(found) for kind, found in measured.items()}
    text = table(results)
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "pointing.json").write_text(
            json.dumps({"results": results, "values": {k: asdict(v) for k, v in measured.items()}}, indent=1) + "\n")
        (given.out / "pointing.md").write_text(f"# Pointing at drawn objects\n\n{_EXPLAINED}\n\n{text}\n\n" + "\n".join(
            f"- {kind}: {f['clicks']} clicks, {f['seconds_per_click']:.1f} s each; masks agree with the drawn ones to "
            f"{f['iou']:.2f} (intersection over union); nothing could be followed after {f['nothing_followed']}; "
            f"{f['said_absent']} were said not to be heard" for kind, f in results.items()) + "\n")


_EXPLAINED = """`python -m benchmarks.pointing`, films of 3 s and 24 pictures a second: unseen recordings and drawing
style. The target is measured whether or not presence would have silenced it."""

if __name__ == "__main__":
    main()
