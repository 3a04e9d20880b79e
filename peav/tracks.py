"""One sound over a stretch of time: a long clip, or several short ones of its label in a row.

A track is what a player, a speaker or a dog would give: notes after notes, barks with pauses. Embedders learn from
tracks, and mixtures are sums of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import augment
from .clips import ClipStore

MUSIC, SPEECH, EVERYDAY = "music", "speech", "everyday"
_EVERYDAY_WORDS = ("bark", "rain", "waves", "crying", "ticking", "crackling", "helicopter", "chainsaw", "crow",
                   "sneez", "door", "telephone", "printer", "cash register", "burp", "buzz", "whoosh", "impact",
                   "vinyl", "glass", "train whistle", "bulb horn", "squeaker", "whip")


def scene_of(label: str) -> str:
    """Where a sound belongs: music, speech, or everyday life. Used to mix what can be heard together."""
    if "speaking" in label:
        return SPEECH
    return EVERYDAY if any(word in label for word in _EVERYDAY_WORDS) else MUSIC


@dataclass(frozen=True)
class Event:
    """``length`` samples of a (changed) clip from ``start`` on, put at ``at`` on the canvas, times ``gain``."""

    clip: int
    start: int
    at: int
    length: int
    gain: float


@dataclass
class Track:
    """``samples [T]`` float32 of one ``label`` and the events that made them; unit energy."""

    samples: np.ndarray
    label: str
    events: list[Event]

    @property
    def clip(self) -> int:
        """Number of the first clip."""
        return self.events[0].clip


class TrackSampler:
    """Draws labels and tracks from a store; every draw depends on the generator alone.

    Args:
        label_power: how often a label is drawn grows with its number of clips to this power: 0 draws every label
            equally often, 1 every clip.
        change: chance of each kind of augmentation on a track.
    """

    def __init__(self, store: ClipStore, label_power: float = 0.5, change: float = 0.7):
        self.store, self.change = store, change
        self.clips_of = store.by_label()
        self.labels = list(self.clips_of)
        weights = np.array([len(self.clips_of[name]) for name in self.labels], dtype=np.float64) ** label_power
        self._weights = weights / weights.sum()

    def draw_label(self, rng: np.random.Generator) -> str:
        return self.labels[int(rng.choice(len(self.labels), p=self._weights))]

    def track(self, label: str, T: int, rng: np.random.Generator) -> Track:
        """A canvas of ``T`` samples filled by one label, scaled to unit energy."""
        rate, choices = self.store.sample_rate, self.clips_of[label]
        clip = int(rng.choice(choices))
        canvas = np.zeros(T, dtype=np.float32)
        position = int(rng.uniform(0, 0.25) * T) if rng.random() < 0.5 else 0
        repeats = rng.random() < 0.3  # the same hit again and again, as a clock or a drum machine does
        # One recording sounds through a track (a player does not change rooms), so the same changes apply to all.
        changes = int(rng.integers(2**31))
        level = 1.0
        events: list[Event] = []
        while position < T:
            x = self._changed(self.store[clip], changes)
            start = self._start(x, T, rng) if len(x) > T and position == 0 else 0
            length = min(len(x) - start, T - position)
            x = x[start:start + min(T, len(x))]
            gain = float(level / max(float(np.sqrt(np.mean(x**2))), 1e-6))
            canvas[position:position + length] += np.float32(gain) * x[:length]
            events.append(Event(clip, start, position, length, gain))
            if rng.random() < 0.15 and position + length > T // 2:
                break
            gap = rng.uniform(0.0, 0.3) if repeats else rng.exponential(0.25)
            position += length + int(gap * rate)
            clip = clip if repeats else int(rng.choice(choices))
            level = 10 ** (rng.uniform(-6, 3) / 20)
        return Track(canvas / max(float(np.sqrt(np.sum(canvas**2))), 1e-6), label, events)

    @staticmethod
    def _start(x: np.ndarray, T: int, rng: np.random.Generator) -> int:
        """Where to cut ``T`` samples out of a longer clip: anywhere but in a pause."""
        floor = 10 ** (-30 / 10) * float(np.mean(x**2))
        start = 0
        for _ in range(8):
            start = int(rng.integers(0, len(x) - T + 1))
            if float(np.mean(x[start:start + T] ** 2)) > floor:
                return start
        loudest = int(np.argmax(np.abs(x)))
        return max(0, min(len(x) - T, loudest - T // 2))

    def _changed(self, x: np.ndarray, seed: int) -> np.ndarray:
        if self.change == 0:
            return x
        rng, rate = np.random.default_rng(seed), self.store.sample_rate
        if rng.random() < self.change:
            x = augment.speed(x, rng)
        if rng.random() < self.change:
            x = augment.equalise(x, rng, rate)
        if rng.random() < self.change / 2:
            x = augment.reverberate(x, rng, rate)
        return x
