"""Labelled mixtures made on the fly from single-sound clips.

``MixtureSampler(store, recipe, seed)[i]`` is the i-th mixture of an endless, seeded stream: the same numbers give
the same samples on every machine, however many workers share the work. A mixture is a few tracks on a
canvas; a track is one label: a long clip, or several short ones of that label in a row, as a player or a dog
would sound. Every augmentation happens on tracks, so target + rest is exactly the mixture.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from peav import captions
from peav.clips import ClipStore
from peav.tracks import MUSIC, SPEECH, TrackSampler, scene_of

@dataclass(frozen=True)
class Recipe:
    """What mixtures look like. Durations in seconds, levels in dB."""

    seconds: float = 4.0
    sources: tuple[float, ...] = (0.0, 0.7, 0.3)  # chance of 1, 2, 3, ... tracks
    snr_db: tuple[float, float] = (-10.0, 10.0)  # target against everything else
    absent: float = 0.12  # chance that the prompt names a sound that is not there
    plausible: float = 0.6  # chance that all tracks come from one kind of scene
    augment: float = 0.7  # chance of each kind of change to a track
    label_power: float = 0.5  # 0: every label equally often; 1: every clip equally often
    peak: tuple[float, float] = (0.05, 0.9)  # peak of the mixture


@dataclass
class Mixture:
    """One training item: float32 ``[T]`` arrays with ``mixture == target + residual``.

    ``example`` is the number of another clip with the target's label (or None), ``labels`` the labels in the
    mixture, target first unless absent, ``sources`` the first clip of each track.
    """

    mixture: np.ndarray
    target: np.ndarray
    residual: np.ndarray
    label: str
    prompt: str
    present: bool
    labels: list[str]
    clip: int | None = None
    example: int | None = None
    sources: list[int] = field(default_factory=list)


class MixtureSampler:
    """An endless, seeded stream of mixtures; see the module's first lines."""

    def __init__(self, store: ClipStore, recipe: Recipe, seed: int):
        self.store, self.recipe, self.seed = store, recipe, seed
        self.tracks = TrackSampler(store, recipe.label_power, recipe.augment)

    def __getitem__(self, index: int) -> Mixture:
        recipe = self.recipe
        rng = np.random.default_rng((self.seed, index))
        T = round(recipe.seconds * self.store.sample_rate)
        count = 1 + int(rng.choice(len(recipe.sources), p=np.array(recipe.sources) / sum(recipe.sources)))
        labels = self._labels(rng, count)
        drawn = [self.tracks.track(label, T, rng) for label in labels]
        tracks, clips = [t.samples for t in drawn], [t.clip for t in drawn]
        present = bool(rng.random() >= recipe.absent)
        if present:
            label, clip, target, rest = labels[0], clips[0], tracks[0], tracks[1:]
        else:
            label, clip = self._absent(rng, labels), None
            target, rest = np.zeros(T, dtype=np.float32), tracks
        residual = self._sum(rest, T, rng)
        if present and rest:
            snr = rng.uniform(*recipe.snr_db)
            residual = residual * _gain_for_snr(target, residual, snr)
        mixture = target + residual
        gain = rng.uniform(*recipe.peak) / max(float(np.abs(mixture).max()), 1e-6)
        words = random.Random(int(rng.integers(2**31)))
        texts = self.store.clips[clip].captions if clip is not None else ()
        prompt = captions.draw(words, label, texts, scene_of(label) == MUSIC)
        others = [i for i in self.tracks.clips_of.get(label, ()) if i != clip]
        return Mixture(
            mixture=mixture * gain, target=target * gain, residual=residual * gain, label=label, prompt=prompt,
            present=present, labels=labels, clip=clip, sources=clips,
            example=int(rng.choice(others)) if others else None)

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

    def _absent(self, rng: np.random.Generator, present: list[str]) -> str:
        names = [n for n in self.tracks.labels if not any(captions.overlap(n, other) for other in present)]
        # A pool with a single family of labels cannot name anything absent; an unknown word is absent anywhere.
        return names[int(rng.integers(len(names)))] if names else "silence"

    def _sum(self, tracks: list[np.ndarray], T: int, rng: np.random.Generator) -> np.ndarray:
        total = np.zeros(T, dtype=np.float32)
        for track in tracks:
            total += track * np.float32(10 ** (rng.uniform(-5, 5) / 20 if len(tracks) > 1 else 0))
        return total


def activity(target: np.ndarray, step: int, floor_db: float = -40.0) -> np.ndarray:
    """Where a stem sounds: bool ``[ceil(T / step)]``, frames within ``-floor_db`` of the stem's loudest frame."""
    frames = -(-len(target) // step)
    padded = np.zeros(frames * step, dtype=np.float32)
    padded[: len(target)] = target
    power = np.mean(padded.reshape(frames, step) ** 2, axis=1)
    return power > max(float(power.max()) * 10 ** (floor_db / 10), 1e-10)


def _gain_for_snr(target: np.ndarray, residual: np.ndarray, snr_db: float) -> np.float32:
    """Gain on ``residual`` that puts ``target`` at ``snr_db`` above it, by energy over the whole canvas."""
    energy_t, energy_r = float(np.sum(target**2)), float(np.sum(residual**2))
    return np.float32(np.sqrt(energy_t / max(energy_r, 1e-12)) * 10 ** (-snr_db / 20))
