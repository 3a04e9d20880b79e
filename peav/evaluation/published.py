"""Published figures of PE-AV and PE-A-Frame, to stand beside our own.

Only what was read at its source is here. What the sources leave open (which clips were still to be had, which
wording classes had, whether a dual softmax was used) is open here too, so small differences mean nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

README = "github.com/facebookresearch/perception_models, README.md at 039eb01"
_CLIPS = f"{README}, table Audio-Visual Benchmarks"
_FRAMES = f"{README}, table Audio Event Localization Benchmarks"
# The paper's tables could not be read; this article quotes figures of its large model.
_QUOTED = "arXiv 2512.19687, as quoted by marktechpost.com on 22 December 2025"

_MODEL = re.compile(r"pe-(?:av-(?:small|base|large)(?:-16-frame)?|a-frame-(?:small|base|large))(?![\w-])")


class Measured(NamedTuple):
    """What was measured: the set, the task, the direction or input, and the metric."""

    set: str
    task: str
    name: str
    metric: str


@dataclass(frozen=True)
class Published:
    """One published figure; ``value`` is a share from 0 to 1."""

    model: str
    value: float
    source: str


_COLUMNS = (
    Measured("audiocaps", "retrieval", "text->audio", "R@1"),
    Measured("audiocaps", "retrieval", "text->video", "R@1"),
    Measured("audiocaps", "retrieval", "video->audio", "R@1"),
    Measured("clotho", "retrieval", "text->audio", "R@1"),
    Measured("valor", "retrieval", "text->audio", "R@1"),
    Measured("valor", "retrieval", "text->video", "R@1"),
    Measured("vctk", "retrieval", "audio->text", "R@1"),
    Measured("vggsound", "retrieval", "video->audio", "R@1"),
)
_ROWS = {
    "pe-av-small-16-frame": (41.2, 18.6, 75.4, 24.0, 29.8, 70.1, 96.1, 34.1),
    "pe-av-base-16-frame": (43.1, 19.8, 80.6, 23.4, 31.9, 70.0, 94.8, 39.0),
    "pe-av-large-16-frame": (44.7, 19.5, 86.1, 22.8, 35.0, 70.9, 85.6, 45.2),
    "pe-av-small": (41.8, 18.8, 77.4, 23.9, 29.3, 70.9, 94.9, 35.4),
    "pe-av-base": (42.7, 19.6, 83.7, 23.8, 30.8, 71.2, 94.9, 40.7),
    "pe-av-large": (45.8, 20.8, 88.3, 23.0, 35.1, 70.9, 85.6, 48.3),
}
_AUROC = {
    "pe-a-frame-small": {"desed": 0.96, "urbansed": 0.88},
    "pe-a-frame-base": {"desed": 0.98, "urbansed": 0.89},
    "pe-a-frame-large": {"desed": 0.97, "urbansed": 0.89},
}
_OTHERS = {
    Measured("vggsound", "classification", "audio", "top-1"): 47.1,
    Measured("kinetics400", "classification", "video", "top-1"): 78.9,
    Measured("activitynet", "retrieval", "text->video", "R@1"): 66.5,
}


def _all() -> dict[Measured, list[Published]]:
    found: dict[Measured, list[Published]] = {}
    for model, values in _ROWS.items():
        for measured, value in zip(_COLUMNS, values, strict=True):
            found.setdefault(measured, []).append(Published(model, round(value / 100, 4), _CLIPS))
    for model, areas in _AUROC.items():
        for name, area in areas.items():
            measured = Measured(name, "frames", "all classes", "AUROC")
            found.setdefault(measured, []).append(Published(model, area, _FRAMES))
    for measured, value in _OTHERS.items():
        found.setdefault(measured, []).append(Published("pe-av-large", round(value / 100, 4), _QUOTED))
    return found


FIGURES = _all()


def published(set_name: str, task: str, name: str, metric: str, model: str | None = None) -> list[Published]:
    """What was published of this: of ``model`` alone if it is a published one, else of all, empty if nothing was."""
    found = FIGURES.get(Measured(set_name, task, name, metric), [])
    if model is None:
        return list(found)
    return [one for one in found if one.model == model]


def variant_of(model: str | os.PathLike | None) -> str | None:
    """The published model that a hub id or a folder is called after, or None.

    >>> variant_of("facebook/pe-av-small")
    'pe-av-small'
    """
    if model is None:
        return None
    name = os.fspath(model).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return name if _MODEL.fullmatch(name) else None
