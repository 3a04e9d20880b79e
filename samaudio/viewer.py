"""What was pointed at in films, followed once for as many questions as there are about it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .prompts import Mask, Prompt, VisualPrompt
from .sight import Sight, film_of, pointed
from .visual.track import ObjectTrack, Segmenter, loaded

_KEPT = 4  # sights in memory; following takes longer than separating


class Viewer:
    """Looks at films for a model.

    Args:
        model: a `samaudio.model.MaskModel`.
        segmenter: folder or hub id of a SAM 2 or SAM 3 model; None for GrabCut with optical flow. Loaded at first use,
            to the model's device.
    """

    def __init__(self, model: Any, segmenter: str | os.PathLike | None = None) -> None:
        self.model = model
        self._segmenter: str | os.PathLike | Segmenter | None = segmenter
        self._known: OrderedDict[tuple, Sight] = OrderedDict()

    @property
    def sees(self) -> bool:
        """Whether the model can do anything with what is pointed at."""
        return bool(getattr(self.model, "sees", False))

    @property
    def segmenter(self) -> Segmenter:
        """What follows clicks and boxes."""
        if self._segmenter is None or isinstance(self._segmenter, str | os.PathLike):
            named = None if self._segmenter is None else Path(self._segmenter)
            device, outline = getattr(self.model, "device", None), getattr(self.model, "outline", None)
            self._segmenter = loaded(named, device, outline)
        return self._segmenter

    def __call__(
        self,
        recording: Path | None,
        prompts: Sequence[Prompt],
        start: float,
        progress: Callable[[float], None] | None = None,
        found: ObjectTrack | None = None,
    ) -> tuple[Sight, float]:
        """What the prompts point at, and the seconds from the start of its film to that of the recording.

        Args:
            recording: the file to separate; the film, unless a `samaudio.prompts.Video` names another one. The two
                then begin together.
            start: seconds at which the recording's sound begins in its own file.
            found: the object's track, if it is known already.

        Raises:
            UserError: see `samaudio.sight.watch`.
        """
        film = film_of(prompts, recording)
        points = pointed(prompts)
        key = _key(film, points)
        sight = self._known.get(key) if key else None
        if sight is None or (found is not None and sight.track is not found):
            sight = self.model.watch(film, points, segmenter=self.segmenter, found=found, progress=progress)
            if key:
                self._known[key] = sight
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        elif progress is not None:
            progress(1.0)
        return sight, start if recording is not None and _same(film, recording) else 0.0


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)


def _key(film: Path, points: Sequence[VisualPrompt]) -> tuple | None:
    """Equal for the same points in the same film; None when something may change unseen."""
    try:
        stat = film.stat()
    except OSError:
        return None
    if any(isinstance(point, Mask) for point in points):  # a file or a tensor that others may write to
        return None
    return os.path.realpath(film), stat.st_mtime_ns, stat.st_size, tuple(points)


