"""Scenes for the Judge: seeded mixtures, questions about them, and outputs spoiled in known ways.

    python -m judge.scenes COLLECTION PATH/manifest.jsonl --count 2000 --codec runs/codec/model

``Scenes(store, recipe, seed, codec)[i]`` is the i-th `judge.collection.Example` of an endless stream: a sum of tracks
(`peav.tracks`), two questions about sounds in it and one about a sound that is not (or one and two, if it is a single
track), and ``recipe.outputs`` outputs. Most outputs spoil the stem of one question by one to three of the faults in
`judge.degrade`; some go the same fault's way in several steps, so that the order of their scores is known; others are
what a broken separator returns: the mixture, silence, the other sound, a faint copy of everything.

Every output is judged by every question, so a clean stem of the wrong sound is an example too.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peav import captions
from peav.clips import ClipStore
from peav.tracks import MUSIC, SPEECH, Track, TrackSampler, scene_of

from . import collection, degrade
from .collection import Example, Question
from .targets import window_length

QUESTIONS = 3
FAULTS = ("leak", "suppress", "stretch", "bands", "musical", "mask", "noise")


@dataclass(frozen=True)
class Recipe:
    """What scenes look like. Durations in seconds, levels in dB."""

    seconds: float = 3.0
    sources: tuple[float, ...] = (0.05, 0.55, 0.3, 0.1)  # chance of 1, 2, 3, ... tracks
    snr_db: tuple[float, float] = (-10.0, 10.0)  # first track against the rest
    plausible: float = 0.6  # chance that all tracks come from one kind of scene
    augment: float = 0.6
    label_power: float = 0.6
    outputs: int = 8
    sweep: float = 0.35  # chance that three of the outputs are steps of one fault
    fault: str = ""  # if given, all outputs are steps of this one (`FAULTS`), but for one that is the mixture

    def __post_init__(self) -> None:
        if self.fault and self.fault not in FAULTS:
            raise ValueError(f"fault={self.fault!r} is none of {', '.join(FAULTS)}")


class Scenes:
    """See the module's first lines. Without a codec, codec noise is left out."""

    def __init__(self, store: ClipStore, recipe: Recipe, seed: int, codec: degrade.Codec | None = None):
        self.store, self.recipe, self.seed, self.codec = store, recipe, seed, codec
        self.tracks = TrackSampler(store, recipe.label_power, recipe.augment)
        self.window = window_length(store.sample_rate)

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.seed, index))
        tracks = self._tracks(rng)
        stems = torch.from_numpy(self._mix(tracks, rng))
        mixture = stems.sum(0)
        named = list(range(min(2, len(tracks))))
        asked = torch.zeros(QUESTIONS, stems.shape[1])
        asked[: len(named)] = stems[named]
        questions = [self._question(rng, tracks[i].label, tracks[i].clip, True) for i in named]
        questions += [self._absent(rng, [t.label for t in tracks]) for _ in range(QUESTIONS - len(named))]
        outputs, kinds, of = self._outputs(asked[: len(named)], mixture, rng)
        return Example(mixture, outputs, asked, questions, kinds, of)

    def _tracks(self, rng: np.random.Generator) -> list[Track]:
        recipe = self.recipe
        T = round(recipe.seconds * self.store.sample_rate)
        count = 1 + int(rng.choice(len(recipe.sources), p=np.array(recipe.sources) / sum(recipe.sources)))
        labels = [self.tracks.draw_label(rng)]
        scene = scene_of(labels[0]) if rng.random() < recipe.plausible else None
        for _ in range(40):
            if len(labels) == count:
                break
            name = self.tracks.draw_label(rng)
            fits = scene is None or scene_of(name) in (scene, SPEECH) or scene == SPEECH
            if fits and not any(captions.overlap(name, other) for other in labels):
                labels.append(name)
        return [self.tracks.track(label, T, rng) for label in labels]

    def _mix(self, tracks: list[Track], rng: np.random.Generator) -> np.ndarray:
        stems = np.stack([t.samples for t in tracks])
        if len(stems) > 1:
            stems[1:] *= 10 ** (rng.uniform(-5, 5, (len(stems) - 1, 1)) / 20).astype(np.float32)
            rest = max(float(np.sum(stems[1:].sum(0) ** 2)), 1e-12)
            snr = rng.uniform(*self.recipe.snr_db)
            stems[1:] *= np.float32(np.sqrt(float(np.sum(stems[0] ** 2)) / rest) * 10 ** (-snr / 20))
        return stems * np.float32(rng.uniform(0.1, 0.9) / max(float(np.abs(stems.sum(0)).max()), 1e-6))

    def _question(self, rng: np.random.Generator, label: str, clip: int, present: bool) -> Question:
        words = random.Random(int(rng.integers(2**31)))
        phrase = captions.draw(words, label, self.store.clips[clip].captions, scene_of(label) == MUSIC)
        return Question(label, phrase, present)

    def _absent(self, rng: np.random.Generator, there: list[str]) -> Question:
        names = [n for n in self.tracks.labels if not any(captions.overlap(n, other) for other in there)]
        if not names:  # a pool with a single family of labels; an unknown word is absent anywhere
            return Question("silence", "silence", False)
        label = names[int(rng.integers(len(names)))]
        return self._question(rng, label, int(rng.choice(self.tracks.clips_of[label])), False)

    # -- outputs ------------------------------------------------------------------------------------------------

    def _outputs(self, stems: Tensor, mixture: Tensor, rng: np.random.Generator) -> tuple[Tensor, list[str], list[int]]:
        made: list[tuple[Tensor, str, int]] = []
        M = self.recipe.outputs
        if self.recipe.fault:
            made = [(mixture, "mixture", -1)]
            while len(made) < M:
                of = int(rng.integers(len(stems)))
                made.append((*self._step(self.recipe.fault, float(rng.random()), stems[of], mixture, rng), of))
            outputs, kinds, of_ = zip(*made, strict=True)
            return torch.stack(outputs), list(kinds), list(of_)
        if rng.random() < self.recipe.sweep and M > 3:
            of = int(rng.integers(len(stems)))
            name = str(rng.choice(FAULTS))
            levels = np.sort(rng.uniform(0, 1, 3))
            made += [(x, kind, of) for x, kind in (self._step(name, float(v), stems[of], mixture, rng) for v in levels)]
        made += [self._broken(stems, mixture, rng) for _ in range(int(rng.integers(0, 3)))]
        while len(made) < M:
            # The first question gets more, since candidates of one question are what is compared in use.
            of = 0 if len(stems) == 1 or rng.random() < 0.6 else 1
            made.append((*self._spoiled(stems[of], mixture - stems[of], rng), of))
        outputs, kinds, of_ = zip(*made[:M], strict=True)
        return torch.stack(outputs), list(kinds), list(of_)

    def _broken(self, stems: Tensor, mixture: Tensor, rng: np.random.Generator) -> tuple[Tensor, str, int]:
        of = int(rng.integers(len(stems)))
        level = float(rng.uniform(3, 45))
        return [
            (mixture, "mixture", -1),
            (torch.zeros_like(mixture), "silence", -1),
            (degrade.suppress(mixture, level), f"mixture -{level:.0f} dB", -1),
            (mixture - stems[of], "the rest", -1),
            (degrade.suppress(stems[of], level), f"stem -{level:.0f} dB", of),
            (stems[of].clone(), "true stem", of),
        ][int(rng.integers(6))]

    def _sweeps(self) -> dict[str, Callable[[float, Tensor, Tensor, np.random.Generator], Tensor]]:
        """One fault each, from hardly there (0) to as bad as it gets (1)."""
        rate = self.store.sample_rate
        return {
            "leak": lambda v, s, n, rng: degrade.leak(s, n, 50 * v - 40),
            "suppress": lambda v, s, n, rng: degrade.suppress(s, 30 * v),
            "stretch": lambda v, s, n, rng: degrade.suppress_stretch(s, 0, v * len(s) / rate, 60, rate),
            "bands": lambda v, s, n, rng: degrade.suppress_band(s, 40 * (rate / 80) ** (1 - v), rate / 2, 60, rate),
            "musical": lambda v, s, n, rng: degrade.musical_noise(s, rng, v, 40, self.window),
            "mask": lambda v, s, n, rng: degrade.wrong_mask(s, n, rng, 8 * v, 0.0, self.window, (24, 12)),
            "noise": lambda v, s, n, rng: degrade.noise(s, rng, 40 - 45 * v),
        }

    def _step(self, name: str, value: float, stem: Tensor, mixture: Tensor, rng: np.random.Generator
              ) -> tuple[Tensor, str]:
        return self._sweeps()[name](value, stem, mixture - stem, rng), f"sweep {name} {value:.2f}"

    def _spoiled(self, stem: Tensor, rest: Tensor, rng: np.random.Generator) -> tuple[Tensor, str]:
        """A mask that errs, or the stem itself, with up to two more faults."""
        x, kind = (self._masked(stem, rest, rng) if rng.random() < 0.55 else (stem, "stem"))
        faults = self._faults(rest)
        count = int(rng.choice(3, p=(0.45, 0.4, 0.15))) if kind != "stem" else int(rng.choice((1, 2), p=(0.6, 0.4)))
        for name in rng.choice(list(faults), count, replace=False):
            x, kind = faults[name](x, rng), f"{kind}, {name}"
        return x, kind

    def _masked(self, stem: Tensor, rest: Tensor, rng: np.random.Generator) -> tuple[Tensor, str]:
        error, bias = float(rng.uniform(0, 8)), float(rng.normal(0, 2))
        window = int(self.window * rng.choice((0.25, 0.5, 1.0)))
        coarse = (int(rng.choice((1, 4, 16, 60))), int(rng.choice((1, 4, 12, 30))))
        x = degrade.wrong_mask(stem, rest, rng, error, bias, 4 * (window // 4), coarse)
        return x, f"mask error {error:.1f} bias {bias:.1f} patches {coarse[0]}x{coarse[1]}"

    def _faults(self, rest: Tensor) -> dict[str, Callable[[Tensor, np.random.Generator], Tensor]]:
        rate, uniform = self.store.sample_rate, np.random.Generator.uniform
        seconds = rest.shape[-1] / rate

        def stretch(x: Tensor, rng: np.random.Generator) -> Tensor:
            length = uniform(rng, 0.1, 0.6) * seconds
            return degrade.suppress_stretch(x, uniform(rng, 0, seconds - length), length, uniform(rng, 6, 60), rate)

        def band(x: Tensor, rng: np.random.Generator) -> Tensor:
            low, high = np.sort(40 * (rate / 80) ** rng.uniform(0, 1, 2))
            return degrade.suppress_band(x, float(low), float(high), uniform(rng, 6, 60), rate)

        faults: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
            "leak": lambda x, rng: degrade.leak(x, rest, uniform(rng, -35, 5)),
            "suppress": lambda x, rng: degrade.suppress(x, uniform(rng, 1, 20)),
            "stretch": stretch,
            "band": band,
            "equaliser": lambda x, rng: degrade.equalise(x, rng, uniform(rng, 2, 18), rate),
            "musical noise": lambda x, rng: degrade.musical_noise(
                x, rng, uniform(rng, 0.05, 0.8), uniform(rng, 10, 60), self.window),
            "gaps": lambda x, rng: degrade.gaps(x, rng, int(rng.integers(1, 9)), uniform(rng, 0.03, 0.2), rate),
            "clipping": lambda x, rng: degrade.clip(x, uniform(rng, 3, 20)),
            "noise": lambda x, rng: degrade.noise(x, rng, uniform(rng, -3, 35)),
        }  # fmt: skip
        codec = self.codec
        if codec is not None:
            faults["codec noise"] = lambda x, rng: degrade.codec_noise(x, codec, rng, uniform(rng, -3, 25))
        return faults


def settings_of(scenes: Scenes) -> dict:
    """What a collection of these scenes remembers."""
    recipe = asdict(scenes.recipe)
    if not scenes.recipe.fault:  # as before there was a choice, so that older collections can be finished
        del recipe["fault"]
    return {"sample_rate": scenes.store.sample_rate, "seed": scenes.seed, "codec_noise": scenes.codec is not None,
            "clips": len(scenes.store), **recipe}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--codec", type=Path, help="codec folder; without it there is no codec noise")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--split", choices=("train", "valid"), default="train")
    parser.add_argument("--count", type=int, default=2_000, help="mixtures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=int, default=24_000, help="Hz, without --codec")
    parser.add_argument("--sweep", type=float, default=Recipe().sweep, help="chance of three steps of one fault")
    parser.add_argument("--fault", choices=FAULTS, default="", help="nothing but steps of this fault, and the mixture")
    args = parser.parse_args()
    codec = None
    if args.codec:
        from peav.checkpoints import load_codec
        from peav.codec import DACVAE

        codec = load_codec(DACVAE, args.codec).requires_grad_(False)
    rate = codec.config.sample_rate if codec else args.rate
    store = ClipStore(args.manifests, rate, args.cache, args.split)
    scenes = Scenes(store, Recipe(sweep=args.sweep, fault=args.fault), args.seed, codec)
    collection.write(args.folder, settings_of(scenes) | {"split": args.split}, scenes.__getitem__, args.count,
                     say=lambda line: print(line, flush=True))  # fmt: skip


if __name__ == "__main__":
    main()
