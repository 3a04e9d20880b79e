"""What the network says of a whole recording, from what it says of its windows.

Axes: ``K`` targets of one mixture, ``N`` tokens, ``T`` samples.

A window counts by the seconds in which its target can be heard, or by those of the mixture times the probability that
the mixture holds the sound there, whichever is more: so minutes in which there is nothing to separate, and nothing was,
do not water down the score, and a sound that was missed counts. Without the presence output only the first counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peav import media
from peav.windows import SILENCE

from .audio import audible_floor, heard_seconds
from .model import SCORES, JudgeModel, JudgeOutput


@dataclass(frozen=True)
class Curve:
    """Scores over time: ``values [N, 4]`` in the order of :data:`judge.model.SCORES`, one row per ``step`` seconds.

    Rows of windows in which the mixture is silent are NaN. Not limited to 1..5.
    """

    values: Tensor
    step: float

    def every(self, seconds: float = 1.0) -> Curve:
        """The same with rows of (at least) ``seconds`` each: means over what is known in them."""
        if seconds <= self.step or not len(self.values):
            return self
        middles = (torch.arange(len(self.values)) + 0.5) * self.step
        row = (middles / seconds).long()
        known = ~self.values.isnan()
        sums = torch.zeros(int(row[-1]) + 1, self.values.shape[1])
        counts = sums.clone()
        sums.index_add_(0, row, self.values.nan_to_num(0.0))
        counts.index_add_(0, row, known.to(sums))
        return Curve(sums / counts, seconds)  # 0 / 0 is NaN, as it should be

    def to_dict(self) -> dict[str, list[float] | float]:
        """``step`` and a list for each score, for JSON."""
        columns = self.values.T.tolist()
        return {"step": self.step, **dict(zip(SCORES, columns, strict=True))}


@dataclass(frozen=True)
class Verdict:
    """The network's opinion of one target.

    ``scores``: overall, recall, precision, faithfulness as they come, not limited to 1..5; None for a silent mixture.
    ``presence``: probability that the mixture holds the sound, the highest of any window: a sound that is there once
    is there. None without that output.
    """

    scores: tuple[float, ...] | None
    presence: float | None
    curve: Curve | None


def measures(verdicts: Sequence[Verdict]) -> dict[str, list[float]]:
    """Scores by name, a value for each verdict, NaN where unknown: what `judge.rank.ranking` takes."""
    nothing = (float("nan"),) * len(SCORES)
    columns = zip(*(verdict.scores or nothing for verdict in verdicts), strict=True)
    return {name: list(column) for name, column in zip(SCORES, columns, strict=True)}


class Tally:
    """Sums up the windows of one mixture and ``K`` targets.

    Args:
        network: whose outputs are summed up.
        targets: K.
    """

    def __init__(self, network: JudgeModel, targets: int) -> None:
        self.network = network
        # By what is heard of the target; where that is nothing at all, by what is heard of the mixture.
        self._sums = torch.zeros(2, targets, len(SCORES), dtype=torch.float64)
        self._weights = torch.zeros(2, targets, dtype=torch.float64)
        self._presence: list[list[float]] = [[] for _ in range(targets)]
        self._curves: list[list[Tensor]] = [[] for _ in range(targets)]

    def wants(self, mixture: Tensor) -> bool:
        """Whether there is anything in ``mixture [T]`` to judge by."""
        return float(mixture.abs().max()) > SILENCE

    def add(self, mixture: Tensor, targets: Sequence[Tensor], outputs: Sequence[JudgeOutput] | None) -> None:
        """Take one window ``[T]`` and the K outputs for it, None where the mixture is silent."""
        rate, floor = self.network.sample_rate, audible_floor(mixture)
        all_of_it = heard_seconds(mixture, rate, floor)
        for k, target in enumerate(targets):
            if outputs is None:
                tokens = -(-len(target) // self.network.config.token_samples)
                self._curves[k].append(torch.full((tokens, len(SCORES)), torch.nan))
                continue
            out = outputs[k]
            presence = None if out.presence is None else float(out.presence.float().sigmoid())
            if presence is not None:
                self._presence[k].append(presence)
            weight = max(heard_seconds(target, rate, floor), (presence or 0.0) * all_of_it)
            for way, seconds in enumerate((weight, all_of_it)):
                self._sums[way, k] += seconds * out.scores[0].double().cpu()
                self._weights[way, k] += seconds
            self._curves[k].append(out.frames[0].float().cpu())

    def finish(self) -> list[Verdict]:
        """The opinion of each target."""
        found = []
        for k in range(len(self._curves)):
            way = 0 if float(self._weights[0, k]) > 0 else 1
            weight = float(self._weights[way, k])
            scores = tuple((self._sums[way, k] / weight).tolist()) if weight > 0 else None
            presence = max(self._presence[k], default=0.0) if self.network.config.presence else None
            curve = Curve(torch.cat(self._curves[k]), self.network.frame_seconds) if self._curves[k] else None
            found.append(Verdict(scores, presence, curve))
        return found


class Listener:
    """A recording that is judged while it is being separated, chunk by chunk.

    >>> listener = Listener(network, network.text_vectors(["guitar"])[0], targets=4)      # doctest: +SKIP
    >>> listener.add(chunk, candidates, sample_rate)
    >>> listener.finish()[0].scores

    Args:
        text: text vector ``[W]``.
        targets: K.
    """

    def __init__(self, network: JudgeModel, text: Tensor, targets: int) -> None:
        self.network, self.text, self._tally = network, text, Tally(network, targets)

    @torch.inference_mode()
    def add(self, mixture: Tensor, targets: Sequence[Tensor] | Tensor, sample_rate: int) -> None:
        """Take the next chunk of the mixture ``[C, T]`` and of each target ``[C, T]``, at ``sample_rate`` Hz.

        Overlapping chunks are fine; what they share counts twice for every target alike.
        """
        mono = media.resample(mixture.float().mean(0), sample_rate, self.network.sample_rate)
        heard = [media.resample(t.float().mean(0), sample_rate, self.network.sample_rate) for t in targets]
        outputs = None
        if self._tally.wants(mono):
            outputs = self.network.judge([mono] * len(heard), heard, self.text.expand(len(heard), -1))
        self._tally.add(mono, heard, outputs)

    def finish(self) -> list[Verdict]:
        """The opinion of each target."""
        return self._tally.finish()


def limited(scores: tuple[float, ...] | None) -> Mapping[str, float | None]:
    """Scores by name, limited to 1..5, as people are shown them."""
    if scores is None:
        return dict.fromkeys(SCORES)
    return {name: min(max(value, 1.0), 5.0) for name, value in zip(SCORES, scores, strict=True)}
