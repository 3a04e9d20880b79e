"""Clicks to masks over a film without SAM: `segment` where it was clicked, `follow` from there.

Each moment belongs to the nearest one that was pointed at. From there the object is followed forwards and backwards;
negative clicks on the way correct what is followed.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .follow import Follower
from .outline import Outline
from .pictures import Pictures
from .segment import Seeds, segment, without

Found = tuple[int, np.ndarray, float]  # number of the picture, mask bool [H, W], fit 0 to 1


class Classical:
    """An outline network where there is one and it is sure, else GrabCut (or a random walker, for tiny objects); with
    optical flow.

    `used` says which, of the last run in the same thread: one of these serves all users of a page.
    """

    max_side: int | None = None

    def __init__(self, outline: Outline | None = None) -> None:
        self.outline = outline
        self._here = threading.local()

    @property
    def used(self) -> str:
        return " and ".join(getattr(self._here, "used", None) or {"GrabCut": None}) + " with optical flow"

    def run(self, pictures: Pictures, seeds: Mapping[int, Seeds], tick: Callable[[], None]) -> Iterator[Found]:
        """The mask in every picture, in no particular order.

        Args:
            seeds: what was pointed at, by number of the picture.
            tick: called once for each picture.
        """
        self._here.used = {}  # a dict for its order
        anchors = sorted(i for i, seed in seeds.items() if seed.anchors)
        for k, anchor in enumerate(anchors):
            first = 0 if k == 0 else _halfway(pictures.times, anchors[k - 1], anchor)
            last = len(pictures) - 1 if k + 1 == len(anchors) else _halfway(pictures.times, anchor, anchors[k + 1]) - 1
            mask = self._mask(pictures, anchor, seeds[anchor])
            yield anchor, mask, 1.0
            tick()
            for way in (range(anchor + 1, last + 1), range(anchor - 1, first - 1, -1)):
                yield from self._follow(pictures, anchor, mask, way, seeds, tick)

    def _mask(self, pictures: Pictures, i: int, seeds: Seeds) -> np.ndarray:
        _, picture = pictures[i]
        mask, method = segment(picture, seeds, pictures.beside(i), self.outline)
        self._here.used[method] = None
        return mask

    def _follow(self, pictures: Pictures, anchor: int, mask: np.ndarray, way: range, seeds: Mapping[int, Seeds],
                tick: Callable[[], None]) -> Iterator[Found]:
        if not len(way):
            return
        follower = Follower(*pictures[anchor], mask)
        for i in way:
            stamp, picture = pictures[i]
            found, fit = follower.step(stamp, picture)
            if i in seeds and found.any():
                better = without(picture, found, seeds[i].unwanted)
                if better is not found:
                    found = better
                    follower.correct(stamp, picture, found)
            yield i, found, fit
            tick()


def _halfway(times: list[float], a: int, b: int) -> int:
    """The first picture that is nearer in time to picture b than to a."""
    return bisect.bisect_right(times, (times[a] + times[b]) / 2)
