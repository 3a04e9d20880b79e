"""What a separator makes of seeded mixtures, stored for training and measuring the Judge.

    python -m samaudio.judge_data COLLECTION PATH/manifest.jsonl --model runs/separator/model --count 500

The folder is a `judge.collection`: per mixture three questions, and as outputs all candidates for the first two of them
and two for the third, which names an absent sound unless the mixture holds three. The presence gate is off: what
the separator would silence is what the Judge has to hear. ``--decoded`` takes some outputs as the codec decodes them,
before they are cut out of the mixture, which is how separators without a mask sound.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from judge import collection
from judge.collection import Example, Question
from peav.clips import ClipStore

from .cut import MODEL_PEAK
from .mixtures import MixtureSampler, Recipe
from .pipeline import Separator, load
from .prompts import Text

QUESTIONS = 3


class Separations:
    """``Separations(...)[i]`` is the i-th example of an endless stream that depends on ``seed`` alone.

    Args:
        decoded: chance, for each of the first two questions, that its last output is the decoded estimate.
    """

    def __init__(self, separator: Separator, store: ClipStore, recipe: Recipe, seed: int, decoded: float = 0.0):
        self.separator, self.store, self.recipe, self.seed, self.decoded = separator, store, recipe, seed, decoded
        self.sampler = MixtureSampler(store, recipe, seed, QUESTIONS)
        self.counts = _shares(separator.model.hypotheses)

    @torch.inference_mode()
    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.seed, 1, index))
        drawn = self.sampler[index]
        # Present ones first: candidates are compared where there is something to be found.
        asked = sorted(drawn.questions, key=lambda question: question.stem is None)
        mixture = torch.from_numpy(drawn.samples)
        results = self.separator.separate_many(
            mixture[None], [question.phrase for question in asked], sample_rate=self.store.sample_rate,
            candidates=max(self.counts))  # fmt: skip
        outputs: list[Tensor] = []
        kinds: list[str] = []
        of: list[int] = []
        for q, (result, count) in enumerate(zip(results, self.counts, strict=True)):
            for k, candidate in enumerate(result.candidates[:count]):
                assert candidate.target is not None  # separations in memory keep them
                outputs.append(candidate.target[0])
                kinds.append(f"candidate {k}")
                of.append(q)
            if q < 2 and rng.random() < self.decoded:
                outputs[-1], kinds[-1] = self._decode(mixture, asked[q].phrase), "decoded"
        stems = torch.from_numpy(np.stack([drawn.target(question) for question in asked]))
        questions = [Question(question.label, question.phrase, question.stem is not None) for question in asked]
        return Example(mixture, torch.stack(outputs), stems, questions, kinds, of)

    def _decode(self, mixture: Tensor, phrase: str) -> Tensor:
        model = self.separator.model
        scale = MODEL_PEAK / mixture.abs().max().clamp_min(1e-6)
        heard = (mixture * scale)[None].to(model.device)
        split = model.split(heard, model.encode(heard), model.query([Text(phrase)]), None, 1)
        return split.target[0, 0].float().cpu() / scale


def _shares(hypotheses: int) -> Sequence[int]:
    """Outputs per question."""
    return hypotheses, hypotheses, min(2, hypotheses)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--model", help="separator folder; default: the one in the package")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--split", choices=("train", "valid"), default="train")
    parser.add_argument("--count", type=int, default=500, help="mixtures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--sources", type=float, nargs="+", default=[0.05, 0.6, 0.25, 0.1],
                        help="chance of 1, 2, 3, ... sources")  # fmt: skip
    parser.add_argument("--snr", type=float, nargs=2, default=Recipe().snr_db, metavar=("LEAST", "MOST"),
                        help="level of the first source against the others, dB")  # fmt: skip
    parser.add_argument("--decoded", type=float, default=0.0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    separator = load(args.model, args.device, judge=False)
    store = ClipStore(args.manifests, separator.sample_rate, args.cache, args.split)
    recipe = Recipe(seconds=args.seconds, sources=tuple(args.sources), snr_db=tuple(args.snr), absent=0.0)
    made = Separations(separator, store, recipe, args.seed, args.decoded)
    settings = {"sample_rate": separator.sample_rate, "seconds": args.seconds, "split": args.split, "seed": args.seed,
                "separator": separator.name, "decoded": args.decoded, "sources": args.sources, "snr_db": args.snr,
                "clips": len(store)}  # fmt: skip
    collection.write(args.folder, settings, made.__getitem__, args.count, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
