"""Scores of a separation, from mixture, target and prompt alone.

The network (`judge.model`) hears mixture and target together and fills overall, recall, precision, faithfulness and
presence; the embedder (`peav`) measures how near the target lies to the prompt. Without a network, or for a prompt that
is no text, similarity is all there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, overload

import torch
from torch import Tensor

from peav.errors import UserError
from peav.model import PEAV
from peav.windows import cosines, embed_blocks

from .audio import Sound, Source, Take, Window, check_lengths, heard_as, source
from .model import JudgeModel
from .prompts import Example, Prompt, Video, check_prompt, embed_prompt
from .rank import RankWeights, order, ranking
from .verdict import Curve, Listener, Tally, Verdict, limited, measures

__all__ = ["Curve", "Example", "Judge", "RankWeights", "Score", "Video"]

Rate = int | tuple[int | None, int | None] | None
Triple = tuple[Sound, Sound, Prompt]
Progress = Callable[[float, float | None], None]

SECONDS_AT_ONCE = 60.0  # of windows in one batch of the network
ITEMS_AT_ONCE = 8  # triples that are read side by side, so that their windows share batches
NEEDS_WORDS = "overall, recall, precision and faithfulness need a prompt in words"
SILENT_MIXTURE = "the mixture is silent, so there is nothing to judge by"
SILENT_TARGET = "the target is silent"


@dataclass(frozen=True)
class Score:
    """How well a target answers a prompt. See docs/judge.md for what the scores mean to a listener.

    ``overall``, ``recall`` (all of the sound is there), ``precision`` (nothing else is) and ``faithfulness`` (it sounds
    as it did in the mixture): 1 to 5, higher is better. ``similarity``: cosine, -1 to 1, between the embeddings of
    target and prompt; NaN for a silent target. ``presence``: probability that the mixture holds the sound. What was not
    measured is None.

    ``notes`` say what was done to the sounds before they were judged. ``curve`` has the four scores over time.
    ``ranking`` is what a ranking went by, None outside of one; it compares candidates of one ranking only.
    """

    overall: float | None = None
    recall: float | None = None
    precision: float | None = None
    faithfulness: float | None = None
    similarity: float = math.nan
    presence: float | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    curve: Curve | None = field(default=None, repr=False, compare=False)
    ranking: float | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, float | None]:
        """The six numbers by name, for JSON."""
        names = ("overall", "recall", "precision", "faithfulness", "similarity", "presence")
        return {name: getattr(self, name) for name in names}


@dataclass
class _Question:
    """One mixture, its targets, and what they should answer to."""

    mixture: Source
    targets: list[Source]
    query: Tensor  # [1, E]
    text: Tensor | None  # [W]; None where the network has no say


class Judge:
    """Scores and ranks what any separator made of a recording; see `judge.load`.

    Args:
        embedder: measures similarity.
        network: fills the other scores; None leaves them out.
        weights: what :meth:`rank` goes by.
    """

    def __init__(self, embedder: PEAV, network: JudgeModel | None = None, weights: RankWeights | None = None) -> None:
        self.embedder, self.network = embedder, network
        self.weights = weights or RankWeights()

    @property
    def device(self) -> torch.device:
        return self.embedder.device if self.network is None else self.network.device

    @overload
    def score(self, mixture: Sound, target: Sound, prompt: Prompt, *, sample_rate: Rate = None,
              progress: Progress | None = None) -> Score: ...  # fmt: skip
    @overload
    def score(self, mixture: Sequence[Triple], *, sample_rate: Rate = None,
              progress: Progress | None = None) -> list[Score]: ...  # fmt: skip
    def score(self, mixture: Any, target: Any = None, prompt: Any = None, *, sample_rate: Rate = None,
              progress: Progress | None = None) -> Score | list[Score]:  # fmt: skip
        """Score one target, or a list of ``(mixture, target, prompt)``.

        Sounds may have any rate and number of channels, mixture and target different ones: for the network both are
        mixed to mono and resampled, which the score's notes say. Their lengths must agree within 0.25 s; the target is
        then cut or filled up with silence. Long recordings are judged window by window, in bounded memory.

        Args:
            mixture: what the target was cut from: a file, or samples ``[C, T]`` or ``[T]``, floats of full scale 1.0.
            target: the same, of what was separated.
            prompt: what it should answer to: words, `Example` or `Video`.
            sample_rate: Hz of samples, or a pair for mixture and target. Files know theirs.
            progress: told the seconds that are done, and of how many if that is known.

        Raises:
            UserError: empty prompt, unreadable file, samples without a rate, or lengths that do not agree.
        """
        if target is None and prompt is None and isinstance(mixture, (list, tuple)):
            return self.score_batch(mixture, sample_rate=sample_rate, progress=progress)
        return self.score_batch([(mixture, target, prompt)], sample_rate=sample_rate, progress=progress)[0]

    def score_batch(
        self, items: Sequence[Triple], *, sample_rate: Rate = None, progress: Progress | None = None
    ) -> list[Score]:
        """As :meth:`score` for each of ``(mixture, target, prompt)``; what shares a batch changes no score."""
        questions = [self._question(mixture, [target], prompt, sample_rate) for mixture, target, prompt in items]
        return [scores[0] for scores, _ in self._answers(questions, progress)]

    def rank(
        self,
        mixture: Sound,
        targets: Sequence[Sound],
        prompt: Prompt,
        *,
        sample_rate: Rate = None,
        weights: RankWeights | None = None,
        progress: Progress | None = None,
    ) -> list[tuple[int, Score]]:
        """Score several targets of one mixture: ``(index into targets, score)``, best first, silent ones last.

        Args:
            weights: instead of this judge's; see `judge.rank` for the formula.

        Raises:
            UserError: as :meth:`score`, or there are no targets.
        """
        if not len(targets):
            raise UserError("there are no targets to rank; give at least one")
        question = self._question(mixture, targets, prompt, sample_rate)
        scores, verdicts = next(iter(self._answers([question], progress)))
        similarity = [score.similarity for score in scores]
        values = ranking({**measures(verdicts), "similarity": similarity}, (weights or self.weights).to_dict())
        places = order(values, [math.isnan(value) for value in similarity])
        return [(k, replace(scores[k], ranking=values[k])) for k in places]

    def listener(self, prompt: str, targets: int) -> Listener | None:
        """For a separator: judges so many candidates while they are being made; None without a network."""
        check_prompt(prompt)
        if self.network is None:
            return None
        return Listener(self.network, self.network.text_vectors([prompt.strip()])[0], targets)

    def _question(self, mixture: Sound, targets: Sequence[Sound], prompt: Prompt, rates: Rate) -> _Question:
        check_prompt(prompt)
        mixture_rate, target_rate = rates if isinstance(rates, tuple) else (rates, rates)
        heard = source(mixture, "mixture", mixture_rate)
        found = [source(target, "target", target_rate) for target in targets]
        for target in found:
            check_lengths(heard, target)
        query = embed_prompt(self.embedder, prompt)
        text = None
        if self.network is not None and isinstance(prompt, str):
            text = self.network.text_vectors([prompt.strip()])[0]
        return _Question(heard, found, query, text)

    def _answers(
        self, questions: Sequence[_Question], progress: Progress | None
    ) -> Iterator[tuple[list[Score], list[Verdict]]]:
        """Scores and verdicts of each question's targets."""
        clock = _Clock(questions, progress)
        for start in range(0, len(questions), ITEMS_AT_ONCE):
            some = questions[start : start + ITEMS_AT_ONCE]
            verdicts = self._verdicts(some, clock)
            for question, (found, notes) in zip(some, verdicts, strict=True):
                scores = []
                for target, verdict, told in zip(question.targets, found, notes, strict=True):
                    similarity = self._similarity(target, question.query)
                    told = [*told, *([SILENT_TARGET] if math.isnan(similarity) else [])]
                    scores.append(
                        Score(
                            **limited(verdict.scores),
                            similarity=similarity,
                            presence=verdict.presence,
                            notes=tuple(told),
                            curve=verdict.curve,
                        )
                    )
                yield scores, found

    def _similarity(self, target: Source, query: Tensor) -> float:
        with target.open() as blocks:
            found = embed_blocks(self.embedder, blocks, target.sample_rate)
        return math.nan if found is None else cosines(found, query.to(found))[0]

    def _verdicts(self, questions: Sequence[_Question], clock: _Clock) -> list[tuple[list[Verdict], list[list[str]]]]:
        """Verdicts and notes, a list for the targets of each question; windows of all questions share batches."""
        nothing = Verdict(None, None, None)
        network = self.network
        unasked = [] if network is None else [NEEDS_WORDS]
        answers: list[tuple[list[Verdict], list[list[str]]]] = [
            (
                [nothing] * len(question.targets),
                [[*heard_as(t, "target", self.embedder.sample_rate), *unasked] for t in question.targets],
            )
            for question in questions
        ]
        if network is None:
            return answers
        size = round(network.config.window_seconds * network.sample_rate / network.config.token_samples)
        size *= network.config.token_samples  # so that tokens of all windows lie on one grid
        asked = {i: question for i, question in enumerate(questions) if question.text is not None}
        takes = {i: Take(q.mixture, q.targets, network.sample_rate, size) for i, q in asked.items()}
        tallies = {i: Tally(network, len(take.targets)) for i, take in takes.items()}
        running = {i: iter(take) for i, take in takes.items()}
        while running:
            windows: list[tuple[int, Window]] = []
            for i, stream in list(running.items()):
                window = next(stream, None)
                if window is None:
                    del running[i]
                else:
                    windows.append((i, window))
            if windows:
                self._hear(network, questions, tallies, windows)
                clock.advance(sum(len(window.mixture) for _, window in windows) / network.sample_rate)
        for i, take in takes.items():
            verdicts = tallies[i].finish()
            silent = [SILENT_MIXTURE] if verdicts[0].scores is None else []
            answers[i] = (verdicts, [[*notes, *silent] for notes in take.notes])
        return answers

    def _hear(
        self,
        network: JudgeModel,
        questions: Sequence[_Question],
        tallies: dict[int, Tally],
        windows: Sequence[tuple[int, Window]],
    ) -> None:
        """Give the network windows in batches, and each tally what it says of its own."""
        pairs = []
        for i, window in windows:
            if tallies[i].wants(window.mixture):
                mixture = window.mixture.to(network.device)  # one tensor for all targets, so it is encoded once
                pairs += [(mixture, target.to(network.device), questions[i].text) for target in window.targets]
        longest = max((len(mixture) for mixture, _, _ in pairs), default=1)
        most = max(1, int(SECONDS_AT_ONCE * network.sample_rate / longest))
        outputs = []
        for start in range(0, len(pairs), most):
            mixtures, targets, texts = zip(*pairs[start : start + most], strict=True)
            outputs += network.judge(mixtures, targets, torch.stack(texts))
        heard = iter(outputs)
        for i, window in windows:
            own = list(islice(heard, len(window.targets))) if tallies[i].wants(window.mixture) else None
            tallies[i].add(window.mixture, window.targets, own)


class _Clock:
    """Adds up what was heard for whoever watches."""

    def __init__(self, questions: Sequence[_Question], progress: Progress | None) -> None:
        lengths = [question.mixture.seconds for question in questions]
        self._total = None if None in lengths else math.fsum(length or 0.0 for length in lengths)
        self._done, self._progress = 0.0, progress

    def advance(self, seconds: float) -> None:
        self._done += seconds
        if self._progress is not None:
            self._progress(self._done if self._total is None else min(self._done, self._total), self._total)
