"""A file of any length into stems on disk, in bounded memory and two passes.

Whether a sound is there at all, and which candidate is best, is only known at the end of the file. So the
first pass keeps every candidate's target on disk; the second reads the file again and writes the chosen one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from judge.model import JudgeModel
from peav import media
from peav.errors import UserError, shown

from .chunks import Cutting
from .cut import Cutter
from .files import Scratch, StemPaths, clean_termination, folder_for, stem_files
from .listen import Answer, Clock, listen
from .prompts import describe
from .result import FileResult, Scores
from .spans import check_spans

_UNKNOWN = Scores(float("nan"), float("nan"), float("nan"))


class FileJob:
    """One file and the questions of one ``cutter`` about it."""

    def __init__(
        self,
        info: media.AudioInfo,
        cutter: Cutter,
        cutting: Cutting,
        format: str,
        force: bool,
        network: JudgeModel | None = None,
    ):
        self.info, self.cutter, self.cutting, self.network = info, cutter, cutting, network
        self.format, self.force = format, force

    def run(self, places: Sequence[StemPaths], clock: Clock) -> list[FileResult]:
        """Write the two files of every question; ``places`` are in one folder."""
        info, N = self.info, self.cutter.candidates
        answers = [Answer(q.prompts, N, info.sample_rate, self.cutting, self.network, q.followed_by)
                   for q in self.cutter.questions]  # fmt: skip
        with clean_termination(), folder_for(places[0]), ExitStack() as stack:
            media.cleanup_stale(places[0].target.parent)
            scratches = [stack.enter_context(Scratch(paths.target, N, info.channels)) for paths in places]

            def take(i: int, samples: Tensor) -> None:
                scratches[i].write(samples)

            with media.stream(info.path, info.sample_rate) as blocks:
                listen(self.cutter, self.cutting, blocks, answers, take, clock)
            for question in (*self.cutter.questions, *self.cutter.exclude):
                check_spans(question.prompts, answers[0].frames / info.sample_rate)
            return [self._write(*each) for each in zip(answers, scratches, places, strict=True)]

    def _write(self, answer: Answer, scratch: Scratch, paths: StemPaths) -> FileResult:
        info = self.info
        present, scores, spans, candidates, chosen = answer.finish(self.cutter.model.presence_threshold)
        scratch.rewind()
        with stem_files(paths, info.sample_rate, info.channels, self.format, self.force) as out:
            for block in self._again(answer.frames):
                target = scratch.read(block.shape[-1], chosen)
                out.write(block, target if present else torch.zeros_like(block))
            warnings = out.warnings(paths)
        return FileResult(
            paths.target,
            paths.residual,
            describe(answer.prompts),
            present,
            scores,
            spans,
            answer.frames / info.sample_rate,
            info.sample_rate,
            info.channels,
            warnings,
            candidates,
            chosen,
            followed_by=answer.followed_by,
        )

    def _again(self, frames: int) -> Iterator[Tensor]:
        """The blocks of the file once more; it must not have changed in length."""
        read = 0
        with media.stream(self.info.path, self.info.sample_rate) as blocks:
            for block in blocks:
                read += block.shape[-1]
                if read > frames:
                    break
                yield block
        if read != frames:
            raise UserError(f"{shown(self.info.path)}: changed while it was being read; wait until it is complete")


def skipped(paths: StemPaths, prompt: str) -> FileResult:
    """What is known of a sound whose files were there already."""
    info = media.probe(paths.target)
    return FileResult(
        paths.target,
        paths.residual,
        prompt,
        not _silent(paths.target),
        _UNKNOWN,
        [],
        info.seconds or 0.0,
        info.sample_rate,
        info.channels,
        skipped=True,
    )


def _silent(path: Path) -> bool:
    with media.stream(path, 65_536) as blocks:
        return all(float(block.abs().max()) < 1e-6 for block in blocks)
