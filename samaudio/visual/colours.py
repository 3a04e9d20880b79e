"""How likely a pixel's colour is the object's: histograms of object and surroundings, by Bayes' rule.

Pictures are uint8 ``[H, W, 3]``, RGB; masks bool ``[H, W]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 16  # per channel


def opencv() -> Any:
    """The module `cv2`, imported only when a picture is looked at.

    Raises:
        UserError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        from peav.errors import UserError

        raise UserError('following an object needs OpenCV: pip install "samaudio[video]"') from error
    return cv2


def histogram(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of each colour within the mask ``[BINS, BINS, BINS]``, blurred by one bin as shading does."""
    counts = np.bincount(_bins(picture[mask]), minlength=BINS**3).reshape(BINS, BINS, BINS).astype(np.float32)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, high = (np.take(padded, range(s, s + BINS), axis=axis) for s in (0, 2))
        counts = 0.5 * counts + 0.25 * (low + high)
    return counts / max(1e-6, counts.sum())


def likelihood(picture: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Probability float32 ``[H, W]`` that each pixel is of the object, both histograms being as likely beforehand."""
    floor = 0.02 / BINS**3  # a colour that neither had says nothing
    a, b = inside.ravel() + floor, outside.ravel() + floor
    return (a / (a + b)).astype(np.float32)[_bins(picture)]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """What two histograms share, 0 to 1."""
    return float(np.minimum(a, b).sum())


def _bins(pixels: np.ndarray) -> np.ndarray:
    q = (pixels >> 4).astype(np.int32)
    return (q[..., 0] * BINS + q[..., 1]) * BINS + q[..., 2]
