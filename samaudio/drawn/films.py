"""Films of the drawn world, made when they are asked for: objects that move with the sound that each of them makes.

``DrawnFilms(store, pictures, recipe, seed)[i]`` is the i-th film of an endless stream; it depends on the four alone.
A store and pictures of the split ``valid`` give unseen recordings and an unseen drawing style.

Axes: ``K`` objects that sound, ``S`` silent ones, ``N`` frames, ``H`` and ``W`` pixels, ``T`` samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peav.clips import ClipStore
from peav.errors import UserError
from samaudio import mixtures
from samaudio.prompts import Click
from samaudio.pulse import envelope

from .backgrounds import Background
from .render import degrade, draw_film
from .scene import Actor, Answer, Paths, answer, draw_answer, false_rhythm, place_all
from .sounds import DrawableMixtures, drawable
from .styles import Look, Pictures
from .wording import joined, listed, with_article

_TRIES = 8  # mixtures per film number: look-alikes whose sounds come and go together are drawn anew
_SMALLEST = 8  # pixels of an object that one can click on


@dataclass(frozen=True)
class Recipe:
    """What films look and sound like. Chances are of 1; strengths are 1 for a movement that is plain to see.

    ``sound``: length, number and levels of the sounds; ``silent``: chances of 0, 1, 2, ... objects without sound;
    ``alike``: chance that two sounding objects share one picture, nothing else sounding; ``even``: how far things that
    many labels share are held back (0 to 1); ``still``: chance that an object does not answer to its sound; ``false``:
    that a silent object moves to a rhythm of its own; ``delay``: of an answer, in seconds; ``clutter``: most small
    pictures in the background; ``camera``: how far it moves; ``wear``: chance of each kind of damage to the picture.
    """

    sound: mixtures.Recipe = field(
        default=mixtures.Recipe(seconds=3.0, sources=(0.15, 0.55, 0.22, 0.08), snr_db=(-5.0, 5.0), absent=0.0))
    fps: float = 8.0
    size: tuple[int, int] = (112, 112)  # height and width
    silent: tuple[float, ...] = (0.45, 0.35, 0.2)
    alike: float = 0.12
    even: float = 0.5
    still: float = 0.08
    false: float = 0.4
    strength: tuple[float, float] = (0.5, 1.2)
    delay: tuple[float, float] = (0.0, 0.08)
    clutter: int = 8
    camera: float = 0.7
    wear: float = 0.6
    paths: Paths = Paths()

    def __post_init__(self) -> None:
        if self.fps <= 0 or self.sound.seconds * self.fps < 1:
            raise UserError(f"{self.sound.seconds:g} s at {self.fps:g} frames per second is no frame; give more")
        if min(self.size) < 32:
            raise UserError(f"pictures of {self.size[0]} x {self.size[1]} pixels are too small; give at least 32 x 32")


LOOK_ALIKES = Recipe(alike=1.0, still=0.0, strength=(0.8, 1.3))


@dataclass
class DrawnFilm:
    """One film and everything that is true of it. Object k makes stem k; objects are in no order of depth.

    Attributes:
        frames: uint8 ``[N, 3, H, W]``.
        times: ``[N]``, seconds.
        masks: bool ``[K, N, H, W]``, where each sounding object is seen.
        silent_masks: bool ``[S, N, H, W]``.
        stems: float32 ``[K, T]`` at ``sample_rate``; the sound is their sum.
        loudness: ``[K, N]``, 0 to 1: what the objects answer to, without their delay.
        labels, phrases: of the sounds, as `samaudio.mixtures` words them.
        looks: pictures of the sounding objects, then of the silent ones.
        clips: number in the store of the first clip of each stem (see `DrawnFilms.store`).
        alike: the first two objects share a picture; only movement tells them apart.
    """

    frames: Tensor
    times: Tensor
    masks: Tensor
    silent_masks: Tensor
    stems: Tensor
    loudness: Tensor
    sample_rate: int
    labels: list[str]
    phrases: list[str]
    looks: list[Look]
    clips: list[int]
    alike: bool
    clicks: list[Click | None]  # on each sounding object where it is well seen; None if it nowhere is
    silent_clicks: list[Click | None]

    @property
    def samples(self) -> Tensor:
        """The mixture ``[T]``."""
        return self.stems.sum(0)

    @property
    def captions(self) -> dict[str, list[str]]:
        """Wordings as `peav.films` takes them. ``video`` names what is seen, whether it sounds or not."""
        heard = listed(self.labels)
        seen = listed([look.thing for look in self.looks if look.thing])
        both = joined([f"the sound of {with_article(label)} from {with_article(look.thing)}"
                       for label, look in zip(self.labels, self.looks, strict=False)])  # fmt: skip
        return {"audio": [heard, self.phrases[0] if len(self.phrases) == 1 else f"the sound of {heard}"],
                "video": [seen, f"a drawing of {seen}"], "audio_video": [both, f"{heard}, and one sees {seen}"]}


class DrawnFilms:
    """An endless, seeded stream of films; see the module's first lines.

    Args:
        store: clips of one split.
        pictures: styles of the same split.

    Raises:
        UserError: no clip has a label that the pictures can show.
    """

    def __init__(self, store: ClipStore, pictures: Pictures, recipe: Recipe = Recipe(), seed: int = 0) -> None:
        self.pictures, self.recipe, self.seed = pictures, recipe, seed
        self.store, self.looks = drawable(store, pictures)
        sound = replace(recipe.sound, absent=0.0)
        # Film i of another style shall not have the scene of film i of this one, moved to other clips and pictures.
        self._stream = zlib.crc32(",".join(pictures.styles).encode()) * 2**32 + seed
        self._mixtures = DrawableMixtures(self.store, sound, self._stream, self.looks, even=recipe.even)
        # Two sources and no more: a third would make the same film easier or harder for no reason.
        twins = replace(sound, sources=(0.0, 1.0))
        self._twins: DrawableMixtures | None = None
        if recipe.alike > 0:
            self._twins = DrawableMixtures(self.store, twins, self._stream, self.looks, alike=True)
        self._silent, self._sounding = pictures.silent(), pictures.sounding()
        self.times = np.arange(max(1, round(recipe.sound.seconds * recipe.fps))) / recipe.fps

    def __getitem__(self, index: int) -> DrawnFilm:
        recipe, times = self.recipe, self.times
        rng = np.random.default_rng((self._stream, index, 1))
        alike = self._twins is not None and rng.random() < recipe.alike
        mixture, loudness = self._mixture(index, alike)
        K, rate = len(mixture.stems), self.store.sample_rate
        looks = self._looks(rng, mixture.labels, alike)
        quiet = self._silent_looks(rng, looks, mixture.labels)
        paths = place_all(rng, K + len(quiet), recipe.paths, times, recipe.size)
        actors = []
        twin = self._colours(rng)
        for k, look in enumerate(looks + quiet):
            how, beat = Answer(), np.zeros(len(times))
            if k < K and rng.random() >= recipe.still:
                how = draw_answer(rng, rng.uniform(*recipe.strength))
                beat = envelope(mixture.stems[k], rate, times - rng.uniform(*recipe.delay))
            elif k >= K and rng.random() < recipe.false:
                how, beat = draw_answer(rng, rng.uniform(*recipe.strength)), false_rhythm(rng, times)
            colours = twin if alike and k < 2 else self._colours(rng)
            actors.append(Actor(look, answer(rng, paths[k], how, beat), **colours))
        background = Background(rng, self.pictures, self._silent, recipe.size, times, recipe.clutter, recipe.camera)
        depth = rng.permutation(len(actors))
        frames, drawn = draw_film(self.pictures, [actors[k] for k in depth], background.at, len(times))
        masks = np.empty_like(drawn)
        masks[depth] = drawn
        frames = degrade(frames, rng, recipe.wear)
        clicks = [_click(rng, mask, times) for mask in masks]
        phrases = {question.stem: question.phrase for question in mixture.questions}
        return DrawnFilm(
            frames=torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))),
            times=torch.from_numpy(times.copy()),
            masks=torch.from_numpy(masks[:K]), silent_masks=torch.from_numpy(masks[K:]),
            stems=torch.from_numpy(mixture.stems), loudness=torch.from_numpy(loudness), sample_rate=rate,
            labels=mixture.labels, phrases=[phrases[k] for k in range(K)], looks=looks + quiet, clips=mixture.clips,
            alike=alike, clicks=clicks[:K], silent_clicks=clicks[K:])  # fmt: skip

    def _mixture(self, index: int, alike: bool) -> tuple[mixtures.Mixture, np.ndarray]:
        """A mixture and the loudness ``[K, N]`` of its stems; of look-alikes one where movement can decide."""
        sampler = self._twins if alike and self._twins is not None else self._mixtures
        best = None
        for attempt in range(_TRIES):
            mixture = sampler[index * _TRIES + attempt]
            loudness = np.stack([envelope(stem, self.store.sample_rate, self.times) for stem in mixture.stems])
            same = likeness(loudness) if alike else -1.0
            if best is None or same < best[0]:
                best = same, mixture, loudness
            if same < 0.5:
                break
        assert best is not None
        return best[1], best[2]

    def _looks(self, rng: np.random.Generator, labels: Sequence[str], alike: bool) -> list[Look]:
        if alike:
            first, second = (self.looks[label] for label in labels)
            shared = [look for look in first if look in second]
            return [shared[int(rng.integers(len(shared)))]] * 2
        style = self.pictures.styles[int(rng.integers(len(self.pictures.styles)))] if rng.random() < 0.5 else None
        found: dict[int, Look] = {}
        used: set[str] = set()
        # Those with the fewest things to choose from first, so that something is left for each.
        for k in sorted(range(len(labels)), key=lambda k: len({look.thing for look in self.looks[labels[k]]})):
            there = [look for look in self.looks[labels[k]] if look.thing not in used]
            there = [look for look in there if look.style == style] or there
            # Things first: a thing with three pictures should not be drawn three times as often.
            things = sorted({look.thing for look in there})
            thing = things[int(rng.integers(len(things)))]
            there = [look for look in there if look.thing == thing]
            found[k] = there[int(rng.integers(len(there)))]
            used.add(thing)
        return [found[k] for k in range(len(labels))]

    def _silent_looks(self, rng: np.random.Generator, looks: list[Look], labels: Sequence[str]) -> list[Look]:
        chances = np.array(self.recipe.silent)
        taken = {look.thing for look in looks} | {look.thing for label in labels for look in self.looks[label]}
        found: list[Look] = []
        for _ in range(int(rng.choice(len(chances), p=chances / chances.sum()))):
            # Half of them could sound but do not.
            pool = [look for look in self._sounding if look.thing not in taken] if rng.random() < 0.5 else self._silent
            if pool:
                found.append(pool[int(rng.integers(len(pool)))])
                taken |= {found[-1].thing} - {""}
        return found

    @staticmethod
    def _colours(rng: np.random.Generator) -> dict[str, Any]:
        return {"hue": float(rng.normal(0, 12)), "saturation": float(rng.uniform(0.5, 1.2)),
                "mirrored": bool(rng.random() < 0.5)}  # fmt: skip


def likeness(loudness: np.ndarray) -> float:
    """How alike two sounds come and go: the correlation of loudness ``[2, N]``, 1 where one of them never changes."""
    if loudness.shape[1] < 2 or float(loudness.std(1).min()) < 0.08:
        return 1.0
    return float(np.corrcoef(loudness)[0, 1])


def _click(rng: np.random.Generator, masks: np.ndarray, times: np.ndarray) -> Click | None:
    """A point well inside an object ``[N, H, W]``, at a random time when it is well seen; the middle of a pixel."""
    import cv2

    areas = masks.sum((1, 2))
    seen = np.flatnonzero(areas >= max(_SMALLEST, 0.5 * np.median(areas)))
    if len(seen) == 0:
        return None
    n = int(seen[int(rng.integers(len(seen)))])
    # Outside of the picture there is no object either.
    depth = cv2.distanceTransform(np.pad(masks[n], 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= 0.6 * depth.max())
    at = int(rng.integers(len(rows)))
    return Click(float(columns[at]) + 0.5, float(rows[at]) + 0.5, float(times[n]))
