"""Calibrate a trained model's presence on validation mixtures and store the result in the model's settings.

    python -m samaudio.calibrate runs/separator/model PATH/manifest.jsonl --cache data/cache

Three things tell whether a sound is there: what the separator's presence head says, how much of the mixture it takes
out when asked, and what the embedder's frame-level head hears. A logistic regression joins them (both classes weighted
alike, so 0.5 means undecided). The threshold is the value that all but ``--misses`` of the sounds that are there
exceed: silencing a sound that is there is worse for a user than handing out a faint false one. Mixtures come from the
validation split with a seed of their own, so none of them is in the benchmark list.

With ``--pictures`` a model that sees is also calibrated for what is pointed at, on drawn films with silent objects; its
odds are shifted so that the one threshold serves both.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peav.clips import ClipStore
from peav.evaluation.detection import auroc
from peav.training import pick_device

from .checkpoints import load_model, save_settings
from .mixtures import MixtureSampler, Recipe
from .model import EVIDENCE, MaskModel
from .prompts import Text
from .sight import beat_of, sight_of
from .visual.frames import close_ups, follow
from .visual.geometry import geometry

if TYPE_CHECKING:
    from .drawn import DrawnFilms

SEED = 4_711


@torch.inference_mode()
def observe(model: MaskModel, sampler: MixtureSampler, count: int) -> tuple[Tensor, Tensor]:
    """What there is to judge presence by, ``[N, P]`` (see `MaskModel.evidence`), and the truth ``[N]`` bool."""
    seen, truth = [], []
    for i in range(count):
        mixture = sampler[i]
        samples = torch.from_numpy(mixture.samples)
        latent = model.encode(samples[None] * (0.5 / samples.abs().max()))
        for question in mixture.questions:
            query = model.query([Text(question.phrase)])
            seen.append(model.evidence(latent, model.ask(latent, query), query).cpu())
            truth.append(question.stem is not None)
    return torch.stack(seen), torch.tensor(truth)


@torch.inference_mode()
def watch(model: MaskModel, films: DrawnFilms, count: int) -> tuple[Tensor, Tensor]:
    """As :func:`observe`, of sounding and silent objects in drawn films."""
    seen, truth = [], []
    size = tuple(model.settings["close_up"])
    for i in range(count):
        film = films[i]
        latent = model.encode(film.samples[None] * (0.5 / film.samples.abs().max()))
        for k, masks in enumerate(torch.cat((film.masks, film.silent_masks))):
            visible, times = masks.flatten(1).any(1), film.times.float()
            if int(visible.sum()) < len(visible) // 3:
                continue
            views = close_ups(film.frames, masks, follow(masks, times), size)[0]
            beat = beat_of(model.pulse, geometry(film.frames, masks))
            query = model.query([], sight_of(model.embedder, views, times, visible, beat=beat))
            seen.append(model.evidence(latent, model.ask(latent, model.named(latent, query)), query).cpu())
            truth.append(k < len(film.stems))
    return torch.stack(seen), torch.tensor(truth)


def logistic(x: Tensor, y: Tensor, ridge: float = 1e-3) -> tuple[Tensor, float]:
    """Weights ``[P]`` and bias of a logistic regression of ``y [N]`` on ``x [N, P]``, classes weighted alike.

    Newton's method with a small ridge, which converges in a handful of steps from zero.

    Raises:
        ValueError: only one class is there.
    """
    x, y = x.double(), y.double()
    if not 0 < float(y.mean()) < 1:
        raise ValueError("presence can only be calibrated with sounds that are there and sounds that are not")
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    design = torch.cat(((x - mean) / spread, torch.ones(len(x), 1, dtype=x.dtype)), dim=1)
    weight = torch.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    beta = torch.zeros(design.shape[1], dtype=x.dtype)
    for _ in range(30):
        p = torch.sigmoid(design @ beta)
        gradient = design.T @ (weight * (p - y)) / len(y) + ridge * beta
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design / len(y)
        beta -= torch.linalg.solve(curvature + ridge * torch.eye(len(beta), dtype=x.dtype), gradient)
    slope = beta[:-1] / spread
    return slope.float(), float(beta[-1] - (slope * mean).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder; its settings.json is rewritten")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--cache", default="data/cache")
    parser.add_argument("--count", type=int, default=300, help="mixtures, each with four questions")
    parser.add_argument("--misses", type=float, default=0.05, help="share of present sounds that may be silenced")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=Path, help="styles to draw with, see samaudio.drawn.collect")
    args = parser.parse_args()
    model = load_model(args.model, pick_device(args.device))
    store = ClipStore(args.manifests, model.sample_rate, args.cache, split="valid")
    recipe = Recipe(sources=(0.1, 0.6, 0.3), snr_db=(-5, 5), absent=0.5, augment=0.0)
    x, y = observe(model, MixtureSampler(store, recipe, SEED, questions=4), args.count)
    weights, threshold = calibrated("named", x, y, args.misses)
    model.settings["presence"], model.settings["presence_threshold"] = weights, round(threshold, 4)
    if args.pictures is not None:
        if not model.sees:
            raise SystemExit(f"{args.model}: does not see; leave --pictures out")
        from .drawn import DrawnFilms, open_pictures
        from .drawn import Recipe as FilmRecipe

        films = DrawnFilms(store, open_pictures(args.pictures, "valid"), FilmRecipe(alike=0.0, silent=(0.2, 0.8)), SEED)
        weights, own = calibrated("pointed at", *watch(model, films, args.count), args.misses)
        weights["bias"] += logit(model.settings["presence_threshold"]) - logit(own)
        model.settings["presence_seen"] = weights
    save_settings(model, args.model)


def calibrated(kind: str, x: Tensor, y: Tensor, misses: float) -> tuple[dict[str, float], float]:
    """Weights of the evidence, and the presence that all but a share ``misses`` of what is there exceeds."""
    slope, bias = logistic(x, y)
    p = torch.sigmoid(x @ slope + bias)
    there, missing = p[y].numpy(), p[~y].numpy()
    threshold = float(np.quantile(there, misses))
    print(f"{kind}: {len(there)} present, {len(missing)} absent, AUROC {auroc(p.numpy(), y.numpy()):.3f}; weights "
          f"{slope.tolist()}, bias {bias:.3f}; threshold {threshold:.3f}: misses {100 * misses:.1f} %, "
          f"false alarms {100 * float(np.mean(missing >= threshold)):.1f} %")
    return {**dict(zip(EVIDENCE, slope.tolist(), strict=False)), "bias": bias}, threshold


def logit(p: float) -> float:
    return math.log(p / (1 - p))


if __name__ == "__main__":
    main()
