"""Mixtures for films: `samaudio.mixtures` of labels that can be drawn, by objects that look different or alike."""

from __future__ import annotations

import copy

import numpy as np

from peav.clips import ClipStore
from peav.errors import UserError
from samaudio.mixtures import MixtureSampler, Recipe

from .styles import Look, Pictures

_ENOUGH = 3  # clips of a label that two objects may both make the sound of


def drawable(store: ClipStore, pictures: Pictures) -> tuple[ClipStore, dict[str, list[Look]]]:
    """A store of the clips whose label has a picture, and the pictures of each of these labels.

    Raises:
        UserError: no clip has one.
    """
    looks = {label: found for label in store.by_label() if (found := pictures.looks(label))}
    keep = [i for i, clip in enumerate(store.clips) if clip.label in looks]
    if not keep:
        raise UserError("none of the clips has a label that these pictures can show; see docs/drawn-world.md")
    part = copy.copy(store)  # the samples stay where they are
    part.clips = [store.clips[i] for i in keep]
    part._parts = [store._parts[i] for i in keep]
    return part, looks


class DrawableMixtures(MixtureSampler):
    """Mixtures whose stems can be told apart by their pictures or, with ``alike``, two that cannot.

    There are as many questions as stems, and each stem is asked for by one of them.

    Args:
        even: 0 draws labels as the recipe says; towards 1, things that many labels share (drums) as often as others.
    """

    def __init__(self, store: ClipStore, recipe: Recipe, seed: int, looks: dict[str, list[Look]], alike: bool = False,
                 even: float = 0.0) -> None:  # fmt: skip
        super().__init__(store, recipe, seed, questions=len(recipe.sources))
        self.alike = alike
        self.things = {label: frozenset(look.thing for look in found) for label, found in looks.items()}
        weights = self.tracks._weights
        share: dict[frozenset[str], float] = {}
        for label, weight in zip(self.tracks.labels, weights, strict=True):
            share[self.things[label]] = share.get(self.things[label], 0.0) + weight
        weights = weights / np.array([share[self.things[label]] for label in self.tracks.labels]) ** even
        self.tracks._weights = weights / weights.sum()

    def _labels(self, rng: np.random.Generator, count: int) -> list[str]:
        if self.alike:
            return self._twins(rng)
        chosen: list[str] = []
        used: set[str] = set()
        # More than needed, since some will share their only picture with an earlier one.
        for label in super()._labels(rng, count + 4):
            if len(chosen) < count and self.things[label] - used:
                chosen.append(label)
                if len(self.things[label]) == 1:
                    used |= self.things[label]
        return chosen

    def _twins(self, rng: np.random.Generator) -> list[str]:
        groups: dict[str, list[str]] = {}
        for label in self.tracks.labels:
            for thing in self.things[label]:
                groups.setdefault(thing, []).append(label)
        # A label serves twice if there are clips enough that its two sounds differ.
        groups = {thing: labels for thing, labels in sorted(groups.items())
                  if len(labels) > 1 or len(self.tracks.clips_of[labels[0]]) >= _ENOUGH}  # fmt: skip
        if not groups:
            raise UserError("no two sounds look alike; use a larger manifest, or a recipe without look-alikes")
        # By thing, or half of all look-alikes would be drums.
        weights = np.array([len(labels) for labels in groups.values()]) ** 0.5
        labels = list(groups.values())[int(rng.choice(len(groups), p=weights / weights.sum()))]
        one = labels[int(rng.integers(len(labels)))]
        others = [name for name in labels if name != one or len(self.tracks.clips_of[name]) >= _ENOUGH]
        return [one, others[int(rng.integers(len(others)))]]
