"""What the eyes are trained on: objects of drawn films as the frame encoder gets them, and what is true of them.

Masks are damaged on purpose, since those of a segmenter are never exact. Axes: ``N`` frames, ``H`` and ``W`` pixels of
the film, ``h`` and ``w`` of the views, ``V`` views, ``C`` things.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor

from samaudio.visual.frames import GREY, Path, close_ups, follow, masked_frames
from samaudio.visual.geometry import GEOMETRY, geometry

from .films import DrawnFilm, DrawnFilms
from .vocabulary import THINGS

SEEN = 40  # pixels of an object that can be made out
NAMES = tuple(sorted(THINGS))  # what can be seen; everything else is scenery


def well_seen(masks: Tensor) -> Tensor:
    """Whether an object, masks ``[..., N, H, W]``, is seen in a third of its frames: bool ``[...]``. One that is hardly
    ever in the picture teaches nothing but guessing."""
    return (masks.sum((-2, -1)) >= SEEN).sum(-1) >= masks.shape[-3] // 3


def damaged(masks: Tensor, rng: np.random.Generator, chance: float = 0.6) -> Tensor:
    """Masks ``[N, H, W]`` as a segmenter might give them: too wide or too narrow, with a piece missing or too much,
    and with lost frames; each with a share of ``chance``."""
    found = masks
    H, W = masks.shape[-2:]
    if rng.random() < chance:
        width = 2 * int(rng.integers(1, 3)) + 1
        around = found[:, None].float()
        if rng.random() < 0.6:
            found = F_.max_pool2d(around, width, 1, width // 2)[:, 0] > 0
        else:
            found = F_.max_pool2d(1 - around, width, 1, width // 2)[:, 0] == 0
    if rng.random() < chance / 2:
        side = int(rng.integers(6, max(H, W) // 6))
        top, left = int(rng.integers(0, H - side)), int(rng.integers(0, W - side))
        found = found.clone()
        found[:, top : top + side, left : left + side] = bool(rng.random() < 0.3)
    if int((found & masks).sum()) < 0.5 * int(masks.sum()):  # thin things would vanish
        found = masks
    if rng.random() < chance / 3 and len(found) > 4:
        found = found.clone()
        start = int(rng.integers(0, len(found)))
        found[start : start + int(rng.integers(1, len(found) // 2))] = False
    return found


class StillBatches:
    """Batch number to single pictures: objects close up with all else grey, and whole pictures.

    Args:
        films: where they come from.
        batch_size: views per batch, about.
        size, whole_size: ``h, w`` of close-ups and of whole pictures.
        per_film: looks at each object.
    """

    def __init__(self, films: DrawnFilms, batch_size: int, size: tuple[int, int], whole_size: tuple[int, int],
                 seed: int, per_film: int = 4):  # fmt: skip
        self.films, self.batch_size, self.seed, self.per_film = films, batch_size, seed, per_film
        self.size, self.whole_size = size, whole_size

    def __call__(self, number: int) -> dict:
        """``one [V, 3, h, w]`` uint8 with ``thing [V]`` (number in `NAMES`, their count for what is none of them) and
        ``geometry [V, 9]``; ``all [U, 3, h, w]`` with ``things [U, C]``, 1 for what is seen."""
        rng = np.random.default_rng((self.seed, number))
        one, thing, shape, whole, things = [], [], [], [], []
        count, index = 0, 0
        while count < self.batch_size:
            film = self.films[number * self.batch_size + index]
            index += 1
            N = len(film.frames)
            seen = torch.zeros(len(NAMES))
            pick = torch.from_numpy(rng.choice(N, self.per_film, replace=self.per_film > N)).sort().values
            for masks, look in zip(torch.cat((film.masks, film.silent_masks)), film.looks, strict=True):
                if look.thing and bool(masks.any()):
                    seen[NAMES.index(look.thing)] = 1
                views, inside = look_at(film, damaged(masks, rng), rng, self.size, pick)
                keep = inside.sum((1, 2)) >= SEEN
                one.append(views[keep])
                shape.append(geometry(views, inside)[keep])
                thing += [NAMES.index(look.thing) if look.thing else len(NAMES)] * int(keep.sum())
            if index % 3 == 1:  # whole pictures are large, and take long
                whole.append(masked_frames(film.frames[pick[:1]], None, self.whole_size))
                things.append(seen)
            count = len(thing) + len(whole)
        return {"one": torch.cat(one), "thing": torch.tensor(thing), "geometry": torch.cat(shape),
                "all": torch.cat(whole), "things": torch.stack(things)}


def look_at(film: DrawnFilm, masks: Tensor, rng: np.random.Generator, size: tuple[int, int],
            pick: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Close-ups of an object whose masks ``[N, H, W]`` are given, a little off: ``[n, 3, h, w]`` and ``[n, h, w]``."""
    path = follow(masks[pick], film.times[pick].float())
    side = path.side * float(np.exp(rng.uniform(-0.3, 0.3)))
    x, y = (at + float(rng.uniform(-0.15, 0.15)) * side for at in (path.x, path.y))
    views, inside = close_ups(film.frames[pick], masks[pick], Path(x, y, side), size)
    return recoloured(views, inside, rng), inside


def recoloured(views: Tensor, inside: Tensor, rng: np.random.Generator, chance: float = 0.7) -> Tensor:
    """An object in other colours, the same in all of its views: what it is shows in its shape, and a style that was
    never seen has colours of its own.

    Args:
        views: uint8 ``[n, 3, h, w]``, grey around the object.
        inside: its masks bool ``[n, h, w]``.
    """
    if rng.random() >= chance:
        return views
    mix = np.eye(3) + rng.normal(0, 0.25, (3, 3))
    if rng.random() < 0.2:  # no colour at all
        mix = np.tile(rng.dirichlet(np.ones(3) * 3), (3, 1))
    mix = mix / np.abs(mix.sum(1, keepdims=True)).clip(0.5) * np.exp(rng.normal(0, 0.25))
    shifted = torch.einsum("ij,njhw->nihw", torch.from_numpy(mix).float(), views.float() - GREY)
    light = torch.from_numpy(rng.normal(0, 20, 3)).float()[None, :, None, None] * inside[:, None]
    return (shifted + light + GREY).round().clamp(0, 255).to(torch.uint8)


def stills(films: DrawnFilms, seconds: float = 0.6) -> DrawnFilms:
    """The same world in films as short as a few looks."""
    recipe = films.recipe
    return DrawnFilms(films.store, films.pictures,
                      replace(recipe, sound=replace(recipe.sound, seconds=seconds)), films.seed)


__all__ = ["GEOMETRY", "NAMES", "StillBatches", "damaged", "geometry", "look_at", "stills", "well_seen"]
