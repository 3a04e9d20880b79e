"""Which of fifty sounds does this object make? Video-to-audio R@1 in drawn films of unseen recordings and style.

    python -m benchmarks.object_retrieval PATH/manifest.jsonl --pictures pictures --out docs/benchmarks

Every sounding object of a film is looked at through masks as a segmenter gives them, and has to find its own stem among
fifty stems of other objects, most of other films: by what it looks like (PE-AV's towers), by how it moves
(`samaudio.pulse`), and by both (`MaskModel.matches`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import samaudio
from peav.clips import ClipStore
from samaudio.drawn import HELD_OUT, DrawnFilms, Recipe, open_pictures
from samaudio.drawn.views import SEEN, damaged, look_at, well_seen
from samaudio.model import MaskModel
from samaudio.sight import Sight, beat_of, sight_of
from samaudio.visual.geometry import geometry

AMONG = 50


@torch.inference_mode()
def objects(model: MaskModel, films: DrawnFilms, count: int, seed: int = 0) -> tuple[list[Sight], Tensor]:
    """What the model sees of ``count`` objects, and their stems ``[count, T]``."""
    rng = np.random.default_rng(seed)
    size = tuple(model.settings["close_up"])
    seen: list[Sight] = []
    stems: list[Tensor] = []
    number = 0
    while len(seen) < count:
        film = films[number]
        number += 1
        for true, stem in zip(film.masks, film.stems, strict=True):
            if not well_seen(true):
                continue
            masks = damaged(true, rng)
            views = look_at(film, masks, rng, size)[0]  # type: ignore[arg-type]
            beat = beat_of(model.pulse, geometry(film.frames, masks))
            seen.append(sight_of(model.embedder, views, film.times, true.sum((1, 2)) >= SEEN, beat=beat))
            stems.append(stem)
    return seen[:count], torch.stack(stems[:count])


def recall(scores: Tensor, k: int = 1) -> float:
    """Share of rows ``[M, M]`` whose own column is among the best ``k``."""
    best = scores.topk(k, dim=1).indices
    return float((best == torch.arange(len(scores))[:, None]).any(1).float().mean())


def measure(model: MaskModel, films: DrawnFilms, groups: int) -> dict[str, dict[str, float]]:
    """R@1, R@5 and R@10 by looks, by movement and by both."""
    seen, stems = objects(model, films, groups * AMONG)
    found: dict[str, list[tuple[float, float, float]]] = {"looks": [], "movement": [], "both": []}
    for group in range(groups):
        part = slice(group * AMONG, (group + 1) * AMONG)
        both = torch.stack([model.matches(sight, stems[part]) for sight in seen[part]])
        looks = torch.stack([model.matches(replace(sight, pulse=None), stems[part]) for sight in seen[part]])
        for name, scores in (("looks", looks), ("movement", both - looks), ("both", both)):
            found[name].append((recall(scores), recall(scores, 5), recall(scores, 10)))
        print(f"{group + 1}/{groups}  " + "  ".join(
            f"{name} {np.mean([one[0] for one in figures]):.3f}" for name, figures in found.items()), flush=True)
    return {name: dict(zip(("R@1", "R@5", "R@10"), np.mean(figures, 0).tolist(), strict=True))
            for name, figures in found.items()}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--pictures", type=Path, required=True, help="what python -m samaudio.drawn.collect wrote")
    parser.add_argument("--groups", type=int, default=10, help=f"of {AMONG} objects")
    parser.add_argument("--model", help="a model folder; default: the one in the package")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--split", default="valid")
    parser.add_argument("--held-out", default=HELD_OUT, help="the drawing style that only valid is drawn in")
    parser.add_argument("--out", type=Path, help="a folder for object_retrieval.json and object_retrieval.md")
    given = parser.parse_args(arguments)
    model = samaudio.load(given.model, judge=False).model
    store = ClipStore([str(path) for path in given.manifests], model.sample_rate, given.cache, given.split)
    pictures = open_pictures(given.pictures, given.split, held_out=given.held_out)
    films = DrawnFilms(store, pictures, replace(Recipe(), alike=0.0), seed=11)
    figures = measure(model, films, given.groups)
    text = "\n".join(["| by | R@1 | R@5 | R@10 |", "|---|---:|---:|---:|", *(
        f"| {name} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |" for name, row in figures.items())])
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "object_retrieval.json").write_text(
            json.dumps({"among": AMONG, "objects": given.groups * AMONG, "figures": figures}, indent=1) + "\n")
        (given.out / "object_retrieval.md").write_text(
            f"# From an object to its sound\n\n`python -m benchmarks.object_retrieval`: {given.groups * AMONG} objects "
            "of drawn films (unseen recordings, unseen drawing style,\nmasks as a segmenter gives them), each among "
            f"{AMONG} stems. Looks are PE-AV's towers, movement is `samaudio.pulse`.\n\n{text}\n")


if __name__ == "__main__":
    main()
