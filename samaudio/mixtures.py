"""Labelled mixtures made on the fly from single-sound clips, and what may be asked of them.

``MixtureSampler(store, recipe, seed)[i]`` is the i-th mixture of an endless, seeded stream: the same numbers give
the same mixture, to within rounding, on every machine and however many workers share the work. A mixture is a sum of
tracks (:mod:`peav.tracks`); every change is made to a track before it is summed, so the stems add up to it exactly.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from peav import captions
from peav.clips import ClipStore
from peav.tracks import MUSIC, SPEECH, TrackSampler, scene_of


@dataclass(frozen=True)
class Recipe:
    """What mixtures look like. Durations in seconds, levels in dB."""

    seconds: float = 4.0
    sources: tuple[float, ...] = (0.08, 0.62, 0.3)  # chance of 1, 2, 3, ... tracks
    snr_db: tuple[float, float] = (-10.0, 10.0)  # first track against everything else
    absent: float = 0.12  # chance that a question names a sound that is not there
    plausible: float = 0.6  # chance that all tracks come from one kind of scene
    augment: float = 0.6  # chance of each kind of change to a track
    label_power: float = 0.5  # 0: every label equally often; 1: every clip equally often
    peak: tuple[float, float] = (0.05, 0.9)  # peak of the mixture


@dataclass
class Question:
    """A prompt for a mixture: ``stem`` is the number of the track it names, None when that is not there.

    ``example`` is the number of another clip of the same label, or None.
    """

    label: str
    phrase: str
    stem: int | None
    example: int | None


@dataclass
class Mixture:
    """``stems [S, T]`` float32, their labels and first clips, and questions about their sum."""

    stems: np.ndarray
    labels: list[str]
    clips: list[int]
    questions: list[Question]

    @property
    def samples(self) -> np.ndarray:
        """The mixture ``[T]``: the sum of the stems."""
        return self.stems.sum(0)

    def target(self, question: Question) -> np.ndarray:
        """What the question asks for ``[T]``: a stem, or silence."""
        return self.stems[question.stem] if question.stem is not None else np.zeros_like(self.stems[0])


class MixtureSampler:
    """An endless, seeded stream of mixtures with ``questions`` prompts each; see the module's first lines."""

    def __init__(self, store: ClipStore, recipe: Recipe, seed: int, questions: int = 1):
        self.store, self.recipe, self.seed, self.questions = store, recipe, seed, questions
        self.tracks = TrackSampler(store, recipe.label_power, recipe.augment)

    def __getitem__(self, index: int) -> Mixture:
        recipe = self.recipe
        rng = np.random.default_rng((self.seed, index))
        T = round(recipe.seconds * self.store.sample_rate)
        count = 1 + int(rng.choice(len(recipe.sources), p=np.array(recipe.sources) / sum(recipe.sources)))
        tracks = [self.tracks.track(label, T, rng) for label in self._labels(rng, count)]
        stems = np.stack([t.samples for t in tracks])
        if len(stems) > 2:
            stems[1:] *= 10 ** (rng.uniform(-5, 5, (len(stems) - 1, 1)) / 20).astype(np.float32)
        if len(stems) > 1:
            rest = stems[1:].sum(0)
            stems[1:] *= gain_for_snr(stems[0], rest, rng.uniform(*recipe.snr_db))
        stems *= np.float32(rng.uniform(*recipe.peak) / max(float(np.abs(stems.sum(0)).max()), 1e-6))
        labels = [t.label for t in tracks]
        # Different questions about one mixture teach that the prompt decides.
        order = list(rng.permutation(len(stems)))
        questions = []
        for _ in range(self.questions):
            absent = rng.random() < recipe.absent or not order
            questions.append(self._absent(rng, labels) if absent else self._present(rng, tracks, int(order.pop())))
        return Mixture(stems, labels, [t.clip for t in tracks], questions)

    def _present(self, rng: np.random.Generator, tracks: list, stem: int) -> Question:
        label, clip = tracks[stem].label, tracks[stem].clip
        others = [i for i in self.tracks.clips_of[label] if i != clip]
        phrase = captions.draw(_words(rng), label, self.store.clips[clip].captions, scene_of(label) == MUSIC)
        return Question(label, phrase, stem, int(rng.choice(others)) if others else None)

    def _absent(self, rng: np.random.Generator, present: list[str]) -> Question:
        names = [n for n in self.tracks.labels if not any(captions.overlap(n, other) for other in present)]
        # A pool with a single family of labels cannot name anything absent; an unknown word is absent anywhere.
        label = names[int(rng.integers(len(names)))] if names else "silence"
        clips = self.tracks.clips_of.get(label, [])
        texts = self.store.clips[int(rng.choice(clips))].captions if clips else ()
        phrase = captions.draw(_words(rng), label, texts, scene_of(label) == MUSIC)
        return Question(label, phrase, None, int(rng.choice(clips)) if clips else None)

    def _labels(self, rng: np.random.Generator, count: int) -> list[str]:
        """Labels of the tracks; no two may answer the same prompt."""
        chosen = [self.tracks.draw_label(rng)]
        scene = scene_of(chosen[0]) if rng.random() < self.recipe.plausible else None
        for _ in range(40):
            if len(chosen) == count:
                break
            name = self.tracks.draw_label(rng)
            # Speech goes with everything: people talk over music and in the street.
            fits = scene is None or scene_of(name) in (scene, SPEECH) or scene == SPEECH
            if fits and not any(captions.overlap(name, other) for other in chosen):
                chosen.append(name)
        return chosen


def activity(target: np.ndarray, step: int, floor_db: float = -40.0) -> np.ndarray:
    """Where a stem sounds: bool ``[ceil(T / step)]``, frames within ``-floor_db`` of the stem's loudest frame."""
    frames = -(-len(target) // step)
    padded = np.zeros(frames * step, dtype=np.float32)
    padded[: len(target)] = target
    power = np.mean(padded.reshape(frames, step) ** 2, axis=1)
    return power > max(float(power.max()) * 10 ** (floor_db / 10), 1e-10)


def gain_for_snr(target: np.ndarray, residual: np.ndarray, snr_db: float) -> np.float32:
    """Gain on ``residual`` that puts ``target`` at ``snr_db`` above it, by energy over the whole canvas."""
    energy_t, energy_r = float(np.sum(target**2)), float(np.sum(residual**2))
    return np.float32(np.sqrt(energy_t / max(energy_r, 1e-12)) * 10 ** (-snr_db / 20))


def _words(rng: np.random.Generator) -> random.Random:
    return random.Random(int(rng.integers(2**31)))
