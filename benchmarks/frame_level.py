"""When a sound is heard: frame-level figures on scenes whose onsets are known.

    python -m benchmarks.frame_level PATH/manifest.jsonl --cache FOLDER --out docs/benchmarks

Scenes of two sounds of recordings that were never trained on, each cut to a stretch of the scene by itself, -6 to 6 dB
apart. Every sound is asked for by a free wording, and every scene also for a sound that is not there. A token counts as
sounding from 30 dB below the sound's loudest token on, as in `peav.scenes`. Spans are right when start and end are
within 0.2 s (the end within a fifth of the length, if that is more), as in DCASE; gaps below 0.3 s are closed in truth
and prediction. The threshold with the best F1 on a first set of scenes is measured on a second one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import peav
from peav import captions
from peav.clips import ClipStore
from peav.evaluation.detection import Counts, auroc, match_spans
from peav.scenes import YES, SceneRecipe, SceneSampler, Sound, truth
from peav.spans import find_spans

GAP, SHORTEST = 0.3, 0.1  # seconds
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


@dataclass
class Answer:
    """One text about one scene: log-odds ``[N]`` and truth ``[N]`` (`YES`, `NO`, `UNSURE`)."""

    logits: np.ndarray
    active: np.ndarray

    @property
    def present(self) -> bool:
        return bool((self.active == YES).any())


def ask(model, scenes: Sequence[Sequence[Sound]], words: random.Random) -> list[Answer]:
    """What the model says of each scene's sounds, and of one that is not there."""
    token = round(model.frame_seconds * model.sample_rate)
    found = []
    for scene in scenes:
        absent = captions.draw_absent(words)
        mixture = torch.from_numpy(np.sum([sound.samples for sound in scene], axis=0))
        logits = model.frame_logits(audio=[mixture], text=[*(sound.phrase for sound in scene), absent])[0]
        active = truth(scene, [*(sound.label for sound in scene), None], token)
        found += [Answer(*pair) for pair in zip(logits.float().cpu().numpy(), active, strict=True)]
    return found


def spans_of(answer: Answer, threshold: float, frame_seconds: float) -> list[tuple[float, float]]:
    spans = find_spans(torch.from_numpy(answer.logits)[None], frame_seconds, threshold=threshold, max_gap=GAP,
                       min_duration=SHORTEST)[0]  # fmt: skip
    return [(span.start, span.end) for span in spans]


def true_spans(answer: Answer, frame_seconds: float) -> list[tuple[float, float]]:
    """As `spans_of`; a token that is neither true nor false joins its neighbours, but makes no span of its own."""
    sure = torch.from_numpy(answer.active == YES).float()[None] * 20 - 10
    found = find_spans(sure, frame_seconds, threshold=0.5, max_gap=GAP, min_duration=SHORTEST)[0]
    return [(span.start, span.end) for span in found]


def count(answers: Sequence[Answer], threshold: float, frame_seconds: float) -> tuple[Counts, list[float]]:
    """Right and wrong spans, and the distance (s) of every true start from the nearest found one within 1 s."""
    total, starts = Counts(0, 0, 0), []
    for answer in answers:
        found, true = spans_of(answer, threshold, frame_seconds), true_spans(answer, frame_seconds)
        total = total + match_spans(found, true)
        for start, _ in true:
            near = [abs(start - other) for other, _ in found]
            starts.append(min(near, default=float("inf")))
    return total, starts


def measure(model, first: Sequence[Answer], second: Sequence[Answer]) -> dict[str, float]:
    """Figures on ``second``, with the threshold that is best on ``first``."""
    step = model.frame_seconds
    best = max(THRESHOLDS, key=lambda threshold: count(first, threshold, step)[0].f1)
    total, starts = count(second, best, step)
    scores, active = (np.concatenate(values) for values in zip(*((a.logits, a.active) for a in second), strict=True))
    sure = active != -1
    inside = [auroc(a.logits[a.active != -1], a.active[a.active != -1] == YES) for a in second if a.present]
    absent = [a for a in second if not a.present]
    return {
        "questions": len(second), "frame_auroc": auroc(scores[sure], active[sure] == YES),
        "frame_auroc_within_a_scene": float(np.nanmean(inside)), "threshold": best, "span_f1": total.f1,
        "starts_within_0.2_s": float(np.mean(np.array(starts) <= 0.2)),
        "start_error_median_s": float(np.median([s for s in starts if s < 1.0] or [float("nan")])),
        "absent_without_a_span": float(np.mean([not spans_of(a, best, step) for a in absent] or [np.nan])),
    }


ROWS = (
    ("frame AUROC", "frame_auroc", ".3f"),
    ("the same within each scene, mean", "frame_auroc_within_a_scene", ".3f"),
    ("threshold with the best F1 on other scenes", "threshold", ".2f"),
    ("F1 of spans, start and end within 0.2 s", "span_f1", ".3f"),
    ("starts found within 0.2 s", "starts_within_0.2_s", ".3f"),
    ("median distance of a start, of those found within 1 s", "start_error_median_s", ".2f"),
    ("absent sounds without any span", "absent_without_a_span", ".3f"),
)


def markdown(result: dict[str, float]) -> str:
    about = (f"{result['questions']:.0f} questions about scenes of two sounds, recordings that were never trained on. "
             "`python -m benchmarks.frame_level`.")  # fmt: skip
    lines = ["# When a sound is heard", "", about, "", "| figure | value |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {text} | {result[key]:{form}} |" for text, key, form in ROWS), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path, nargs="+", help="manifests of clips")
    parser.add_argument("--cache", type=Path, required=True, help="where decoded clips are kept")
    parser.add_argument("--model", help="anything with a frame head that peav.load takes; default: the packaged one")
    parser.add_argument("--scenes", type=int, default=300, help="of each of the two sets")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--out", type=Path, help="folder for frames.json and frames.md")
    args = parser.parse_args()
    model = peav.load(args.model)
    store = ClipStore(args.manifest, model.sample_rate, args.cache, "valid")
    recipe = SceneRecipe(seconds=args.seconds, change=0.0, behind=1.0, below=(-6.0, 6.0), gate=1.0)
    sampler = SceneSampler(store, recipe)
    sets = []
    for seed in (0, 1):
        rng, words = np.random.default_rng((seed, 20)), random.Random(seed)
        sets.append(ask(model, [sampler.scene(rng, words) for _ in range(args.scenes)], words))
    result = measure(model, *sets)
    print(markdown(result))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "frames.json").write_text(json.dumps(result, indent=1) + "\n")
        (args.out / "frames.md").write_text(markdown(result))


if __name__ == "__main__":
    main()
