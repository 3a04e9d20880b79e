"""A film's pictures by number, decoded by need: blocks of them in either direction, a few blocks in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from peav.media.video import VideoFile

_BLOCK = 24  # pictures; walking backwards decodes a block from the key frame before it
_BESIDE = (0.1, 0.2, -0.07, -0.2)  # seconds
_BLOCKS = 3  # in memory: two neighbours, and the one that clicks were on


class Pictures:
    """What is shown at each of ``times``, seconds, ascending; scaled down to ``max_side`` pixels.

    ``pictures[i]`` is the time stamp of frame ``i`` in seconds and uint8 ``[H, W, 3]``, RGB.
    """

    def __init__(self, film: VideoFile, times: Sequence[float], max_side: int) -> None:
        self.times = list(times)
        self.max_side = max_side
        self._film = film
        self._blocks: OrderedDict[int, list[tuple[float, np.ndarray]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, i: int) -> tuple[float, np.ndarray]:
        if not 0 <= i < len(self.times):
            raise IndexError(i)
        block = i // _BLOCK
        if block not in self._blocks:
            wanted = self.times[block * _BLOCK : (block + 1) * _BLOCK]
            while len(self._blocks) >= _BLOCKS:
                self._blocks.popitem(last=False)
            self._blocks[block] = [
                (stamp, np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
                for stamp, picture in self._film.frames(wanted, max_side=self.max_side)
            ]
        self._blocks.move_to_end(block)
        return self._blocks[block][i % _BLOCK]

    def beside(self, i: int) -> np.ndarray | None:
        """Another picture from shortly after the one at time ``i``, or before; None where nothing changes.

        The same whatever the other times are, so that a preview of one picture finds what will be followed.
        """
        time, (stamp, _) = self.times[i], self[i]
        around = [time + after for after in _BESIDE if time + after >= 0]
        for at in around:
            ((found, picture),) = self._film.frames([at], max_side=self.max_side)
            if abs(found - stamp) > 1e-6:
                return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        return None


def grid(wanted: Sequence[float], pointed: Sequence[float], rate: float, end: float) -> list[float]:
    """Times at which to look: those wanted, those pointed at, and between them at least ``rate`` a second.

    An object that moves can be followed only if it is looked at often. What lies beyond the outermost is left out.

    >>> grid([0.0, 1.0], [0.5], rate=4.0, end=2.0)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    fixed = sorted({min(max(0.0, t), end) for t in (*wanted, *pointed)})
    times = fixed[:1]
    for time in fixed[1:]:
        start = times[-1]
        steps = max(1, round((time - start) * rate))
        times += [start + (time - start) * i / steps for i in range(1, steps)] + [time]
    return times
