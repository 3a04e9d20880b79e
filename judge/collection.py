"""Separations on disk, with what they deserve: what the Judge is trained on and measured with.

A collection is a folder. Everything in it has the same length and number of outputs ``M`` and questions ``Q``, so that
it lies in plain arrays, one row per mixture, in shards:

    settings.json            sample_rate (Hz), seconds, outputs, questions, targets (version of the formulas), seed, ...
    items-0000.jsonl         what was asked, how each output was made, peaks, SI-SDR in dB
    waves-0000.npy           int16 [n, 1 + M + Q, T]: mixture, outputs, true stems (zeros where the sound is absent)
    scores-0000.npy          float16 [n, Q, M, 4]: every output judged by every question; NaN where nothing can be said
    blocks-0000.npy          float16 [n, Q, M, P, 4]: the same over time, see `judge.targets`

A shard is complete when its ``items`` file is there; an interrupted collection goes on with the next shard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peav.checkpoints import read_json, write_json
from peav.errors import UserError, shown

from . import targets

SETTINGS = "settings.json"
FORMAT = "judge-collection"


@dataclass
class Question:
    """A prompt and whether its sound is in the mixture."""

    label: str
    phrase: str
    present: bool


@dataclass
class Example:
    """A mixture ``[T]``, outputs ``[M, T]``, stems ``[Q, T]`` that the questions name (zeros: absent).

    ``kinds [M]`` say in words how each output was made, ``of [M]`` which question it answers (-1: none of them).
    """

    mixture: Tensor
    outputs: Tensor
    stems: Tensor
    questions: list[Question]
    kinds: list[str]
    of: list[int]


@dataclass
class Item:
    """An `Example` as it is read, with its targets.

    ``scores [Q, M, 4]``, ``blocks [Q, M, P, 4]``, ``si_sdr [Q, M]`` dB (NaN for absent sounds).
    """

    example: Example
    scores: Tensor
    blocks: Tensor
    si_sdr: Tensor


@dataclass
class _Row:
    questions: list[dict[str, Any]]
    kinds: list[str]
    of: list[int]
    peaks: list[float] = field(default_factory=list)
    si_sdr: list[list[float | None]] = field(default_factory=list)


def write(folder: str | Path, settings: dict[str, Any], make: Callable[[int], Example], count: int, shard: int = 100,
          say: Callable[[str], None] | None = None) -> None:
    """Fill ``folder`` with ``make(0), ..., make(count - 1)``; ``make`` must depend on its number alone.

    Args:
        settings: ``sample_rate`` and whatever else describes the collection; another collection in the same folder
            is refused.
        shard: mixtures per shard.

    Raises:
        UserError: the folder holds a collection with other settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"format": FORMAT, "targets": targets.VERSION, "count": count, "shard": shard, **settings}
    told = json.loads(json.dumps(told))  # as it will be read, without tuples
    if (folder / SETTINGS).is_file() and (old := read_json(folder / SETTINGS)) != told:
        different = sorted(k for k in {*old, *told} if old.get(k) != told.get(k))
        raise UserError(f"{shown(folder)} holds a collection made otherwise ({', '.join(different)}); "
                        "give another folder, or remove it")  # fmt: skip
    write_json(folder / SETTINGS, told)
    for number, first in enumerate(range(0, count, shard)):
        items = folder / f"items-{number:04}.jsonl"
        if items.is_file():
            continue
        examples = (make(i) for i in range(first, min(first + shard, count)))
        _write_shard(items, examples, told["sample_rate"])
        if say:
            say(f"{min(first + shard, count)} of {count} mixtures")


def _write_shard(items: Path, examples: Iterable[Example], sample_rate: int) -> None:
    rows, waves, scores, blocks = [], [], [], []
    for example in examples:
        found = [targets.measure(example.outputs, stem, example.mixture, sample_rate) for stem in example.stems]
        wave = torch.cat((example.mixture[None], example.outputs, example.stems))
        peaks = wave.abs().amax(1).clamp_min(1e-9)
        waves.append((wave / peaks[:, None] * 32767).round().to(torch.int16).numpy())
        scores.append(torch.stack([f.scores for f in found]).half().numpy())
        blocks.append(torch.stack([f.blocks for f in found]).half().numpy())
        si_sdr = [[round(v, 3) if v == v else None for v in f.si_sdr.tolist()] for f in found]
        rows.append(_Row([asdict(q) for q in example.questions], example.kinds, example.of, peaks.tolist(), si_sdr))
    for name, arrays in (("waves", waves), ("scores", scores), ("blocks", blocks)):
        partial = _array(items, name).with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, np.stack(arrays))
        partial.replace(_array(items, name))
    partial = items.with_suffix(".partial")
    partial.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")
    partial.replace(items)  # last: it marks the shard whole


def _array(items: Path, name: str) -> Path:
    return items.with_name(items.name.replace("items", name)).with_suffix(".npy")


class Collection:
    """A folder as `write` leaves it; arrays stay on disk until they are asked for.

    Raises:
        UserError: it is no collection, an empty one, or made by other formulas than this version's.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / SETTINGS).is_file():
            raise UserError(f"{shown(folder)} is no collection of separations; make one with python -m judge.scenes or "
                            "python -m samaudio.judge_data")  # fmt: skip
        self.settings = read_json(self.folder / SETTINGS)
        if self.settings.get("format") != FORMAT or self.settings.get("targets") != targets.VERSION:
            raise UserError(f"{shown(folder)} was made by another version; make it again")
        self.sample_rate = int(self.settings["sample_rate"])
        self._rows: list[dict[str, Any]] = []
        self._at: list[tuple[int, int]] = []
        self._shards: list[dict[str, np.ndarray]] = []
        for number, items in enumerate(sorted(self.folder.glob("items-*.jsonl"))):
            lines = items.read_text(encoding="utf-8").splitlines()
            self._rows += [json.loads(line) for line in lines]
            self._at += [(number, i) for i in range(len(lines))]
            self._shards.append({name: np.load(_array(items, name), mmap_mode="r")
                                 for name in ("waves", "scores", "blocks")})  # fmt: skip
        if not self._rows:
            raise UserError(f"{shown(folder)} is empty; let its making finish")
        self.outputs, self.questions = self._shards[0]["scores"].shape[2], self._shards[0]["scores"].shape[1]
        self.length = self._shards[0]["waves"].shape[2]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Item:
        number, at = self._at[i]
        shard, row = self._shards[number], self._rows[i]
        peaks = np.array(row["peaks"], dtype=np.float32)[:, None]
        waves = torch.from_numpy(shard["waves"][at].astype(np.float32) * (peaks / 32767))
        mixture, outputs, stems = waves.split((1, self.outputs, self.questions))
        questions = [Question(**q) for q in row["questions"]]
        example = Example(mixture[0], outputs, stems, questions, row["kinds"], row["of"])
        si_sdr = torch.tensor([[float("nan") if v is None else v for v in line] for line in row["si_sdr"]])
        scores, blocks = (torch.from_numpy(shard[name][at].astype(np.float32)) for name in ("scores", "blocks"))
        return Item(example, scores, blocks, si_sdr)
