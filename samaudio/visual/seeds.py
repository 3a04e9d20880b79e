"""The object around a click: candidates of several sizes, and which is best.

GrabCut (Rother, Kolmogorov and Blake, 2004) needs seeds of object and background, and a click gives a point. So each
of several radii is tried: within it, pixels may be the object; well beyond it they are not. What has colours that its
surroundings lack, moves otherwise than they do and has a smooth outline is an object. For objects of a few pixels,
whose colours cannot be learnt, a random walker (Grady, 2006) goes out from the click instead.

Pictures are uint8 ``[H, W, 3]``, RGB; masks bool ``[H, W]``; points ``(x, y)`` in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from peav.errors import UserError

from . import colours, motion
from .colours import opencv

Point = tuple[float, float]
RADII = (0.05, 0.08, 0.13, 0.2, 0.3, 0.45)  # of the picture's shorter side
_BEYOND = 1.7  # times the radius, from where on it is background
_WORKING = 112  # pixels a side at which candidates are cut
TINY = 14  # pixels across
_STILL = 0.6  # how little an area counts as one moving thing that does not move, while others do


def cut_out(picture: np.ndarray, trimap: np.ndarray, rounds: int) -> np.ndarray:
    """GrabCut's answer to OpenCV's labels ``[H, W]``; all background when the labels lack one side."""
    cv2 = opencv()
    sure = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
    if sure.sum() < 8 or (~sure).sum() < 8:
        return trimap == cv2.GC_FGD
    labels = trimap.copy()
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def candidates(picture: np.ndarray, wanted: Sequence[Point], unwanted: Sequence[Point]) -> Iterator[np.ndarray]:
    """Masks that hold the points of ``wanted``, from small to large."""
    cv2 = opencv()
    H, W = picture.shape[:2]
    away = distance(wanted, H, W)
    spread = max((np.hypot(a[0] - b[0], a[1] - b[1]) for a in wanted for b in wanted), default=0.0)
    for share in RADII:
        radius = max(4.0, share * min(H, W), 0.5 * spread)
        top, bottom, left, right = bounds(away <= 1.25 * _BEYOND * radius)
        crop, near = picture[top:bottom, left:right], away[top:bottom, left:right]
        scale = min(1.0, _WORKING / max(crop.shape[:2]))
        size = (max(8, round(crop.shape[1] * scale)), max(8, round(crop.shape[0] * scale)))
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        near = cv2.resize(near, size, interpolation=cv2.INTER_LINEAR)
        trimap = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
        trimap[near <= _BEYOND * radius] = cv2.GC_PR_BGD
        trimap[near <= radius] = cv2.GC_PR_FGD
        trimap[near <= max(1.5, 0.1 * radius)] = cv2.GC_FGD
        if unwanted:
            no = cv2.resize(distance(unwanted, H, W)[top:bottom, left:right], size)
            trimap[no <= max(2.0, 0.25 * radius)] = cv2.GC_BGD
        found = cut_out(small, trimap, 3)
        mask = np.zeros((H, W), bool)
        mask[top:bottom, left:right] = cv2.resize(found.astype(np.uint8), crop.shape[1::-1]) > 0
        mask = tidy(mask, wanted)
        if mask.any():
            yield mask
    for tolerance in (10, 25):
        yield tidy(_flat(picture, wanted, tolerance), wanted)


def walk(picture: np.ndarray, wanted: Sequence[Point], unwanted: Sequence[Point], radius: float) -> np.ndarray:
    """Random walker from the points; what is farther than ``radius`` pixels is background."""
    try:
        from skimage.segmentation import random_walker
    except ImportError as error:
        raise UserError('objects of a few pixels need scikit-image: pip install "samaudio[video]"') from error
    H, W = picture.shape[:2]
    away = distance(wanted, H, W)
    top, bottom, left, right = bounds(away <= 1.5 * radius + 2)
    near = away[top:bottom, left:right]
    labels = np.zeros(near.shape, np.int32)
    labels[near > radius] = 2
    if unwanted:
        labels[distance(unwanted, H, W)[top:bottom, left:right] <= 1.5] = 2
    labels[near <= 1.0] = 1
    mask = np.zeros((H, W), bool)
    crop = picture[top:bottom, left:right].astype(np.float64) / 255
    if (labels == 2).any() and (labels == 0).any() and crop.std() > 0:
        mask[top:bottom, left:right] = random_walker(crop, labels, beta=300, mode="bf", channel_axis=-1) == 1
    else:
        mask[top:bottom, left:right] = labels == 1
    return tidy(mask, wanted)


def qualities(picture: np.ndarray, masks: Sequence[np.ndarray], flow: np.ndarray | None) -> list[float]:
    """How much each masked area looks like an object of its own, about 0 to 1; -1 for none at all."""
    scores = [_quality(picture, mask) for mask in masks]
    if flow is None:
        return scores
    apart = [motion.disunity(flow, mask, _around(mask)) if s >= 0 else None
             for mask, s in zip(masks, scores, strict=True)]  # fmt: skip
    if all(value is None for value in apart):
        return scores
    # What moves with it belongs to it. Where something moves, an area that moves as the picture does is no object.
    return [s - 0.5 * (_STILL if value is None else value) if s >= 0 else s
            for s, value in zip(scores, apart, strict=True)]  # fmt: skip


def _quality(picture: np.ndarray, mask: np.ndarray) -> float:
    cv2 = opencv()
    area = int(mask.sum())
    if area < 8 or area > 0.8 * mask.size:
        return -1.0
    around = _around(mask)
    if not around.any():
        return -1.0
    contrast = 1 - colours.overlap(colours.histogram(picture, mask), colours.histogram(picture, around))
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outline))
    solid = area / max(area, cv2.contourArea(hull) + 0.5 * cv2.arcLength(hull, True))
    size = 0.04 * np.log2(area / 16)
    # What lies along the picture's border is background more often than an object.
    cut_off = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    length = max(len(line) for line in outline)
    return float(0.6 * contrast + 0.12 * solid + 0.25 * _edge(picture, mask) + size - 0.5 * min(1, cut_off / length))


def _edge(picture: np.ndarray, mask: np.ndarray) -> float:
    """How much colours change along the outline, 0 to 1."""
    cv2 = opencv()
    top, bottom, left, right = bounds(grown(mask, 4))
    inside = mask[top:bottom, left:right]
    levels = picture[top:bottom, left:right].astype(np.float32)
    means = []
    for side in (inside, ~inside):
        weight = side.astype(np.float32)
        total = cv2.boxFilter(levels * weight[..., None], -1, (5, 5), normalize=False)
        means.append(total / (cv2.boxFilter(weight, -1, (5, 5), normalize=False)[..., None] + 1e-3))
    line = inside & ~grown(inside, -1) & grown(~inside, 1)
    if not line.any():
        return 0.0
    step = np.linalg.norm(means[0] - means[1], axis=2)[line]
    return float((step / (step + 40)).mean())


def _around(mask: np.ndarray) -> np.ndarray:
    return grown(mask, max(3, round(0.35 * np.sqrt(mask.sum())))) & ~mask


def tidy(mask: np.ndarray, wanted: Sequence[Point]) -> np.ndarray:
    """The parts that hold a point, without holes."""
    cv2 = opencv()
    H, W = mask.shape
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    keep = np.zeros(count, bool)
    for x, y in wanted:
        r, c = min(H - 1, int(y)), min(W - 1, int(x))
        keep[np.unique(labels[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2])] = True
    keep[0] = False
    return filled(keep[labels])


def filled(mask: np.ndarray) -> np.ndarray:
    """Without holes; what is cut off by the picture's border is no hole."""
    cv2 = opencv()
    outside = np.pad((~mask).astype(np.uint8), 1, constant_values=1)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] != 2


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Dilated, or with negative ``pixels`` eroded, by a disc; beyond the border it goes on as within."""
    cv2 = opencv()
    if not pixels or not mask.any():
        return mask
    H, W = mask.shape
    margin = abs(pixels) + 2
    top, bottom, left, right = bounds(mask)
    part = slice(max(0, top - margin), min(H, bottom + margin)), slice(max(0, left - margin), min(W, right + margin))
    inner = mask[part]
    if pixels < 0 and inner.all():
        return mask
    # Distances cost the same for any radius, which dilation does not.
    away = cv2.distanceTransform((~inner if pixels > 0 else inner).astype(np.uint8), cv2.DIST_L2, 3)
    found = np.zeros_like(mask)
    found[part] = away <= pixels if pixels > 0 else away > -pixels
    return found


def distance(points: Sequence[Point], height: int, width: int) -> np.ndarray:
    """Pixels from each pixel to the nearest of the points: float32 ``[H, W]``."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.min([np.hypot(columns - int(x), rows - int(y)) for x, y in points], axis=0)


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First row, row after the last, first column, column after the last of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _flat(picture: np.ndarray, wanted: Sequence[Point], tolerance: int) -> np.ndarray:
    """Pixels connected to a point whose colour is close to its own, for flat drawings."""
    cv2 = opencv()
    H, W = picture.shape[:2]
    found = np.zeros((H + 2, W + 2), np.uint8)
    smooth = cv2.medianBlur(picture, 3)
    for x, y in wanted:
        seed = min(W - 1, int(x)), min(H - 1, int(y))
        flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
        cv2.floodFill(smooth, found, seed, 0, (tolerance,) * 3, (tolerance,) * 3, flags)
    return found[1:-1, 1:-1] > 0
