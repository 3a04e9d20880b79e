"""Dense optical flow between two pictures, and whether an area moves with its surroundings.

Flow by dense inverse search (Kroeger, Timofte, Dai and Van Gool, 2016). Pictures are uint8 ``[H, W, 3]``, RGB.
"""

from __future__ import annotations

import numpy as np

from .colours import opencv

_MOVES = 1.5  # pixels; less is no movement
_SMALLEST = 40  # pixels a side; the coarsest level needs some


def flow_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far each pixel of ``before`` has moved in ``after``: float32 ``[H, W, 2]``, pixels in x and y."""
    cv2 = opencv()
    H, W = before.shape[:2]
    down, right = max(0, _SMALLEST - H), max(0, _SMALLEST - W)
    grey = [
        cv2.copyMakeBorder(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), 0, down, 0, right, cv2.BORDER_REPLICATE)
        for p in (before, after)
    ]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return search.calc(grey[0], grey[1], None)[:H, :W]


def similarity(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """How the masked area has moved, turned and grown: a matrix ``[2, 3]`` fitted to the flow, or None.

    None when under half of the flow agrees on one, or when it is a larger change than one step brings.
    """
    cv2 = opencv()
    flow = flow_between(before, after)
    rows, columns = np.nonzero(mask)
    if len(rows) < 12:
        return None
    picked = np.linspace(0, len(rows) - 1, min(400, len(rows))).astype(int)
    start = np.stack((columns[picked], rows[picked]), 1).astype(np.float32)
    moved = start + flow[rows[picked], columns[picked]]
    cv2.setRNGSeed(0)
    matrix, agreed = cv2.estimateAffinePartial2D(start, moved, method=cv2.RANSAC, ransacReprojThreshold=1.0)
    if matrix is None or agreed.mean() < 0.5:
        return None
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    centre = start.mean(0)
    shift = np.abs(matrix @ np.append(centre, 1) - centre).max()
    turn = abs(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    if not 0.85 < scale < 1.18 or turn > 20 or shift > 0.3 * np.sqrt(mask.sum()) + 2:
        return None
    return matrix


def disunity(flow: np.ndarray, mask: np.ndarray, around: np.ndarray) -> float | None:
    """How little the mask is one moving thing, 0 to 2: the share of ``around`` that moves as it does, and the share of
    itself that moves a third way. None when it moves as the rest of the picture does.

    What within the mask seems to stand still does not count, for flow does not see a flat area move.
    """
    elsewhere = ~(mask | around)
    own = np.median(flow[mask], axis=0)
    rest = np.median(flow[elsewhere], axis=0) if elsewhere.any() else own
    moved = flow[mask] - rest
    along = moved @ np.linalg.eigh(moved.T @ moved)[1][:, -1]  # the direction in which it moves most
    if np.quantile(along, 0.2) < -_MOVES and np.quantile(along, 0.8) > _MOVES:
        return 1.0  # two that part or meet
    apart = float(np.hypot(*(own - rest)))
    if apart < _MOVES or not around.any():
        return None
    same = np.hypot(*(flow[around] - own).T) < 0.4 * apart
    third = (np.hypot(*(flow[mask] - own).T) > 0.8 * apart) & (np.hypot(*(flow[mask] - rest).T) > 0.5 * apart)
    return float(same.mean() + third.mean())
