"""Choose the presence threshold of a trained model from validation mixtures and store it in the model's settings.

    python -m samaudio.calibrate runs/separator/model PATH/manifest.jsonl --cache data/cache

The threshold is the value that all but ``--misses`` of the sounds that are there exceed: silencing a sound that is
there is worse for a user than handing out a faint false one. Mixtures come from the validation split with a seed of their
own, so none of them is in the benchmark list.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from peav.clips import ClipStore

from .checkpoints import load_model, save_model
from .mixtures import MixtureSampler, Recipe
from .model import MaskModel
from .prompts import Text

SEED = 4_711


@torch.inference_mode()
def presence_values(model: MaskModel, sampler: MixtureSampler, count: int) -> tuple[list[float], list[float]]:
    """Presence of questions about sounds that are in the mixture, and about sounds that are not."""
    there: list[float] = []
    missing: list[float] = []
    for i in range(count):
        mixture = sampler[i]
        samples = torch.from_numpy(mixture.samples)
        latent = model.encode(samples[None] * (0.5 / samples.abs().max()))
        for question in mixture.questions:
            query = model.query([Text(question.phrase)])
            out = model.separator(latent, query[None])
            (missing if question.stem is None else there).append(float(out.presence.sigmoid()[0]))
    return there, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder; its settings.json is rewritten")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--cache", default="data/cache")
    parser.add_argument("--count", type=int, default=300, help="mixtures, each with four questions")
    parser.add_argument("--misses", type=float, default=0.03, help="share of present sounds that may be silenced")
    args = parser.parse_args()
    model = load_model(args.model)
    store = ClipStore(args.manifests, model.sample_rate, args.cache, split="valid")
    recipe = Recipe(sources=(0.1, 0.6, 0.3), snr_db=(-5, 5), absent=0.5, augment=0.0)
    there, missing = presence_values(model, MixtureSampler(store, recipe, SEED, questions=4), args.count)
    threshold = float(np.quantile(there, args.misses))
    alarms = float(np.mean(np.array(missing) >= threshold))
    print(f"{len(there)} present, {len(missing)} absent: threshold {threshold:.3f}, "
          f"misses {100 * args.misses:.1f} %, false alarms {100 * alarms:.1f} %")
    model.settings["presence_threshold"] = round(threshold, 4)
    save_model(model, args.model)


if __name__ == "__main__":
    main()
