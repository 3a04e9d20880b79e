"""What can be measured by the separation benchmark: our separator, finished outputs, the ceiling and the floor.

Axis: ``T`` samples.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from peav import media
from peav.errors import UserError, shown
from samaudio.files import prompt_filename
from samaudio.project import project, window_length

from .conditions import Mixtures
from .mixtures import Item

SLACK = 0.05  # seconds that a finished output may be longer or shorter than its mixture


@dataclass
class Answer:
    """Outputs for one mixture: a waveform ``[T]`` for each prompt, and presence in 0..1 if the system knows of it."""

    targets: list[Tensor]
    presence: list[float] | None = None
    seconds: float = 0.0


Separate = Callable[[Item, Sequence[str], int], Answer]


def ours(model: str | None, device: str) -> tuple[Separate, float]:
    """The separator of a model folder (None: the packaged one) and its presence threshold."""
    import samaudio

    separator = samaudio.load(model, device, judge=False)  # one candidate: nothing to choose
    threshold = separator.model.presence_threshold
    separator.model.settings["presence_threshold"] = 0.0

    def run(item: Item, prompts: Sequence[str], rate: int) -> Answer:
        started = time.perf_counter()
        results = separator.separate_many(item.mixture[None], list(prompts), sample_rate=rate)
        return Answer([r.target[0] for r in results], [r.scores.presence for r in results],
                      time.perf_counter() - started)

    return run, threshold


def oracle(item: Item, prompts: Sequence[str], rate: int) -> Answer:
    """Ideal ratio mask on the STFT that the projection uses; silence for a prompt that fits no stem."""
    window = torch.hann_window(window_length(rate))
    targets = []
    for prompt in prompts:
        stem = item.stems[item.asked.index(prompt)] if prompt in item.asked else torch.zeros_like(item.mixture)
        targets.append(project(item.mixture, stem, item.mixture - stem, window))
    return Answer(targets)


def unprocessed(item: Item, prompts: Sequence[str], rate: int) -> Answer:
    return Answer([item.mixture for _ in prompts])


def output_path(condition: str, item: Item, prompt: str) -> Path:
    """Where a finished output is looked for: ``<condition>/<item name>/<prompt>.wav``.

    The prompt is spelled as `separate` names its files: what a file system would refuse is ``_``.
    """
    return Path(condition) / item.name / f"{prompt_filename(prompt)}.wav"


def folder(outputs: Path, condition: str) -> Separate:
    """Outputs that another tool has written under ``outputs``, at any rate, mono or the mean of their channels.

    Raises:
        UserError: on the first use of a file that is missing, broken, or not as long as its mixture.
    """

    def run(item: Item, prompts: Sequence[str], rate: int) -> Answer:
        return Answer([_read(outputs / output_path(condition, item, prompt), item.stems.shape[1], rate)
                       for prompt in prompts])

    return run


def _read(path: Path, T: int, rate: int) -> Tensor:
    """A file as ``[T]`` at ``rate``."""
    waveform, source_rate = media.read(path)
    found = media.resample(waveform.mean(0), source_rate, rate)
    if abs(len(found) - T) > SLACK * rate:
        raise UserError(f"{shown(path)}: lasts {len(found) / rate:.2f} s and its mixture {T / rate:.2f} s; "
                        "give outputs that are as long")
    return torch.nn.functional.pad(found[:T], (0, max(0, T - len(found))))


def write_mixtures(out: Path, sets: Sequence[Mixtures], rate: int) -> None:
    """Mixtures for another tool: ``out/<condition>/<item name>.wav``, mono 32-bit float; then ``out/prompts.jsonl``.

    Its lines hold ``condition``, ``item``, ``mixture`` (path from ``out`` on) and ``outputs``: for each prompt the
    path, from the folder of outputs on, where its answer is looked for.

    Raises:
        UserError: a file is there already.
    """
    prompts = out / "prompts.jsonl"
    if prompts.exists():
        raise UserError(f"{shown(prompts)}: exists already; name a fresh folder")
    lines = []
    for mixtures in sets:
        condition = mixtures.condition.name
        (out / condition).mkdir(parents=True, exist_ok=True)
        for item in mixtures:
            path = Path(condition) / f"{item.name}.wav"
            media.write(out / path, item.mixture[None], rate, format="wavf")
            lines.append({"condition": condition, "item": item.name, "mixture": path.as_posix(), "outputs": {
                prompt: output_path(condition, item, prompt).as_posix() for prompt in item.prompts}})
        print(f"{condition}: {len(mixtures)} mixtures", file=sys.stderr, flush=True)
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
