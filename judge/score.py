"""Scores of a separation, from what can be measured today: how near the target lies to the prompt.

The network that hears mixture and target together is not part of this version. Similarity alone notices a
wrong or a missing sound; it does not notice a target that is damaged, and hardly one that is incomplete.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from peav import media
from peav.errors import UserError, shown
from peav.model import PEAV
from peav.windows import cosines, embed_blocks, embed_texts

Sound = str | os.PathLike | Tensor

# Encoders pad and trim: seconds that a target may be longer or shorter than its mixture.
TOLERANCE = 0.25


@dataclass(frozen=True)
class Score:
    """How well a target answers a prompt.

    ``similarity`` is the cosine (-1 to 1) between the PE-AV embeddings of target and prompt; NaN for a silent
    target. The others need the judge network and are None in this version: ``overall``, ``recall`` (all of
    the sound is there), ``precision`` (nothing else is) and ``faithfulness`` (it sounds as it did in the
    mixture), 1 to 5 each, and ``presence``, the probability that the mixture holds the sound.
    """

    overall: float | None = None
    recall: float | None = None
    precision: float | None = None
    faithfulness: float | None = None
    similarity: float = math.nan
    presence: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """All fields, for JSON."""
        return asdict(self)


class Judge:
    """Scores targets by the embedder's opinion of them; see :func:`load`."""

    def __init__(self, embedder: PEAV):
        self.embedder = embedder

    @property
    def device(self) -> Any:
        return next(self.embedder.parameters()).device

    def score(self, mixture: Sound, target: Sound, prompt: str, *, sample_rate: int | None = None) -> Score:
        """Score one target.

        Args:
            mixture: what the target was cut from: a file, or samples ``[C, T]`` or ``[T]``. In this version
                only its length is looked at, to notice a target that belongs to another recording.
            prompt: the words the target should answer to.
            sample_rate: Hz; needed for samples.

        Raises:
            UserError: empty prompt, unreadable file, samples without a rate, or lengths that do not agree.
        """
        return self._score(mixture, target, self._query(prompt), sample_rate)

    def rank(
        self, mixture: Sound, targets: Sequence[Sound], prompt: str, *, sample_rate: int | None = None
    ) -> list[tuple[int, Score]]:
        """Score several targets: ``(index into targets, score)``, best first, silent ones last.

        Raises:
            UserError: as :meth:`score`, or there are no targets.
        """
        if not len(targets):
            raise UserError("there are no targets to rank; give at least one")
        query = self._query(prompt)
        scores = [self._score(mixture, target, query, sample_rate) for target in targets]
        order = [
            (math.isnan(score.similarity), -score.similarity, index) for index, score in enumerate(scores)
        ]
        return [(index, scores[index]) for *_, index in sorted(order)]

    def _query(self, prompt: str) -> Tensor:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError('the prompt is empty; name the sound, for example "guitar"')
        return embed_texts(self.embedder, [prompt])

    def _score(self, mixture: Sound, target: Sound, query: Tensor, sample_rate: int | None) -> Score:
        expected, got = _seconds(mixture, "mixture", sample_rate), _seconds(target, "target", sample_rate)
        if expected is not None and got is not None and abs(expected - got) > TOLERANCE:
            raise UserError(
                f"{_name(mixture, 'mixture')} lasts {expected:.2f} s but {_name(target, 'target')} "
                f"{got:.2f} s; give a target that was cut from this mixture"
            )
        if isinstance(target, Tensor):
            assert sample_rate is not None  # `_seconds` has seen to it
            found = embed_blocks(self.embedder, [target.reshape(-1, target.shape[-1])], sample_rate)
        else:
            with media.stream(target, 1 << 16) as blocks:
                found = embed_blocks(self.embedder, blocks, blocks.info.sample_rate)
        return Score() if found is None else Score(similarity=cosines(found, query)[0])


def load(model: str | None = None, device: str = "auto") -> Judge:
    """The judge that is available: PE-AV similarity.

    Args:
        model: folder of an embedder or of a whole model; None for the one in the package.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import peav
    from peav.frame import clip_level

    return Judge(clip_level(peav.load(model, device=device)))


def _seconds(sound: Sound, role: str, sample_rate: int | None) -> float | None:
    """Length, None where a file does not tell."""
    if not isinstance(sound, Tensor):
        return media.probe(sound).seconds
    if sample_rate is None:
        raise UserError(f"the {role} is given as samples; give their sample_rate in Hz too")
    if sound.dim() not in (1, 2) or not sound.numel():
        raise UserError(f"the {role} has shape {list(sound.shape)}; give samples as [C, T] or [T]")
    if not bool(sound.isfinite().all()):
        raise UserError(f"the {role} holds a sample that is not a number (NaN or infinite); repair it")
    return sound.shape[-1] / sample_rate


def _name(sound: Sound, role: str) -> str:
    return f"the {role}" if isinstance(sound, Tensor) else shown(sound)
