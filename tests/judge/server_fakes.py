"""A judge whose answers are known, and sounds to send to it."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace

import numpy as np
import soundfile
import torch

from judge.score import Curve, Score
from peav import media
from peav.errors import UserError

RATE = 8_000


class FakeJudge:
    """Overall is the target's peak, similarity the length of the prompt; silence has no similarity."""

    def __init__(self, delay: float = 0.0):
        self.delay = delay
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.hold = threading.Event()
        self.hold.set()

    def score(self, mixture, target, prompt, *, sample_rate=None):
        self.batches.append(1)
        return self._score(mixture, target, prompt)

    def _score(self, mixture, target, prompt):
        self.threads.add(threading.get_ident())
        self.hold.wait(10)
        time.sleep(self.delay)
        long, short = media.read(mixture)[0], media.read(target)[0]
        if long.shape[-1] != short.shape[-1]:
            raise UserError(f"{mixture} lasts longer than {target}; give a target that was cut from this mixture")
        if prompt == "bug":
            raise RuntimeError(f"a secret about {mixture}")
        peak = float(short.abs().max())
        similarity = len(prompt) / 100 if peak else float("nan")
        values = torch.tensor([[peak, 2.0, 3.0, 4.0], [float("nan")] * 4])
        notes = (f"resampled {target}",)
        return Score(overall=peak, similarity=similarity, notes=notes, curve=Curve(values, 1.0))

    def rank(self, mixture, targets, prompt, *, sample_rate=None):
        scores = [self._score(mixture, target, prompt) for target in targets]
        ranked = [(i, replace(score, ranking=2 * score.overall)) for i, score in enumerate(scores)]
        return sorted(ranked, key=lambda item: -item[1].overall)


class BatchJudge(FakeJudge):
    """Also takes several at once."""

    def score_batch(self, items):
        self.batches.append(len(items))
        return [self._score(*item) for item in items]


def sound(level: float = 0.5, seconds: float = 0.2, rate: int = RATE, format: str = "WAV", subtype: str | None = None):
    """A constant as the bytes of a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(round(seconds * rate), level), rate, format=format, subtype=subtype)
    return buffer.getvalue()


def parts(target: bytes | None = None, prompt: str = "guitar", mixture: bytes | None = None) -> dict:
    """Keyword arguments of an httpx request to /v1/score."""
    files = {"mixture": ("mix.wav", mixture or sound()), "target": ("a.wav", target or sound(0.25))}
    return {"files": files, "data": {"prompt": prompt}}
