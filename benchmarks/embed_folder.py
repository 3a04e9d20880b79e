"""Where the time goes when a folder is embedded: decoding, resampling, codec, tower.

    python -m benchmarks.embed_folder                             # synthesised recordings, the model in the package
    python -m benchmarks.embed_folder sounds/ --model FOLDER
    python -m benchmarks.embed_folder --write                     # put the table into docs/benchmarks/embedding.md

Files go the way of ``peav embed``, one after the other. Processor time is counted, which other work on the machine
disturbs least.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import peav
from benchmarks.tables import DOCS, machine, put, table
from peav import media
from peav.model import PEAV
from peav.windows import embed_file

PARTS = ("decoding", "resampling", "codec", "tower and head", "the rest")
FORMATS = ("wav16", "flac", "mp3", "ogg")
RATE = 44_100  # Hz


class Clock:
    """Processor seconds by part; a part inside of another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1][0]] += now - self._open[-1][1]
        self._open.append((name, now))
        try:
            yield
        finally:
            now = time.process_time()
            self.seconds[name] += now - self._open.pop()[1]
            if self._open:
                self._open[-1] = (self._open[-1][0], now)

    def timed(self, name: str, function: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return run


@contextmanager
def watched(model: PEAV, clock: Clock) -> Iterator[None]:
    """While it lasts, what `embed_file` calls is on the clock."""
    whole = media.AudioStream
    with ExitStack() as stack:
        for owner, name, part in (
            (whole, "__init__", "decoding"),
            (whole, "__next__", "decoding"),
            (media.StreamResampler, "push", "resampling"),
            (media.StreamResampler, "flush", "resampling"),
            (model.audio, "latents", "codec"),
            (model.audio, "forward", "tower and head"),
            (model, "head", "tower and head"),
        ):
            stack.enter_context(patch.object(owner, name, clock.timed(part, getattr(owner, name)), create=True))
        # A for loop takes the generator itself, past `__next__`.
        stack.enter_context(patch.object(whole, "__iter__", lambda stream: stream))
        yield


def profile(model: PEAV, files: Sequence[Path]) -> Clock:
    """Embed `files`; processor seconds by part."""
    clock = Clock()
    with watched(model, clock), torch.inference_mode():
        for file in files:
            with clock.part("the rest"):
                embed_file(model, file)
    return clock


def synthesise(folder: Path, format: str, count: int, seconds: float) -> list[Path]:
    """Stereo recordings of bursts of tones over noise."""
    files = []
    for i in range(count):
        random = torch.Generator().manual_seed(i)
        time_axis = torch.arange(round(seconds * RATE)) / RATE
        tone = torch.sin(2 * torch.pi * (200 + 90 * i) * time_axis) * (time_axis % 3 < 2)
        wave = 0.2 * tone + 0.02 * torch.randn(2, len(time_axis), generator=random)
        files.append(folder / f"{i}.{'wav' if format.startswith('wav') else format}")
        media.write(files[-1], wave, RATE, format=format)
    return files


def row(name: str, clock: Clock, seconds: float) -> list[str]:
    total = sum(clock.seconds.values())
    shares = [f"{100 * clock.seconds[part] / total:.0f} %" for part in PARTS]
    return [name, *shares, f"{seconds / total:.0f}"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="recordings; default: synthesised ones in each format")
    parser.add_argument("--model", help="a folder or a hub id; default: the model in the package")
    parser.add_argument("--count", type=int, default=8, help="files of each format")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks/embedding.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    model = peav.load(given.model, device="cpu")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if given.folder is None:
            groups = {}
            for format in FORMATS:
                (Path(scratch) / format).mkdir()
                files = synthesise(Path(scratch) / format, format, given.count, given.seconds)
                groups[f"{format}, {RATE / 1_000:g} kHz stereo"] = files
        else:
            groups = {given.folder.name: sorted(path for path in given.folder.rglob("*") if path.is_file())}
        for name, files in groups.items():
            profile(model, files[:1])  # tables and kernels are made at first use
            seconds = sum(media.probe(file).seconds or 0.0 for file in files)
            rows.append(row(name, profile(model, files), seconds))
    what = f"{given.count} files of {given.seconds:g} s each" if given.folder is None else str(given.folder)
    named = given.model or "the model in the package"
    text = f"{machine(given.threads)}; {named}; {what}.\n\n{table(('files', *PARTS, 'times real time'), rows)}"
    print(text)
    if given.write:
        put(DOCS / "embedding.md", "embed_folder", text)


if __name__ == "__main__":
    main()
