"""Counters in Prometheus' text format (version 0.0.4), which is simple enough to write by hand."""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # seconds
_LAST = 20  # answers from which the next one's time is guessed


class Metrics:
    """What happened since the start. One instance per application, used from its event loop alone."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()  # path, method, status
        self.seconds: Counter[tuple[str, float]] = Counter()  # path, bound: not cumulative here
        self.total_seconds: defaultdict[str, float] = defaultdict(float)  # path
        self.upload_bytes = 0
        self.batches = 0
        self.batched = 0  # questions in all batches
        self.model_seconds = 0.0
        self._recent: deque[float] = deque(maxlen=_LAST)  # seconds of model time per question

    def answered(self, path: str, method: str, status: int, seconds: float, received: int) -> None:
        """Count one request."""
        self.requests[path, method, status] += 1
        self.seconds[path, next((bound for bound in _BOUNDS if seconds <= bound), float("inf"))] += 1
        self.total_seconds[path] += seconds
        self.upload_bytes += received

    def scored(self, questions: int, seconds: float) -> None:
        """Count one batch."""
        self.batches += 1
        self.batched += questions
        self.model_seconds += seconds
        self._recent.append(seconds / questions)

    def seconds_for(self, questions: int) -> int:
        """A guess at how long so many will take, in whole seconds from 1 to 60."""
        each = sum(self._recent) / len(self._recent) if self._recent else 1.0
        return max(1, min(60, round(each * questions)))

    def text(self, ready: bool, pending: int, waiting: int) -> str:
        """The exposition.

        Args:
            pending: requests between their first byte and their answer.
            waiting: questions in front of the model.
        """
        lines: list[str] = []

        def family(name: str, kind: str, help: str, samples: Iterator[str]) -> None:
            lines.extend((f"# HELP {name} {help}", f"# TYPE {name} {kind}", *samples))

        def one(name: str, kind: str, help: str, value: float) -> None:
            family(name, kind, help, iter([f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"]))

        one("judge_ready", "gauge", "1 when the model is loaded and requests are taken.", int(ready))
        one("judge_pending_requests", "gauge", "Requests between their first byte and their answer.", pending)
        one("judge_waiting_questions", "gauge", "Questions in front of the model.", waiting)
        name = "judge_requests_total"
        samples = (
            f'{name}{{path="{path}",method="{method}",status="{status}"}} {count}'
            for (path, method, status), count in sorted(self.requests.items())
        )
        family(name, "counter", "Answered requests.", samples)
        name = "judge_request_seconds"
        family(name, "histogram", "Time from a request's first byte to its answer.", self._histogram(name))
        one("judge_upload_bytes_total", "counter", "Bytes of request bodies.", self.upload_bytes)
        one("judge_batches_total", "counter", "Batches given to the model.", self.batches)
        one("judge_questions_total", "counter", "Questions in these batches.", self.batched)
        one("judge_model_seconds_total", "counter", "Time the model worked.", self.model_seconds)
        memory = _resident_bytes()
        if memory is not None:
            one("process_resident_memory_bytes", "gauge", "Memory of this process.", memory)
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> Iterator[str]:
        for path in sorted(self.total_seconds):
            below = 0
            for bound in (*_BOUNDS, float("inf")):
                below += self.seconds[path, bound]
                label = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f'{name}_bucket{{path="{path}",le="{label}"}} {below}'
            yield f'{name}_sum{{path="{path}"}} {self.total_seconds[path]:.6f}'
            yield f'{name}_count{{path="{path}"}} {below}'


def _resident_bytes() -> int | None:
    """None where the system keeps it elsewhere."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError, IndexError):
        return None
