"""Separation from end to end: a recording and prompts in; targets, residuals and scores out.

Axes: ``C`` channels, ``T`` samples at the recording's rate, ``N`` candidates.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from judge import checkpoints as judge_files
from judge.model import JudgeModel
from peav import media
from peav.errors import UserError, shown
from peav.training import pick_device

from . import files
from .chunks import CHUNK_SECONDS, Cutting
from .cut import Cutter, Model, Question
from .filejob import FileJob, skipped
from .listen import Answer, Clock, Progress, listen
from .prompts import Prompt, as_prompts, describe
from .result import FileResult, Result
from .sight import pointed
from .spans import check_spans
from .viewer import Viewer

AnyPrompt = str | Prompt | Sequence[str | Prompt]
_Prompts = tuple[Prompt, ...]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PACKAGED = Path(__file__).parent / "weights" / "mini"


def load(
    model: str | os.PathLike | None = None,
    device: str = "auto",
    *,
    judge: bool = True,
    segmenter: str | os.PathLike | None = None,
) -> Separator:
    """A separator, ready to use.

    Args:
        model: None for the model inside the package, a model folder, or a hub id such as ``org/name``, which
            is downloaded on first use.
        device: ``auto`` takes CUDA, then MPS, then the CPU; or the name of one.
        judge: let the model's Judge, where it has one, score what comes out and choose among candidates.
        segmenter: folder or hub id of a SAM 2 or SAM 3 model that follows what is clicked on in a film; GrabCut with
            optical flow by default.

    Raises:
        UserError: there is no such model or device, or the model is damaged.
    """
    from .checkpoints import load_model

    chosen = pick_device(device)
    if model is None:
        if not PACKAGED.is_dir():
            raise UserError("the model inside the package is missing; reinstall it, or name a model folder")
        network = _judge(PACKAGED, chosen) if judge else None
        return Separator(load_model(PACKAGED, chosen), PACKAGED.name, network, segmenter)
    folder = Path(model)
    if not os.path.isdir(folder):  # noqa: PTH112 unlike Path.is_dir, it never raises
        if not _HUB_ID.fullmatch(str(model)):
            raise UserError(f"{shown(model)}: no such model; give a folder, or a hub id such as org/name")
        folder = _download(str(model))
    return Separator(load_model(folder, chosen), str(model), _judge(folder, chosen) if judge else None, segmenter)


def _judge(folder: Path, device: torch.device) -> JudgeModel | None:
    """The Judge that belongs to the model in ``folder``, if there is one."""
    place = judge_files.PACKAGED if folder == PACKAGED else folder / "judge"
    return judge_files.load(place, folder / "codec", folder).to(device) if place.is_dir() else None


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # a dozen kinds: no network, no such repository, no access, no disk
        raise UserError(
            f"{shown(name)}: is no folder here and cannot be fetched from the hub "
            f"({type(error).__name__}: {shown(error, 100)}); check the name and the network"
        ) from error


class Separator:
    """A model with everything around it that turns recordings into stems."""

    def __init__(
        self,
        model: Model,
        name: str,
        network: JudgeModel | None = None,
        segmenter: str | os.PathLike | None = None,
    ):
        self.model, self.name, self.network = model, name, network
        self.viewer = Viewer(model, segmenter)

    @property
    def sample_rate(self) -> int:
        """Hz at which the model listens. Recordings of any rate are taken and keep theirs."""
        return self.model.sample_rate

    @property
    def device(self) -> torch.device:
        return self.model.device

    def separate(
        self,
        audio: str | os.PathLike | Tensor | np.ndarray,
        prompt: AnyPrompt,
        *,
        sample_rate: int | None = None,
        exclude: Sequence[AnyPrompt] = (),
        candidates: int = 1,
        seed: int = 0,
        chunk_seconds: float = CHUNK_SECONDS,
        progress: Progress | None = None,
    ) -> Result:
        """Take one sound out of a recording, in memory.

        Args:
            audio: a file, or samples ``[C, T]`` or ``[T]`` with full scale 1.0.
            prompt: text, a prompt of `samaudio.prompts`, or a list of them that describes one sound.
            sample_rate: Hz of the samples.
            exclude: sounds to keep out of the target.
            candidates: how many of the model's hypotheses to weigh against each other.
            progress: called with the seconds that are done and the seconds in all.

        Raises:
            UserError: the recording, a prompt or an option cannot be used.
        """
        return self.separate_many(
            audio,
            [prompt],
            sample_rate=sample_rate,
            exclude=exclude,
            candidates=candidates,
            seed=seed,
            chunk_seconds=chunk_seconds,
            progress=progress,
        )[0]

    @torch.no_grad()
    def separate_many(
        self,
        audio: str | os.PathLike | Tensor | np.ndarray,
        prompts: Sequence[AnyPrompt],
        *,
        sample_rate: int | None = None,
        exclude: Sequence[AnyPrompt] = (),
        candidates: int = 1,
        seed: int = 0,
        chunk_seconds: float = CHUNK_SECONDS,
        progress: Progress | None = None,
    ) -> list[Result]:
        """:meth:`separate` for several sounds at once: one result per prompt, the recording encoded once."""
        asked, kept_out = _each(prompts), _each(exclude, allow_none=True)
        self._check_options(candidates, chunk_seconds)
        mixture, rate = _waveform(audio, sample_rate)
        C, T = mixture.shape
        for question in (*asked, *kept_out):
            check_spans(question, T / rate)
        recording = Path(audio) if isinstance(audio, (str, os.PathLike)) else None
        queries, clock = self._queries(recording, asked, kept_out, Clock(progress, rate, T))
        cutting = Cutting.of_seconds(rate, chunk_seconds)
        answers = [Answer(question.prompts, candidates, rate, cutting, self.network, question.followed_by)
                   for question in queries[0]]  # fmt: skip
        found = [torch.empty(candidates, C, T) for _ in answers]
        at = [0] * len(answers)

        def take(i: int, samples: Tensor) -> None:
            n = samples.shape[-1]
            found[i][..., at[i] : at[i] + n] = samples
            at[i] += n

        cutter = Cutter(self.model, rate, *queries, candidates, seed)
        listen(cutter, cutting, mixture.split(rate, dim=-1), answers, take, clock)
        return [answer.result(self.model, mixture, targets) for answer, targets in zip(answers, found, strict=True)]

    @torch.no_grad()
    def separate_file(
        self,
        path: str | os.PathLike,
        prompts: Sequence[AnyPrompt],
        out: str | os.PathLike,
        *,
        exclude: Sequence[AnyPrompt] = (),
        candidates: int = 1,
        seed: int = 0,
        format: str = "wav",
        force: bool = False,
        progress: Progress | None = None,
        chunk_seconds: float = CHUNK_SECONDS,
        skip_existing: bool = False,
        track: str | None = None,
    ) -> list[FileResult]:
        """Take sounds out of a file, into ``out/<track>/<prompt>.<ext>`` and ``<prompt>.residual.<ext>``.

        Memory does not grow with the file. A sound's two files appear together and complete, or not at all.

        Args:
            format: one of `peav.media.FORMATS`.
            force: replace files that exist.
            skip_existing: leave sounds alone whose two files exist, and redo those that have only one.
            track: name of the folder, if not that of the file (see `samaudio.files.plan_outputs`).

        Raises:
            UserError: something cannot be read, used or written. What can be known beforehand is refused
                before any work is done; nothing is left behind in any case.
        """
        path = Path(path)
        asked, kept_out = _each(prompts), _each(exclude, allow_none=True)
        self._check_options(candidates, chunk_seconds)
        info = media.probe(path)
        if info.seconds is not None and info.frames is not None:
            for question in (*asked, *kept_out):
                check_spans(question, info.seconds)
        folder = Path(out) / (files.track_name(path) if track is None else files.safe_name(track))
        names = [describe(question) for question in asked]
        every = files.stem_paths(folder, names, format)
        complete = [skip_existing and all(p.is_file() for p in paths) for paths in every]
        for paths, done in zip(every, complete, strict=True):
            if not done:
                files.check_not_input(path, paths)
                files.check_stems(paths, info.sample_rate, info.channels, format, force or skip_existing)
        todo = [i for i, done in enumerate(complete) if not done]
        made: dict[int, FileResult] = {}
        if todo:
            clock = Clock(progress, info.sample_rate, info.frames)
            queries, clock = self._queries(path, [asked[i] for i in todo], kept_out, clock, info.start_seconds)
            cutter = Cutter(self.model, info.sample_rate, *queries, candidates, seed)
            cutting = Cutting.of_seconds(info.sample_rate, chunk_seconds)
            job = FileJob(info, cutter, cutting, format, force or skip_existing, self.network)
            made = dict(zip(todo, job.run([every[i] for i in todo], clock), strict=True))
        return [made[i] if i in made else skipped(every[i], names[i]) for i in range(len(asked))]

    def _queries(
        self,
        recording: Path | None,
        asked: list[_Prompts],
        kept_out: list[_Prompts],
        clock: Clock,
        start: float | None = None,
    ) -> tuple[tuple[list[Question], list[Question]], Clock]:
        """What the model makes of the questions and of what to keep out, and the clock for what comes next. What is
        pointed at in a film is followed through it first, which counts as much of the work as all the rest."""
        films = [question for question in (*asked, *kept_out) if pointed(question)]
        if films and not self.viewer.sees:
            what = describe(pointed(films[0]))
            raise UserError(f"{what}: this model does not see; name the sound, or say when it happens")
        tell = clock.preparing(len(films)) if films else None
        if films and start is None and recording is not None:
            start = media.probe(recording).start_seconds
        found: list[list[Question]] = []
        for questions in (asked, kept_out):
            made = []
            for items in questions:
                if not pointed(items):
                    made.append(Question(items, self.model.query(items)))
                    continue
                sight, offset = self.viewer(recording, items, start or 0.0, tell)
                made.append(Question(items, self.model.query(items, sight, offset)))
            found.append(made)
        return (found[0], found[1]), clock.after(len(films))

    def _check_options(self, candidates: int, chunk_seconds: float) -> None:
        K = self.model.hypotheses
        if not 1 <= candidates <= K:
            raise UserError(f"candidates {candidates}: this model has {K} hypotheses; choose 1 to {K}")
        if not 1 <= chunk_seconds < math.inf:
            raise UserError(f"chunks of {chunk_seconds} s are too short; give at least 1 s")


def _each(prompts: Sequence[AnyPrompt], allow_none: bool = False) -> list[_Prompts]:
    """One tuple of prompts per sound."""
    if isinstance(prompts, (str, Prompt)):  # one sound, by those who forget the brackets
        prompts = [prompts]
    found = [as_prompts(prompt) for prompt in prompts]
    if not found and not allow_none:
        raise UserError('no prompt; name the sound, for example "guitar"')
    return found


def _waveform(audio: str | os.PathLike | Tensor | np.ndarray, sample_rate: int | None) -> tuple[Tensor, int]:
    """Float32 ``[C, T]`` on the CPU and its rate."""
    if isinstance(audio, (str, os.PathLike)):
        return media.read(audio)
    if sample_rate is None:
        raise UserError("samples need their sample_rate in Hz")
    if not media.MIN_RATE <= sample_rate <= media.MAX_RATE or sample_rate != int(sample_rate):
        raise UserError(f"sample_rate {sample_rate} is not supported; {media.MIN_RATE} to {media.MAX_RATE} Hz are")
    samples = torch.as_tensor(audio).detach().cpu()
    if not samples.is_floating_point():
        raise UserError(f"samples are {samples.dtype}; give floats with full scale 1.0")
    samples = samples[None] if samples.dim() == 1 else samples
    if samples.dim() != 2 or not samples.shape[-1] or not 1 <= samples.shape[0] <= media.MAX_CHANNELS:
        raise UserError(
            f"samples have shape {list(samples.shape)}; give [channels, samples] with at most "
            f"{media.MAX_CHANNELS} channels and at least one sample"
        )
    if not bool(samples.isfinite().all()):
        raise UserError("samples hold NaN or infinite values; repair the recording first")
    return samples.float(), int(sample_rate)
