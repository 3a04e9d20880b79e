"""Short scenes for training the embedder: one sound, often another behind it, and what every text is true of.

A scene is a sum of tracks (`peav.tracks`). Where each of them sounds is known, so scenes teach both what is in a clip
and when. Axes: ``B`` scenes, ``T`` samples, ``N`` tokens of the audio tower, ``Q`` texts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import captions
from .clips import ClipStore
from .tracks import MUSIC, Track, TrackSampler, scene_of

ON_DB, OFF_DB = -30.0, -42.0  # of a sound's loudest token: above the first it sounds, below the second it does not
MASKED_DB = -18.0  # of the scene's token: a sound this far below the others can hardly be heard
ABSENT_TEXTS = 16  # per batch: names of sounds that are nowhere in the pool

YES, NO, UNSURE = 1, 0, -1


@dataclass(frozen=True)
class SceneRecipe:
    """What scenes look like. Durations in seconds, levels in dB, the rest chances.

    ``change``: of each kind of change to a track; ``behind``: of a second sound, ``below`` the first by so much;
    ``gate``: of cutting a sound to a stretch of the scene, each by itself.
    """

    seconds: float = 3.0
    label_power: float = 0.5
    change: float = 0.5
    behind: float = 0.5
    below: tuple[float, float] = (-3.0, 22.0)
    gate: float = 0.4


@dataclass
class Sound:
    """A track in a scene, and its words."""

    samples: np.ndarray  # [T], as loud as in the scene
    label: str
    phrase: str


class SceneSampler:
    """Seeded scenes from a store of clips."""

    def __init__(self, store: ClipStore, recipe: SceneRecipe):
        self.store, self.recipe = store, recipe
        self.tracks = TrackSampler(store, recipe.label_power, recipe.change)
        self.T = round(recipe.seconds * store.sample_rate)

    def scene(self, rng: np.random.Generator, words: random.Random) -> list[Sound]:
        """One or two sounds, the one to name first; together they peak below full scale."""
        first = self._sound(rng, words)
        sounds = [first]
        if rng.random() < self.recipe.behind:
            second = self._sound(rng, words)
            # A text for one must not be true of the other.
            if not captions.overlap(first.label, second.label):
                second.samples = second.samples * 10 ** (-rng.uniform(*self.recipe.below) / 20)
                sounds.append(second)
        peak = float(np.abs(sum(sound.samples for sound in sounds)).max())
        gain = np.float32(rng.uniform(0.05, 0.9) / max(peak, 1e-6))
        for sound in sounds:
            sound.samples = (sound.samples * gain).astype(np.float32)
        return sounds

    def _sound(self, rng: np.random.Generator, words: random.Random) -> Sound:
        track = self.tracks.track(self.tracks.draw_label(rng), self.T, rng)
        samples = self._gated(track, rng) if rng.random() < self.recipe.gate else track.samples
        texts = self.store.clips[track.clip].captions
        return Sound(samples, track.label, captions.draw(words, track.label, texts, scene_of(track.label) == MUSIC))

    def _gated(self, track: Track, rng: np.random.Generator) -> np.ndarray:
        """Only a stretch of the track, at least a fifth of the scene and not a silent one, with short fades."""
        width = int(rng.uniform(0.2, 0.8) * self.T)
        start = int(rng.integers(0, self.T - width + 1))
        fade = min(width // 2, self.store.sample_rate // 100)
        window = np.zeros(self.T, dtype=np.float32)
        window[start : start + width] = 1
        window[start : start + fade] = np.linspace(0, 1, fade)
        window[start + width - fade : start + width] = np.linspace(1, 0, fade)
        gated = track.samples * window
        energy = float(np.sum(gated**2))
        return gated / np.sqrt(energy) if energy > 1e-3 else track.samples


class SceneBatches:
    """Batch number to scenes and everything the losses need; see :meth:`__call__`."""

    def __init__(self, store: ClipStore, recipe: SceneRecipe, batch_size: int, token: int, seed: int):
        self.sampler, self.batch_size, self.token, self.seed = SceneSampler(store, recipe), batch_size, token, seed

    def __call__(self, number: int) -> dict:
        """A batch: ``audio [B, T]``; ``phrases``, Q texts, those of the first sounds first, then of the others, then
        of sounds that are nowhere; ``labels``, those of the first sounds; ``named [B, Q]`` int8, whether a text
        names the first sound: `YES`, `NO` or `UNSURE`; ``active [B, Q, N]`` int8, whether it is true of each token of
        ``token`` samples."""
        rng = np.random.default_rng((self.seed, number))
        words = random.Random(int(rng.integers(2**31)))
        scenes = [self.sampler.scene(rng, words) for _ in range(self.batch_size)]
        firsts, others = [s[0] for s in scenes], [sound for s in scenes for sound in s[1:]]
        labels: list[str | None] = [sound.label for sound in (*firsts, *others)]
        phrases = [sound.phrase for sound in (*firsts, *others)]
        phrases += [captions.draw_absent(words) for _ in range(ABSENT_TEXTS)]
        labels += [None] * ABSENT_TEXTS
        return {
            "audio": torch.from_numpy(np.stack([sum(sound.samples for sound in s) for s in scenes])),
            "phrases": phrases,
            "labels": [sound.label for sound in firsts],
            "named": _named(scenes, labels),
            "active": torch.from_numpy(np.stack([truth(s, labels, self.token) for s in scenes])),
        }


def _named(scenes: Sequence[Sequence[Sound]], labels: Sequence[str | None]) -> Tensor:
    """``[B, Q]`` int8: a scene's own text is true of it, those that may rightly be said of it are unsure."""
    found = torch.tensor([[UNSURE if label is not None and any(captions.overlap(label, sound.label) for sound in scene)
                           else NO for label in labels] for scene in scenes], dtype=torch.int8)  # fmt: skip
    rows = torch.arange(len(scenes))
    found[rows, rows] = YES
    return found


def truth(scene: Sequence[Sound], labels: Sequence[str | None], token: int) -> np.ndarray:
    """``[Q, N]`` int8: whether each label sounds in each token of ``token`` samples.

    A related label (a violin for a text about a cello) is neither true nor false while the sound lasts, and nor is
    a sound that is nearly over or that the rest of the scene drowns.
    """
    powers = np.stack([token_power(sound.samples, token) for sound in scene])
    peaks = powers.max(1, keepdims=True).clip(1e-12)
    total = powers.sum(0, keepdims=True).clip(1e-12)
    sounding = (powers > peaks * 10 ** (ON_DB / 10)) & (powers > total * 10 ** (MASKED_DB / 10))
    fading = ~sounding & (powers > peaks * 10 ** (OFF_DB / 10))
    found = np.full((len(labels), powers.shape[1]), NO, dtype=np.int8)
    for q, label in enumerate(labels):
        for sound, on, maybe in zip(scene, sounding, fading, strict=True):
            if label is None or not captions.overlap(label, sound.label):
                continue
            found[q, maybe & (found[q] != YES)] = UNSURE
            found[q, on] = YES if label == sound.label else UNSURE
    return found


def token_power(samples: np.ndarray, token: int) -> np.ndarray:
    """Mean power ``[N]`` of every token of ``token`` samples ``[T]``, the last one filled up with silence."""
    padded = np.pad(samples, (0, -len(samples) % token))
    return np.mean(padded.reshape(-1, token) ** 2, axis=1)
