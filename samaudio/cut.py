"""One chunk: ask the model what to keep, and cut it out of the chunk itself.

Axes: ``C`` channels, ``T`` samples at the recording's rate, ``N`` candidates, ``F`` latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from peav.media import resample

from .bands import extend
from .chunks import Chunk
from .model import Split
from .project import istft, ratio_mask, stft, window_length
from .prompts import Prompt
from .spans import span_gate

SILENCE = 1e-6  # peak (-120 dB) below which there is nothing to take out
MODEL_PEAK = 0.5  # every chunk is brought to this peak for the model, so that the level decides nothing


class Model(Protocol):
    """What a separator needs of a model; `samaudio.model.MaskModel` is one."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def frame_rate(self) -> float: ...
    @property
    def hypotheses(self) -> int: ...
    @property
    def presence_threshold(self) -> float: ...
    @property
    def device(self) -> torch.device: ...
    def query(self, prompts: Sequence[Prompt], sight: Any = None, offset: float = 0.0, /) -> Any: ...
    def anchors(self, prompts: Sequence[Prompt], start: float, frames: int) -> Tensor | None: ...
    def encode(self, mixture: Tensor) -> Tensor: ...
    def split(
        self,
        mixture: Tensor,
        latent: Tensor,
        query: Any,
        anchors: Tensor | None,
        hypotheses: int | None = None,
        start: float = 0.0,
    ) -> Split: ...
    def similarity(self, query: Any, waveform: Tensor) -> float: ...


@dataclass
class Question:
    """Everything that was said about one sound, and what the model made of it."""

    prompts: tuple[Prompt, ...]
    query: Any

    @property
    def followed_by(self) -> str | None:
        """What followed the object that was pointed at, if anything was."""
        return getattr(getattr(self.query, "sight", None), "used", None)


@dataclass
class Piece:
    """The answer to one question about one chunk, on the CPU.

    ``targets [N, C, T]`` cut out of the chunk, ``activity [F]``, ``gate [T]`` of the user's spans,
    ``energy`` of what was taken out (mean over candidates).
    """

    targets: Tensor
    activity: Tensor
    presence: float
    similarity: list[float]
    confidence: list[float]
    energy: float
    gate: Tensor | None


class Cutter:
    """Answers questions about the chunks of one recording. The codec sees each chunk once."""

    def __init__(
        self,
        model: Model,
        sample_rate: int,
        questions: Sequence[Question],
        exclude: Sequence[Question] = (),
        candidates: int = 1,
        seed: int = 0,
    ):
        self.model, self.sample_rate, self.candidates, self.seed = model, sample_rate, candidates, seed
        self.questions, self.exclude = questions, exclude
        self.power = float(getattr(model, "settings", {}).get("power", 1.0))
        self.window = torch.hann_window(window_length(sample_rate), device=model.device)

    def __call__(self, chunk: Chunk) -> Iterator[Piece]:
        """One piece per question, in their order."""
        peak = float(chunk.samples.abs().max())
        if peak < SILENCE:
            yield from (self._silence(chunk, question) for question in self.questions)
            return
        samples = chunk.samples.to(self.model.device)
        gain = MODEL_PEAK / peak
        heard = resample(samples * gain, self.sample_rate, self.model.sample_rate)
        with seeded(self.seed, self.model.device):
            latent = self.model.encode(heard)
        unwanted = [(q, self._split(q, latent, chunk, heard, 1)) for q in self.exclude]
        unwanted = [(q, split) for q, split in unwanted if split.presence >= self.model.presence_threshold]
        for question in self.questions:
            gate = self._gate(question, chunk)
            if gate is not None and not bool(gate.any()):  # the user said that it is not here
                yield self._silence(chunk, question)
                continue
            split = self._split(question, latent, chunk, heard, self.candidates)
            yield self._piece(chunk, samples, question, split, unwanted, gain)

    def _split(self, question: Question, latent: Tensor, chunk: Chunk, heard: Tensor, hypotheses: int) -> Split:
        start = chunk.start / self.sample_rate
        anchors = self.model.anchors(question.prompts, start, latent.shape[-1])
        # The same random numbers for every question, so that none depends on what else was asked.
        with seeded(self.seed, self.model.device):
            return self.model.split(heard, latent, question.query, anchors, hypotheses, start)

    def _silence(self, chunk: Chunk, question: Question) -> Piece:
        nothing = torch.zeros(self.candidates, *chunk.samples.shape)
        unknown = [math.nan] * self.candidates
        return Piece(nothing, torch.zeros(1), 0.0, unknown, unknown, 0.0, None)

    def _piece(
        self,
        chunk: Chunk,
        samples: Tensor,
        question: Question,
        split: Split,
        unwanted: Sequence[tuple[Question, Split]],
        gain: float,
    ) -> Piece:
        C, T = samples.shape
        targets = torch.empty(self.candidates, C, T, device=samples.device)
        # One channel at a time: spectra are what takes the memory, sixteen bytes for every sample.
        for c, channel in enumerate(samples):
            # At the model's level: squares of absurdly large samples would overflow.
            spectrum = stft(channel[None] * gain, self.window)
            kept = self._kept(chunk, unwanted, c, spectrum, T)
            for k in range(self.candidates):
                mask = self._mask(split, k, c, spectrum, T)
                targets[k, c] = istft(spectrum * mask.mul_(kept), self.window, T)[0] / gain
        gate = self._gate(question, chunk)
        if gate is not None:
            targets *= gate.to(targets)
        similarity = [
            self.model.similarity(question.query, resample(target * gain, self.sample_rate, self.model.sample_rate))
            for target in targets
        ]
        energy = float(targets.square().sum()) / self.candidates
        confidence = split.confidence[: self.candidates].tolist()
        return Piece(targets.cpu(), split.activity.cpu(), split.presence, similarity, confidence, energy, gate)

    def _kept(
        self, chunk: Chunk, unwanted: Sequence[tuple[Question, Split]], c: int, spectrum: Tensor, T: int
    ) -> Tensor:
        """What the excluded sounds leave of each bin of channel ``c``: the product of ``1 - mask``."""
        kept = torch.ones((), device=spectrum.device)
        for question, split in unwanted:
            mask = self._mask(split, 0, c, spectrum, T)
            gate = self._gate(question, chunk)
            if gate is not None:
                middles = torch.arange(mask.shape[-1]) * (len(self.window) // 4)
                mask = mask * gate[middles.clamp(max=T - 1)].to(mask)
            kept = kept * (1 - mask)
        return kept

    def _mask(self, split: Split, k: int, c: int, spectrum: Tensor, T: int) -> Tensor:
        """Mask ``[1, bins, frames]`` of hypothesis ``k`` over the recording's own spectrum of channel ``c``."""
        both = torch.stack((split.target[k], split.residual[k])).float()
        # The estimates only count against each other; one scale keeps them far from the mask's own floor.
        scale = 1 / max(float(both.abs().max()), 1e-20)
        native = resample(both[:, c] * scale, self.model.sample_rate, self.sample_rate)[:, :T]
        mask = ratio_mask(native[:1], native[1:], self.window, self.power)
        return extend(mask, spectrum.abs().square(), self.sample_rate, self.model.sample_rate)

    def _gate(self, question: Question, chunk: Chunk) -> Tensor | None:
        return span_gate(question.prompts, chunk.start, chunk.samples.shape[-1], self.sample_rate)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers from ``seed``, and the state of its generators as it was afterwards."""
    generators: list[Any] = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed % 2**63)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
