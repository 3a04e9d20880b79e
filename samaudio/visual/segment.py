"""One picture, and clicks or a box, to the object's mask.

Pictures are uint8 ``[H, W, 3]``, RGB; masks bool ``[H, W]``; points and boxes in pixels of that picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from . import motion
from .colours import opencv
from .outline import Outline
from .seeds import TINY, Point, bounds, candidates, cut_out, distance, filled, grown, qualities, tidy, walk

_POOR = 0.35  # quality below which a random walker may do better
SURE = 0.5  # intersection over union that the outline network has to promise to be believed
_CLEARLY = 0.2  # by how much another area has to look more like an object of its own
GRABCUT, WALKER, OUTLINE = "GrabCut", "random walker", "outline network"
_DISC = 0.02  # of the shorter side: how far around a negative click is background for sure


@dataclass
class Seeds:
    """What was pointed at in one picture."""

    wanted: list[Point] = field(default_factory=list)
    unwanted: list[Point] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1

    @property
    def anchors(self) -> bool:
        """Whether it says where the object is, not only where it is not."""
        return bool(self.wanted) or self.box is not None


def segment(
    picture: np.ndarray, seeds: Seeds, neighbour: np.ndarray | None = None, outline: Outline | None = None
) -> tuple[np.ndarray, str]:
    """The object's mask, and the method that found it.

    Args:
        neighbour: the picture shortly before or after; what moves together is one object.
        outline: is believed where it is sure, unless colours and movement speak clearly against it.

    Returns:
        Never empty: in the worst case the pixels around the clicks.
    """
    if seeds.box is not None:
        return _boxed(picture, seeds), GRABCUT
    flow = motion.flow_between(picture, neighbour) if neighbour is not None else None
    found = [mask for mask in candidates(picture, seeds.wanted, seeds.unwanted) if _allowed(mask, seeds)]
    scores = qualities(picture, found, flow)
    best, score = max(zip(found, scores, strict=True), key=lambda pair: pair[1], default=(None, -1.0))
    drawn = _drawn(picture, seeds, flow, outline)
    if drawn is not None and qualities(picture, [drawn], flow)[0] > score - _CLEARLY:
        return drawn, OUTLINE
    if best is None or score < _POOR or best.sum() < 0.5 * TINY**2:
        tiny = walk(picture, seeds.wanted, seeds.unwanted, TINY)
        known = -1.0 if best is None else qualities(picture, [best], None)[0]
        if _allowed(tiny, seeds) and qualities(picture, [tiny], None)[0] > known:
            return tiny, WALKER
    if best is None or score < 0:
        return distance(seeds.wanted, *picture.shape[:2]) <= 3, WALKER
    return _sharpened(picture, best, seeds), GRABCUT


def _drawn(
    picture: np.ndarray, seeds: Seeds, flow: np.ndarray | None, outline: Outline | None
) -> np.ndarray | None:
    """What the outline network makes of the clicks; None where it is unsure or there is none."""
    found = None if outline is None else outline.draw(picture, seeds.wanted, flow)
    if found is None or found[1] < SURE:
        return None
    for mask in (_sharpened(picture, found[0], seeds), found[0]):
        if _allowed(mask, seeds):
            return mask
    return None


def without(picture: np.ndarray, mask: np.ndarray, unwanted: Sequence[Point]) -> np.ndarray:
    """A mask corrected by clicks on what it should not hold; the part farthest from them is the object.

    Empty when nothing is left.
    """
    cv2 = opencv()
    H, W = mask.shape
    inside = [p for p in unwanted if mask[min(H - 1, int(p[1])), min(W - 1, int(p[0]))]]
    if not inside:
        return mask
    deep = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    away = distance(inside, H, W)
    # Seeds of the object: the half of it that is farther from the clicks, well inside.
    far = mask & (away > np.quantile(away[mask], 0.6)) & (deep >= min(2.0, float(deep.max())))
    if not far.any():
        return np.zeros_like(mask)
    trimap = np.full((H, W), cv2.GC_BGD, np.uint8)
    trimap[grown(mask, 2)] = cv2.GC_PR_BGD
    trimap[mask & (away > np.quantile(away[mask], 0.3))] = cv2.GC_PR_FGD
    trimap[far] = cv2.GC_FGD
    trimap[away <= max(2.0, _DISC * min(H, W))] = cv2.GC_BGD
    left = cut_out(picture, trimap, 3)
    row, column = np.unravel_index(int(np.argmax(deep * far)), (H, W))
    return tidy(left, [(float(column), float(row))])


def _boxed(picture: np.ndarray, seeds: Seeds) -> np.ndarray:
    cv2 = opencv()
    H, W = picture.shape[:2]
    assert seeds.box is not None
    x0, y0, x1, y1 = seeds.box
    x0, y0 = min(int(x0), W - 1), min(int(y0), H - 1)
    x1, y1 = max(x0 + 1, min(W, round(x1))), max(y0 + 1, min(H, round(y1)))
    inside = np.zeros((H, W), bool)
    inside[y0:y1, x0:x1] = True
    trimap = np.full((H, W), cv2.GC_BGD, np.uint8)
    trimap[inside] = cv2.GC_PR_FGD
    for points, label in ((seeds.wanted, cv2.GC_FGD), (seeds.unwanted, cv2.GC_BGD)):
        if points:
            trimap[distance(points, H, W) <= max(1.5, _DISC * min(H, W))] = label
    margin = max(8, round(0.4 * max(x1 - x0, y1 - y0)))
    top, bottom, left, right = bounds(grown(inside, margin))
    found = np.zeros((H, W), bool)
    found[top:bottom, left:right] = cut_out(picture[top:bottom, left:right], trimap[top:bottom, left:right], 4)
    found = filled(grown(grown(found, -1), 1) & inside)
    # Most of a good box is the object; when GrabCut finds next to nothing there, the box itself says more.
    return found if found.sum() >= 0.15 * inside.sum() else inside


def _allowed(mask: np.ndarray, seeds: Seeds) -> bool:
    H, W = mask.shape
    near = grown(mask, 1)
    if not all(near[min(H - 1, int(y)), min(W - 1, int(x))] for x, y in seeds.wanted):
        return False
    return not any(mask[min(H - 1, int(y)), min(W - 1, int(x))] for x, y in seeds.unwanted)


def _sharpened(picture: np.ndarray, mask: np.ndarray, seeds: Seeds) -> np.ndarray:
    """The outline at the picture's own resolution."""
    cv2 = opencv()
    H, W = mask.shape
    band = max(1, round(0.06 * np.sqrt(mask.sum())))
    top, bottom, left, right = bounds(grown(mask, 4 * band + 4))
    trimap = np.full((H, W), cv2.GC_BGD, np.uint8)
    trimap[grown(mask, band)] = cv2.GC_PR_BGD
    trimap[mask] = cv2.GC_PR_FGD
    trimap[grown(mask, -2 * band)] = cv2.GC_FGD
    if seeds.unwanted:
        trimap[distance(seeds.unwanted, H, W) <= 2] = cv2.GC_BGD
    found = np.zeros_like(mask)
    found[top:bottom, left:right] = cut_out(picture[top:bottom, left:right], trimap[top:bottom, left:right], 1)
    found = tidy(found, seeds.wanted)
    both = (found & mask).sum() / max(1, (found | mask).sum())
    return found if both > 0.6 and _allowed(found, seeds) else mask
