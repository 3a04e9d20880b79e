"""Mixtures of the separation benchmark: a line of a list as sound, and at another level.

Axes: ``S`` sources, ``T`` samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from peav import media

PEAK = 0.5  # of every mixture; full scale is 1


@dataclass
class Item:
    """A rendered mixture: ``stems [S, T]`` at equal energy, their labels, a label that is absent.

    Attributes:
        targets: the stems that are measured; all of them by default.
        words: label to the wording that asks for it, where that is not the label itself.
        name: tells it from the condition's other mixtures; the number of its line by default.
    """

    id: int
    labels: list[str]
    absent: str
    stems: Tensor
    targets: Sequence[int] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        self.targets = self.targets or range(len(self.labels))
        self.name = self.name or str(self.id)

    @property
    def mixture(self) -> Tensor:
        return self.stems.sum(0)

    @property
    def asked(self) -> list[str]:
        """A prompt for each stem, in their order."""
        return [self.words.get(label, label) for label in self.labels]

    @property
    def prompts(self) -> list[str]:
        """:attr:`asked`, and last one that fits nothing: ``S + 1``."""
        return [*self.asked, self.words.get(self.absent, self.absent)]


def render(line: dict, pool: Path, rate: int, cache: dict[str, Tensor]) -> Item:
    """One line of a list as sound. Stems are set to equal energy, the mixture to a peak of 0.5.

    Args:
        pool: folder that the line's paths are in.
        cache: decoded files by path, for the next lines; it is added to.
    """
    T = round(line["seconds"] * rate)
    stems = torch.zeros(len(line["stems"]), T)
    for stem, spec in zip(stems, line["stems"], strict=True):
        for event in spec["events"]:
            if event["path"] not in cache:
                waveform, source_rate = media.read(pool / event["path"])
                cache[event["path"]] = media.resample(waveform.mean(0), source_rate, rate)
            clip = cache[event["path"]][round(event["from"] * rate):][: round(event["length"] * rate)]
            at = round(event["at"] * rate)
            clip = clip[: T - at]
            stem[at:at + len(clip)] += event["gain"] * clip
        stem /= stem.square().sum().sqrt().clamp_min(1e-6)
    return Item(line["id"], [s["label"] for s in line["stems"]], line["absent"],
                stems * (PEAK / stems.sum(0).abs().max()))


def at_level(item: Item, target: int, db: float) -> Item:
    """The same sounds with ``target`` at ``db`` against the sum of the others, and only it to be measured."""
    wanted = item.stems[target]
    rest = (item.mixture - wanted).square().sum()
    gains = torch.ones(len(item.stems), 1)
    gains[target] = 10 ** (db / 20) * (rest / wanted.square().sum()).sqrt()
    stems = item.stems * gains
    return replace(item, stems=stems * (PEAK / stems.sum(0).abs().max()), targets=(target,),
                   name=f"{item.id}-{target + 1}")
