"""A recording going by once: chunk by chunk, every question gets its answer.

Axes: ``C`` channels, ``T`` samples at the recording's rate, ``N`` candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from judge.model import JudgeModel
from judge.verdict import Listener

from .chunks import Chunk, Cutting, OverlapAdd, chunks
from .cut import Cutter, Model, Piece
from .prompts import Prompt, Span, Text, describe
from .rank import Tally, best
from .result import UNJUDGED, Candidate, Result, Scores
from .spans import Activity, Times, find_spans

Progress = Callable[[float, float | None], None]


class Clock:
    """Tells the caller how far the work is. What is done beforehand counts as seconds too, ``before`` of them."""

    def __init__(self, progress: Progress | None, sample_rate: int, frames: int | None, before: float = 0.0):
        self._progress, self._rate, self._before = progress, sample_rate, before
        self._total = None if frames is None else frames / sample_rate

    def __call__(self, frames: int) -> None:
        if self._progress is not None:
            done = frames / self._rate
            if self._total is None:
                self._progress(done, None)
            else:
                self._progress(self._before + min(done, self._total), self._before + self._total)

    def preparing(self, tasks: int) -> Callable[[float], None]:
        """For ``tasks`` that come first, each as long as the recording: told the share of one that is done, 0 to 1,
        it moves on when that falls back."""
        finished, last = 0, 0.0

        def tell(share: float) -> None:
            nonlocal finished, last
            finished += share < last
            last = share
            if self._progress is not None and self._total is not None:
                self._progress(min(finished + share, tasks) * self._total, (tasks + 1) * self._total)

        return tell

    def after(self, tasks: int) -> Clock:
        """The clock for what comes after so many tasks."""
        if self._total is None or not tasks:
            return self
        return Clock(self._progress, self._rate, round(self._total * self._rate), tasks * self._total)


class Answer:
    """What is known of one sound while the recording goes by."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        candidates: int,
        sample_rate: int,
        cutting: Cutting,
        network: JudgeModel | None = None,
        followed_by: str | None = None,
    ):
        self.followed_by = followed_by
        self.prompts, self.sample_rate, self.overlap = prompts, sample_rate, cutting.overlap
        self.judged = None
        words = [prompt.text for prompt in prompts if isinstance(prompt, Text)]
        if network is not None and words:
            self.judged = Listener(network, network.text_vectors([", ".join(words)])[0], candidates)
        self.join = OverlapAdd(cutting.overlap)
        self.activity = Activity()
        self.tally = Tally(candidates)
        self.frames = 0  # samples that are final

    def add(self, chunk: Chunk, piece: Piece, frame_rate: float) -> Tensor:
        """Take the piece of one chunk and return the samples ``[N, C, n]`` that it makes final."""
        self.activity.add(chunk, piece.activity, frame_rate, self.sample_rate, self.overlap, piece.gate)
        self.tally.add(piece.presence, piece.similarity, piece.confidence, piece.energy)
        if self.judged is not None and piece.energy > 0:  # of silence there is nothing to say
            self.judged.add(chunk.samples, piece.targets, self.sample_rate)
        final = self.join.push(piece.targets, chunk.last)
        self.frames += final.shape[-1]
        return final

    def finish(self, threshold: float) -> tuple[bool, Scores, list[Times], list[Candidate], int]:
        # A span alone says itself that something is there; presence was calibrated on named sounds.
        named = any(not isinstance(prompt, Span) for prompt in self.prompts)
        present = self.tally.presence >= threshold if named else self.tally.presence > 0
        candidates = self.tally.candidates(self.judged.finish() if self.judged is not None else None)
        chosen = best(candidates)
        one = candidates[chosen]
        # The target of a sound that is not there is silent, whatever was said of the candidates.
        scores = Scores(one.similarity, self.tally.presence, one.confidence, one.quality if present else UNJUDGED)
        spans = find_spans(self.activity.values, seconds=self.frames / self.sample_rate) if present else []
        return present, scores, spans, candidates, chosen

    def result(self, model: Model, mixture: Tensor, targets: Tensor) -> Result:
        present, scores, spans, candidates, chosen = self.finish(model.presence_threshold)
        for candidate, target in zip(candidates, targets, strict=True):
            candidate.target = target
        target = targets[chosen] if present else torch.zeros_like(mixture)
        return Result(
            target,
            mixture - target,
            self.sample_rate,
            scores,
            spans,
            present,
            describe(self.prompts),
            candidates,
            chosen,
            self.followed_by,
        )


@torch.inference_mode()
def listen(
    cutter: Cutter,
    cutting: Cutting,
    blocks: Iterable[Tensor],
    answers: Sequence[Answer],
    take: Callable[[int, Tensor], None],
    clock: Clock,
) -> None:
    """Answer the questions of ``cutter``; ``take(i, samples)`` gets ``[N, C, n]`` of answer ``i``, in order.

    Holds one chunk and a half of ``blocks [C, n]``.
    """
    for chunk in chunks(blocks, cutting):
        for i, (answer, piece) in enumerate(zip(answers, cutter(chunk), strict=True)):
            take(i, answer.add(chunk, piece, cutter.model.frame_rate))
        clock(chunk.stop)
