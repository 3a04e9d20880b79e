"""What the separation benchmark asks: its conditions, and the wordings that training never used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from peav.captions import wordings
from peav.clips import Clip, read_manifest
from peav.errors import UserError, shown
from peav.vocabulary import ABSENT, SYNONYMS

from .mixtures import Item, at_level, render

LISTS = Path(__file__).parent / "lists"
LIST = LISTS / "two_sources_0db.jsonl"
PARAPHRASES = LISTS / "paraphrases.json"
MAIN = "two_sources_0db"


@dataclass(frozen=True)
class Condition:
    """The first ``count`` mixtures of a list, and how their stems are asked for.

    Attributes:
        level: dB of the target against the rest. Each stem in turn is the target of a mixture of its own; without a
            level one mixture of equal stems serves for all.
        against: the condition that asks the same of the same mixtures by plain labels; here other words ask.
    """

    name: str
    title: str
    list: Path
    count: int
    level: float | None = None
    against: str | None = None


CONDITIONS = {c.name: c for c in (
    Condition(MAIN, "two sources, 0 dB", LIST, 400),
    Condition("two_sources_minus_5db", "two sources, -5 dB", LIST, 100, level=-5.0),
    Condition("two_sources_plus_5db", "two sources, +5 dB", LIST, 100, level=5.0),
    Condition("three_sources", "three sources, equal energy", LISTS / "three_sources.jsonl", 200),
    Condition("paraphrases", "two sources, 0 dB, unseen wordings", LIST, 200, against=MAIN),
)}  # fmt: skip


def chosen(names: Sequence[str] | None, limit: int | None) -> list[Condition]:
    """Conditions by name in the order of the table (all without names), each of ``limit`` lines of its list at most.

    Raises:
        UserError: there is no such condition, or the limit leaves nothing.
    """
    for name in names or ():
        if name not in CONDITIONS:
            raise UserError(f"condition '{shown(name)}' is unknown; choose among {', '.join(CONDITIONS)}")
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit} leaves no mixture; give 1 or more")
    wanted = [condition for name, condition in CONDITIONS.items() if not names or name in names]
    return [replace(condition, count=min(condition.count, limit or condition.count)) for condition in wanted]


class Mixtures:
    """The mixtures of a condition, rendered when their turn comes: all of them at once would fill the memory that is
    to be measured.

    Args:
        manifest: of the pool that the lists name.
        clips: decoded files by path, shared between conditions.

    Raises:
        UserError: there is no such manifest; or its captions hold a wording that is taken for unseen.
    """

    def __init__(self, condition: Condition, manifest: Path, rate: int, clips: dict[str, Tensor]):
        if not manifest.is_file():
            raise UserError(f"manifest {shown(manifest)} does not exist; name that of the pool of recordings")
        self.condition, self.pool, self.rate, self._clips = condition, manifest.parent, rate, clips
        self.lines = [json.loads(line) for line in condition.list.read_text().splitlines()[: condition.count]]
        self.words: Mapping[str, str] = {}
        if condition.against:
            self.words = json.loads(PARAPHRASES.read_text())
            if known := seen(self.words.values(), read_manifest(manifest)):
                raise UserError(f"'{shown(known[0])}' was used in training; {PARAPHRASES.name} needs another wording")

    def __len__(self) -> int:
        return sum(1 if self.condition.level is None else len(line["stems"]) for line in self.lines)

    def __iter__(self) -> Iterator[Item]:
        for line in self.lines:
            item = replace(render(line, self.pool, self.rate, self._clips), words=self.words)
            if self.condition.level is None:
                yield item
            else:
                yield from (at_level(item, target, self.condition.level) for target in range(len(item.stems)))


def seen(phrases: Iterable[str], clips: Sequence[Clip] = ()) -> list[str]:
    """Those phrases that training may use for any sound, case, punctuation and a leading article aside."""
    labels = {*SYNONYMS, *(clip.label for clip in clips)}
    used = {_bare(words) for label in labels for words in wordings(label)}
    used |= {_bare(words) for clip in clips for words in clip.captions} | {_bare(words) for words in ABSENT}
    return [phrase for phrase in phrases if _bare(phrase) in used]


def _bare(phrase: str) -> str:
    return re.sub(r"^(a|an|the|some) ", "", " ".join(re.findall(r"[\w'-]+", phrase.lower())))
