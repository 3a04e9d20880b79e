"""What moves where: smooth paths, and how an object answers to its sound.

Axes: ``N`` frames. Places are pixels (x to the right, y down), sizes are the longer side in pixels, angles are degrees.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .styles import Look


@dataclass
class Motion:
    """One object through time, each ``[N]``: centre, angle, size, and factor on its brightness."""

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    size: np.ndarray
    light: np.ndarray


@dataclass
class Actor:
    """A picture, how it moves, and its colours: hue turned by so many degrees, saturation times so much."""

    look: Look
    motion: Motion
    hue: float = 0.0
    saturation: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True)
class Answer:
    """What loudness 1 does to an object: growth, jump and shake in sizes, turn in degrees, light as a factor."""

    grow: float = 0.0
    jump: float = 0.0
    shake: float = 0.0
    turn: float = 0.0
    light: float = 0.0


@dataclass(frozen=True)
class Paths:
    """Range of what paths are like. Speeds in picture heights per second, sizes in picture heights."""

    size: tuple[float, float] = (0.24, 0.48)  # for two objects; more are smaller
    speed: tuple[float, float] = (0.0, 0.25)
    kinds: tuple[str, ...] = field(default=("drift", "bounce", "sway", "still"))


def false_rhythm(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """A rhythm ``[N]`` that belongs to no sound: bumps at random times."""
    onsets = np.cumsum(rng.exponential(0.6, 12))
    decay = rng.uniform(0.08, 0.5)
    late = times[:, None] - onsets[None]
    return np.where(late >= 0, np.exp(-late.clip(0) / decay), 0).max(1)


def draw_answer(rng: np.random.Generator, strength: float) -> Answer:
    """One to three ways of answering, at about this strength (1: plain to see)."""
    ways = ("grow", "jump", "shake", "turn", "light")
    full = {"grow": 0.5, "jump": 0.4, "shake": 0.12, "turn": 35.0, "light": 0.7}
    weights = np.array([0.34, 0.2, 0.16, 0.15, 0.15])
    chosen = rng.choice(len(ways), int(rng.integers(1, 4)), replace=False, p=weights)
    amounts = {ways[i]: full[ways[i]] * strength * rng.uniform(0.7, 1.3) for i in sorted(chosen)}
    if rng.random() < 0.5 and "turn" in amounts:
        amounts["turn"] = -amounts["turn"]
    return Answer(**amounts)


def place_all(rng: np.random.Generator, count: int, paths: Paths, times: np.ndarray,
              picture: tuple[int, int]) -> list[Motion]:  # fmt: skip
    """Paths of ``count`` objects in a picture of height and width; none is hidden by others most of the time."""
    best: tuple[float, list[Motion]] | None = None
    for _ in range(8):
        motions = [_path(rng, count, paths, times, picture) for _ in range(count)]
        covered = _covered(motions)
        if best is None or covered < best[0]:
            best = covered, motions
        if covered < 0.35:
            break
    assert best is not None
    return best[1]


def answer(rng: np.random.Generator, motion: Motion, how: Answer, loudness: np.ndarray) -> Motion:
    """The motion with an answer to loudness ``[N]`` on top."""
    N = len(loudness)
    # Alternating signs: at ten frames a second, shaking is what differs from frame to frame.
    sign = np.where(np.arange(N) % 2 == 0, 1.0, -1.0) * rng.uniform(0.6, 1.0, N)
    shake = how.shake * motion.size * loudness
    direction = rng.uniform(0, np.pi)
    return Motion(
        motion.x + shake * sign * np.cos(direction),
        # Around the middle of the movement, so that what is loud all the time stays where its path is.
        motion.y + shake * sign * np.sin(direction) - how.jump * motion.size * (loudness - 0.5),
        motion.angle + how.turn * (loudness - 0.5),
        motion.size * (1 + how.grow * (loudness - 0.4)),
        # Loudest is as bright as the picture itself; more would drown it in white.
        motion.light * (1 + how.light * loudness) / (1 + how.light),
    )


def _path(rng: np.random.Generator, count: int, paths: Paths, times: np.ndarray, picture: tuple[int, int]) -> Motion:
    H, W = picture
    N = len(times)
    size = rng.uniform(*paths.size) * min(H, W) * (1.0 if count <= 2 else (2.4 / count) ** 0.5)
    margin = 0.45 * size
    span = np.array([max(W - 2 * margin, 1.0), max(H - 2 * margin, 1.0)])
    start = rng.uniform(0, 1, 2) * span
    speed, heading = rng.uniform(*paths.speed) * H, rng.uniform(0, 2 * np.pi)
    step = speed * np.array([np.cos(heading), np.sin(heading)])
    kind = paths.kinds[int(rng.integers(len(paths.kinds)))]
    place = np.repeat(start[None], N, 0)
    if kind in ("drift", "bounce"):
        place = place + step * times[:, None]
    if kind == "bounce":
        hops = rng.uniform(0.5, 1.5)
        place[:, 1] -= rng.uniform(0.1, 0.3) * H * abs(np.sin(np.pi * (hops * times + rng.random())))
    if kind == "sway":
        phase, slow = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.15, 0.6, 2)
        swing = np.sin(2 * np.pi * slow * times[:, None] + phase) * rng.uniform(0.03, 0.2, 2) * H
        place = place + swing
    place = span - abs(place % (2 * span) - span)  # walls send it back
    angle = rng.normal(0, 15) + rng.normal(0, 15) * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * times)
    breath = 1 + rng.uniform(-0.12, 0.12) * np.sin(2 * np.pi * rng.uniform(0.05, 0.25) * times)
    return Motion(place[:, 0] + margin, place[:, 1] + margin, angle, size * breath, np.ones(N))


def _covered(motions: list[Motion]) -> float:
    """How much of the worst-off object others cover, roughly: the mean share of frames, by distance of centres."""
    worst = 0.0
    for k, one in enumerate(motions):
        hidden = np.zeros(len(one.x))
        for j, other in enumerate(motions):
            if j != k:
                reach = 0.5 * (one.size + other.size)
                gap = np.hypot(one.x - other.x, one.y - other.y) / reach
                hidden = np.maximum(hidden, (1.1 - gap).clip(0, 1))
        worst = max(worst, float(hidden.mean()))
    return worst
