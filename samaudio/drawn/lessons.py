"""Drawn films as the video tower learns from them: each object by itself, what it sounds like, and when.

Axes: ``B`` films, ``M`` objects of all of them, ``N`` frames, ``F`` tokens of the audio tower, ``T`` samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peav import captions
from peav.scenes import MASKED_DB, NO, OFF_DB, ON_DB, UNSURE, YES, token_power
from samaudio.visual.frames import masked_frames

from .films import DrawnFilm, DrawnFilms
from .views import damaged, look_at, well_seen
from .vocabulary import things_of
from .wording import with_article


@dataclass
class Seen:
    """An object of a film. ``sound`` is its stem's number, None of a silent one; ``phrase`` and ``label`` name the
    sound, or what is seen of a silent one (``label`` None)."""

    film: int
    sound: int | None
    label: str | None
    phrase: str
    thing: str
    views: Tensor  # uint8 [N, 3, h, w]


def active(stems: np.ndarray, token: int) -> np.ndarray:
    """``[K, F]`` int8: whether each stem ``[K, T]`` can be heard in each token of ``token`` samples, as
    `peav.scenes.truth` has it: `YES`, `NO`, or `UNSURE` where it fades or is drowned."""
    powers = np.stack([token_power(stem, token) for stem in stems])
    peaks = powers.max(1, keepdims=True).clip(1e-12)
    total = powers.sum(0, keepdims=True).clip(1e-12)
    there = powers > peaks * 10 ** (ON_DB / 10)
    heard = there & (powers > total * 10 ** (MASKED_DB / 10))
    gone = powers <= peaks * 10 ** (OFF_DB / 10)
    return np.where(heard, YES, np.where(gone, NO, UNSURE)).astype(np.int8)


class Lessons:
    """Batch number to films and everything that the losses need; see :meth:`__call__`.

    Args:
        size, whole_size: ``h, w`` of close-ups and of whole pictures.
        token: samples per token of the audio tower.
        silent: most silent objects per film.
    """

    def __init__(self, films: DrawnFilms, batch_size: int, size: tuple[int, int], whole_size: tuple[int, int],
                 token: int, seed: int, silent: int = 1) -> None:  # fmt: skip
        self.films, self.batch_size, self.size, self.whole_size = films, batch_size, size, whole_size
        self.token, self.seed, self.silent = token, seed, silent

    def __call__(self, number: int) -> dict:
        """``mixture [B, T]``; ``whole [B, N, 3, h, w]`` uint8, the films; captions of them by kind (``caption_audio``
        and so on). Of the objects, in order of films: ``views [M, N, 3, h, w]`` uint8, ``film [M]``, ``stems [M, T]``,
        silence of silent ones, ``phrases``, ``active [B, M, F]`` and ``named [M, M]`` int8: whether an object sounds in
        a token of a film, and whether the phrase of the second is true of the sound of the first."""
        rng = np.random.default_rng((self.seed, number))
        films = [self.films[number * self.batch_size + i] for i in range(self.batch_size)]
        seen = [one for i, film in enumerate(films) for one in self._objects(film, i, rng)]
        sounding = [active(film.stems.numpy(), self.token) for film in films]
        frames = sounding[0].shape[1]
        truth = np.full((len(films), len(seen), frames), NO, dtype=np.int8)
        for m, one in enumerate(seen):
            for b, film in enumerate(films):
                if b == one.film:
                    if one.sound is not None:
                        truth[b, m] = sounding[b][one.sound]
                elif any(_alike(one, label) for label in film.labels):
                    truth[b, m] = UNSURE
        named = np.full((len(seen), len(seen)), NO, dtype=np.int8)
        for i, one in enumerate(seen):
            for j, other in enumerate(seen):
                if i == j:
                    named[i, j] = YES
                elif one.film != other.film or one.label is not None:
                    named[i, j] = UNSURE if one.label and _alike(other, one.label) else NO
        T = films[0].stems.shape[1]
        batch = {
            "mixture": torch.stack([film.samples for film in films]),
            "whole": torch.stack([masked_frames(film.frames, None, self.whole_size) for film in films]),
            "views": torch.stack([one.views for one in seen]),
            "film": torch.tensor([one.film for one in seen]),
            "stems": torch.stack([torch.zeros(T) if one.sound is None else films[one.film].stems[one.sound]
                                  for one in seen]),
            "phrases": [one.phrase for one in seen],
            "silent": torch.tensor([one.sound is None for one in seen]),
            "active": torch.from_numpy(truth), "named": torch.from_numpy(named),
        }  # fmt: skip
        for kind in films[0].captions:
            texts = [film.captions[kind] for film in films]
            batch[f"caption_{kind}"] = [options[int(rng.integers(len(options)))] for options in texts]
        return batch

    def _objects(self, film: DrawnFilm, number: int, rng: np.random.Generator) -> list[Seen]:
        found = []
        masks = torch.cat((film.masks, film.silent_masks))
        K = len(film.stems)
        for k, look in enumerate(film.looks[: K + self.silent]):
            if not well_seen(masks[k]):
                continue
            views, _ = look_at(film, damaged(masks[k], rng), rng, self.size)
            label = film.labels[k] if k < K else None
            phrase = film.phrases[k] if k < K else with_article(look.thing) if look.thing else "something silent"
            found.append(Seen(number, k if k < K else None, label, phrase, look.thing, views))
        return found


def _alike(one: Seen, label: str) -> bool:
    """Whether ``label`` may be what an object sounds like: by its own label or, of a silent one, by its looks."""
    return captions.overlap(one.label, label) if one.label is not None else one.thing in things_of(label)


__all__ = ["Lessons", "Seen", "active"]
