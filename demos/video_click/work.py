"""Long work in the background: how far it is, and how much time is left."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from .session import Stopped

T = TypeVar("T")
Tell = Callable[[float], None]  # is told the share that is done, 0 to 1
_EVERY = 0.4  # seconds between signs of life
_FIRST = 1.0  # seconds before there is anything to estimate from


@dataclass(frozen=True)
class Moment:
    """How far the work is: ``share`` 0 to 1, and the seconds that are ``left``, if that can be said."""

    share: float
    left: float | None


def watched(work: Callable[[Tell], T], stop: threading.Event, every: float = _EVERY) -> Generator[Moment, None, T]:
    """Run ``work(tell)`` in a thread; yields how far it is, returns what it returns.

    Setting ``stop``, or closing the generator, ends the work where it next tells how far it is.

    Raises:
        Stopped: it was stopped.
        Exception: whatever the work raises.
    """
    done: queue.Queue[tuple[bool, object]] = queue.Queue()
    share, began = 0.0, time.monotonic()

    def tell(value: float) -> None:
        nonlocal share
        if stop.is_set():
            raise Stopped()
        share = min(1.0, max(share, value))

    def run() -> None:
        try:
            done.put((True, work(tell)))
        except BaseException as error:  # raised again where it can be shown
            done.put((False, error))

    threading.Thread(target=run, daemon=True, name="work").start()
    ended = False
    try:
        while True:
            try:
                good, found = done.get(timeout=every)
            except queue.Empty:
                yield Moment(share, left(share, time.monotonic() - began))
                continue
            ended = True
            if good:
                return found  # type: ignore[return-value]
            raise found  # type: ignore[misc]
    finally:
        if not ended:
            stop.set()


def left(share: float, elapsed: float) -> float | None:
    """Seconds until the end, if the rest goes as fast as what is done."""
    if share < 0.02 or elapsed < _FIRST:
        return None
    return elapsed * (1.0 - share) / share
