"""A mask from one picture to the next.

Where the object went is looked for by its looks (masked template, colours) near where its speed would bring it, so
that a second object that looks alike does not take its place; how it turned and grew is read from optical flow; its
outline is cut anew by GrabCut. When nothing fits, it is out of sight, until something that looks like it appears.

Pictures are uint8 ``[H, W, 3]``, RGB; masks bool ``[H, W]``. Inside, both stand on a canvas with a margin, since
objects leave the picture bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import colours
from .colours import opencv
from .motion import similarity
from .seeds import TINY, bounds, cut_out, filled, grown

_LOST = 0.4  # fit below which the object is out of sight
_FOUND = 0.62  # and above which it is back
_LEAST_SEEN = 0.2  # share of the object within the picture, below which it has left
_LOOKS = 32.0  # grey levels by which looks may differ
_CUT = 0.5  # share of colours in their places that changes at a cut
_SEARCH_SIDE = 192  # pixels at which the whole picture is searched
_SURE = 0.8  # fit from which on no other size is tried
_SIZES = (0.72, 0.85, 1.18, 1.38)  # by which an object that pulses may have changed
_BETTER = 0.1  # fit by which another size must be better


@dataclass
class _Seen:
    """The object as last seen, on the canvas."""

    time: float
    canvas: np.ndarray
    mask: np.ndarray


class Follower:
    """Follows one object from picture to picture, forwards or backwards.

    Args:
        time, picture, mask: where it begins; times in seconds may rise or fall from there.
    """

    def __init__(self, time: float, picture: np.ndarray, mask: np.ndarray) -> None:
        self.shape = picture.shape[:2]
        self.margin = max(16, max(self.shape) // 4)
        self.inside = self._pad(np.ones(self.shape, np.uint8), 0) > 0
        canvas = self._pad(picture)
        self.seen = _Seen(time, canvas, self._pad(mask.astype(np.uint8), 0) > 0)
        self.first = self.good = self.seen
        self.looks = colours.histogram(picture, mask)
        self.area = int(mask.sum())
        self.speed: np.ndarray | None = None  # pixels per second in x and y
        self.visible = True
        self.layout = _layout(picture)
        self.last = time, mask, 1.0
        self.twin = self._search(canvas, without=grown(self.seen.mask, 3))[0] > _FOUND - 0.04

    def step(self, time: float, picture: np.ndarray) -> tuple[np.ndarray, float]:
        """The mask in the picture at ``time``, and how well it fits, 0 to 1; empty and low when out of sight."""
        if abs(time - self.last[0]) < 1e-6:  # a slow film shows the same picture again
            return self.last[1], self.last[2]
        canvas = self._pad(picture)
        layout = _layout(picture)
        cut = 0.5 * float(np.abs(layout - self.layout).sum()) > _CUT
        self.layout = layout
        fit, mask = 0.0, None
        if self.visible and not cut:
            seen, shift, fit = self._locate(time, canvas)
            if fit >= _LOST:
                mask = self._outline(canvas, seen, shift)
        elif cut or not self.visible:
            fit, mask = self._again(time, canvas, cut)
        if mask is None or (mask & self.inside).sum() < max(4, _LEAST_SEEN * mask.sum()):
            self.visible = False
            self.last = time, np.zeros(self.shape, bool), min(fit, _LOST) if mask is None else 0.0
            return self.last[1], self.last[2]
        self._remember(time, canvas, mask, fit)
        self.last = time, self._crop(mask), float(np.clip(fit, 0, 1))
        return self.last[1], self.last[2]

    def correct(self, time: float, picture: np.ndarray, mask: np.ndarray) -> None:
        """Take ``mask`` for what is seen at ``time``, because the user said so."""
        self.seen = _Seen(time, self._pad(picture), self._pad(mask.astype(np.uint8), 0) > 0)
        self.last = time, mask, 1.0
        self.visible = bool(mask.any())
        if self.visible:
            self.first = self.good = self.seen
            self.area = int(mask.sum())
            self.looks = colours.histogram(picture, mask)

    def _locate(self, time: float, canvas: np.ndarray) -> tuple[_Seen, tuple[int, int], float]:
        """The object as last seen or in another size, how far it has moved in whole pixels, and how well it fits."""
        views: list[tuple[_Seen, float]] = []  # and by how much each must be better
        best = self._nearby(time, canvas, self.seen)
        # Of an object half behind the picture's border, or of a few pixels, a smaller one always fits as well.
        if not self._whole(self.seen.mask) or self.seen.mask.sum() < TINY**2:
            return best[:3]
        if best[2] < _SURE:
            views += [(_scaled(self.seen, scale), _BETTER) for scale in _SIZES]
        # What was half hidden has lost a part of its outline, which the first view still has.
        share = self.seen.mask.sum() / self.area
        if share < 0.85 and self.first is not self.seen:
            sizes = (1.0, *_SIZES) if share < 0.6 else (1.0,)
            views += [(view, -0.02) for scale in sizes if (view := self._first_here(scale)) is not None]
        lead = 0.0
        for seen, better in views:
            if 0.2 * self.area < seen.mask.sum() < 6 * self.area:
                other = self._nearby(time, canvas, seen)
                if other[3] - better > best[3] - lead:
                    best, lead = other, better
        return best[:3]

    def _first_here(self, scale: float) -> _Seen | None:
        """The first view moved to where the object was last; None if that is beyond the canvas."""
        gap = np.round(_centre(self.seen.mask) - _centre(self.first.mask)).astype(int)
        shape = self._shifted(self.first.mask, (int(gap[0]), int(gap[1])))
        if shape.sum() < 0.95 * self.first.mask.sum():
            return None
        seen = _Seen(self.seen.time, _moved(self.first.canvas, gap), shape)
        return seen if scale == 1 else _scaled(seen, scale)

    def _whole(self, mask: np.ndarray) -> bool:
        """Whether next to nothing of it is beyond the picture's border."""
        return int((mask & self.inside).sum()) > 0.95 * int(mask.sum())

    def _nearby(self, time: float, canvas: np.ndarray, seen: _Seen) -> tuple[_Seen, tuple[int, int], float, float]:
        """`seen`, its best shift, how well it fits there, and the same less for what is unlikely at its speed."""
        mask = seen.mask
        step = time - seen.time
        guess = np.zeros(2) if self.speed is None else np.clip(self.speed * step, -self.margin, self.margin)
        size = float(np.sqrt(mask.sum()))
        travelled = float(np.hypot(*guess))
        reach = round(min(max(12.0, 1.6 * size + 0.6 * travelled), 0.35 * max(self.shape)))
        slack = 0.35 * size + 0.4 * travelled + 2
        if self.speed is None:
            slack = 0.5 * size + 4 if self.twin else 1.2 * size + 8
        gx, gy = round(guess[0]), round(guess[1])
        ring = max(2, round(0.25 * size))
        score, origin = self._score(canvas, seen, ring, (gx - reach, gx + reach, gy - reach, gy + reach))
        xs = np.arange(score.shape[1]) + origin[0]
        ys = np.arange(score.shape[0]) + origin[1]
        unlikely = ((xs[None] - guess[0]) ** 2 + (ys[:, None] - guess[1]) ** 2) / slack**2
        net = score - 0.12 * np.minimum(unlikely, 6)
        y, x = np.unravel_index(int(np.argmax(net)), score.shape)
        return seen, (int(xs[x]), int(ys[y])), float(score[y, x]), float(net[y, x])

    def _score(self, canvas: np.ndarray, seen: _Seen, ring: int,
               window: tuple[int, int, int, int]) -> tuple[np.ndarray, tuple[int, int]]:
        """How well the object as `seen` fits at each shift of the window: least and most in x, least and most in y.

        Returns:
            Fit ``[rows, columns]``, and the shift in x and y of its first entry.
        """
        cv2 = opencv()
        H, W = canvas.shape[:2]
        box = bounds(seen.mask)
        top, bottom, left, right = (box[0] - ring, box[1] + ring, box[2] - ring, box[3] + ring)
        top, bottom, left, right = max(0, top), min(H, bottom), max(0, left), min(W, right)
        x0, x1 = max(window[0], -left), min(window[1], W - right)
        y0, y1 = max(window[2], -top), min(window[3], H - bottom)
        if x1 < x0 or y1 < y0:
            return np.zeros((1, 1), np.float32), (0, 0)
        field = slice(top + y0, bottom + y1), slice(left + x0, right + x1)
        own = seen.mask[top:bottom, left:right]
        patch = seen.canvas[top:bottom, left:right]
        there = canvas[field]
        known = self.inside[field].astype(np.float32)
        shape = own.astype(np.float32)
        error = cv2.matchTemplate(there, patch, cv2.TM_SQDIFF, mask=np.repeat(own[..., None], 3, 2).astype(np.uint8))
        looks = np.exp(-np.maximum(error, 0) / (3 * max(1, own.sum())) / (2 * _LOOKS**2))
        outside = colours.histogram(seen.canvas, self.inside & grown(seen.mask, 3 * ring) & ~seen.mask)
        likely = colours.likelihood(there, self.looks, outside) * known
        around = grown(own, ring) & ~own
        held = _mean_under(likely, known, shape)
        leaked = _mean_under(likely, known, around.astype(np.float32))
        part = cv2.matchTemplate(known, shape, cv2.TM_CCORR) / max(1, own.sum())
        tint = np.clip(held - 0.7 * leaked, 0, 1)
        return (0.5 * looks + 0.5 * tint) * np.minimum(1, part / 0.15), (x0, y0)

    def _outline(self, canvas: np.ndarray, seen: _Seen, shift: tuple[int, int]) -> np.ndarray:
        """The mask as `seen`, moved by `shift` pixels, turned and grown as the flow says, cut along the new outline."""
        cv2 = opencv()
        mask = seen.mask
        size = float(np.sqrt(mask.sum()))
        H, W = mask.shape
        dx, dy = shift
        margin = max(6, round(0.3 * size))
        top, bottom, left, right = bounds(mask)
        top, bottom = max(0, top - margin, -dy), min(H, bottom + margin, H - dy)
        left, right = max(0, left - margin, -dx), min(W, right + margin, W - dx)
        old = slice(top, bottom), slice(left, right)
        new = slice(top + dy, bottom + dy), slice(left + dx, right + dx)
        own, there, known = mask[old], canvas[new], self.inside[new]
        matrix = similarity(seen.canvas[old], there, own & known)
        if matrix is not None:
            grey = cv2.warpAffine(own.astype(np.float32), matrix, own.shape[::-1])
            own = grey > 0.5
        cut = self._recut(there, own, known, size)
        moved = np.zeros_like(mask)
        moved[new] = cut
        return moved if moved.any() else self._shifted(mask, shift)

    def _recut(self, there: np.ndarray, own: np.ndarray, known: np.ndarray, size: float) -> np.ndarray:
        cv2 = opencv()
        band = max(1, round(0.1 * size))
        near = grown(own, band)
        core = grown(own, -band)
        outside = (grown(own, 4 * band) & ~near) & known
        if not outside.any() or not own.any():
            return own
        likely = colours.likelihood(there, self.looks, colours.histogram(there, outside))
        trimap = np.full(own.shape, cv2.GC_BGD, np.uint8)
        trimap[near] = np.where(likely > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD)[near]
        trimap[core & (likely > 0.3)] = cv2.GC_FGD
        cut = cut_out(there, trimap, 1)
        cut = _largest(filled(np.where(known, cut, own)))
        both = (cut & own).sum() / max(1, (cut | own).sum())
        seen = max(1, int((own & known).sum()))
        whole = seen > 0.95 * own.sum()
        sane = not whole or 0.2 * self.area < cut.sum() < 6 * self.area
        return cut if both > 0.7 and sane else own

    def _again(self, time: float, canvas: np.ndarray, cut: bool) -> tuple[float, np.ndarray | None]:
        """The object somewhere in the picture after it was out of sight, or None.

        Where another object looked like it from the start, only near the place where it vanished.
        """
        fit, shift, seen = self._search(canvas)
        if fit < _FOUND:
            return fit, None
        mask = self._shifted(seen.mask, shift)
        if not mask.any():
            return fit, None
        if self.twin and (cut or self._far(mask)):
            return fit, None
        self.speed = None
        return fit, self._outline(canvas, seen, shift)

    def _far(self, mask: np.ndarray) -> bool:
        gap = _centre(mask) - _centre(self.seen.mask)
        return float(np.hypot(*gap)) > 1.5 * np.sqrt(self.area) + 4

    def _search(self, canvas: np.ndarray,
                without: np.ndarray | None = None) -> tuple[float, tuple[int, int], _Seen]:
        """Best fit in the whole picture, of the object as first and as last seen in whole.

        Coarsely in a small picture, then exactly around what was found.
        """
        best: tuple[float, tuple[int, int], _Seen] = (0.0, (0, 0), self.first)
        views = [self.first] if self.good is self.first else [self.first, self.good]
        target = canvas
        if without is not None:
            target = canvas.copy()
            blank = np.median(canvas[self.inside & ~without], axis=0) if (self.inside & ~without).any() else 0
            target[without] = blank
        cv2 = opencv()
        H, W = canvas.shape[:2]
        for seen in views:
            if not (seen.mask & self.inside).any():
                continue
            scale = min(1.0, _SEARCH_SIDE / max(self.shape), 1.0)
            scale = max(scale, min(1.0, 10 / np.sqrt(max(1, seen.mask.sum()))))
            size = max(8, round(W * scale)), max(8, round(H * scale))
            small = _Seen(seen.time, cv2.resize(seen.canvas, size, interpolation=cv2.INTER_AREA),
                          cv2.resize(seen.mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0)
            if not small.mask.any():
                continue
            full, self.inside = self.inside, cv2.resize(self.inside.astype(np.uint8), size) > 0
            ring = max(2, round(0.25 * np.sqrt(small.mask.sum())))
            everywhere = -size[0], size[0], -size[1], size[1]
            score, origin = self._score(cv2.resize(target, size, interpolation=cv2.INTER_AREA), small, ring, everywhere)
            self.inside = full
            y, x = np.unravel_index(int(np.argmax(score)), score.shape)
            gx, gy = round((x + origin[0]) * W / size[0]), round((y + origin[1]) * H / size[1])
            r = max(2, round(2 / scale))
            ring = max(2, round(0.25 * np.sqrt(seen.mask.sum())))
            score, origin = self._score(target, seen, ring, (gx - r, gx + r, gy - r, gy + r))
            y, x = np.unravel_index(int(np.argmax(score)), score.shape)
            if score[y, x] > best[0]:
                best = float(score[y, x]), (int(x + origin[0]), int(y + origin[1])), seen
        return best

    def _remember(self, time: float, canvas: np.ndarray, mask: np.ndarray, fit: float) -> None:
        step = time - self.seen.time
        if self.visible:
            now = (_centre(mask) - _centre(self.seen.mask)) / step
            self.speed = now if self.speed is None else 0.6 * now + 0.4 * self.speed
        else:
            self.speed = None
        self.visible = True
        # Half of what is known of the colours stays from where the user clicked, so that errors do not add up.
        current = mask & self.inside
        if current.sum() >= 16 and fit > _FOUND:
            fresh = colours.histogram(canvas, current)
            first = colours.histogram(self.first.canvas, self.first.mask & self.inside)
            self.looks = 0.5 * first + 0.3 * self.looks + 0.2 * fresh
        self.seen = _Seen(time, canvas, mask)
        if fit > _FOUND and self._whole(mask):
            self.good = self.seen

    def _shifted(self, mask: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
        cv2 = opencv()
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        return cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0

    def _pad(self, picture: np.ndarray, value: int | None = None) -> np.ndarray:
        cv2 = opencv()
        m = self.margin
        if value is None:
            return cv2.copyMakeBorder(picture, m, m, m, m, cv2.BORDER_REPLICATE)
        return cv2.copyMakeBorder(picture, m, m, m, m, cv2.BORDER_CONSTANT, value=value)

    def _crop(self, canvas: np.ndarray) -> np.ndarray:
        m = self.margin
        return canvas[m : m + self.shape[0], m : m + self.shape[1]].copy()


def _moved(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    size = picture.shape[1::-1]
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def _scaled(seen: _Seen, scale: float) -> _Seen:
    """As if it had grown by `scale` about its middle."""
    cv2 = opencv()
    x, y = _centre(seen.mask) * (1 - scale)
    matrix = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    size = seen.mask.shape[::-1]
    canvas = cv2.warpAffine(seen.canvas, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return _Seen(seen.time, canvas, cv2.warpAffine(seen.mask.astype(np.float32), matrix, size) > 0.5)


def _mean_under(values: np.ndarray, known: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Mean of `values` under the kernel at each shift, of the `known` pixels alone."""
    cv2 = opencv()
    return cv2.matchTemplate(values, kernel, cv2.TM_CCORR) / (cv2.matchTemplate(known, kernel, cv2.TM_CCORR) + 1e-3)


def _layout(picture: np.ndarray) -> np.ndarray:
    """Shares of coarse colours in each of 4 x 4 fields, all adding up to one."""
    H, W = picture.shape[:2]
    q = (picture >> 6).astype(np.int64)
    rows = (np.arange(H) * 4 // H)[:, None]
    columns = (np.arange(W) * 4 // W)[None]
    index = (rows * 4 + columns) * 64 + (q[..., 0] * 4 + q[..., 1]) * 4 + q[..., 2]
    return np.bincount(index.ravel(), minlength=1024) / (H * W)


def _largest(mask: np.ndarray) -> np.ndarray:
    """Without crumbs: parts under a tenth of the largest."""
    cv2 = opencv()
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0
    return (areas > 0.1 * max(1.0, areas.max()))[labels] if len(areas) > 1 else mask


def _centre(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])
