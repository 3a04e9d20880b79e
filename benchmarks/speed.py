"""Where the time goes: from starting the program to the first sound, and through a minute of stereo.

    python -m benchmarks.speed --out docs/benchmarks

Start-up is measured in fresh processes, the best of three, so files are in the system's cache. A minute of stereo at
44.1 kHz (noise and tones: the network's time does not depend on what it hears) is separated by one prompt, scored by
the Judge, and every part is timed by itself, the parts that it calls left out. ``--dtype bf16`` and ``--compile``
measure what these would bring.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

import judge
import samaudio

RATE = 44_100
STAGES = ("interpreter", "import torch", "import samaudio", "load the model", "first separation")
START = """
import sys, time
marks = [time.time()]
import torch; marks.append(time.time())
import samaudio; marks.append(time.time())
separator = samaudio.load(judge=False); marks.append(time.time())
separator.separate(sys.argv[1], "guitar"); marks.append(time.time())
print(*marks)
"""


class Clock:
    """Seconds spent in each part, what it calls of the others left out."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.inner = [0.0]

    def timed(self, name: str, call: Callable) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            self.inner.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                took = time.perf_counter() - begun
                self.spent[name] = self.spent.get(name, 0.0) + took - self.inner.pop()
                self.inner[-1] += took

        return wrapped


@contextmanager
def watched(separator: samaudio.Separator, clock: Clock):
    """The separator with a clock at every part."""
    from samaudio import cut

    model = separator.model
    places: list[tuple[Any, str, str]] = [
        (model.codec, "latents", "codec, analysis"), (model.codec, "decode", "codec, synthesis"),
        (model.embedder.audio, "forward", "embedder, audio"), (model.separator, "forward", "separator"),
        (model.embedder, "text_vectors", "sentence encoder"), (cut, "resample", "resampling"),
        *((cut, name, "cutting out of the mixture") for name in ("stft", "istft", "ratio_mask"))]  # fmt: skip
    kept = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in places]
    for owner, name, label in places:
        setattr(owner, name, clock.timed(label, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, old in kept:
            if old is None:
                owner.__dict__.pop(name, None)
            else:
                setattr(owner, name, old)


def start_up(path: Path, runs: int = 3) -> dict[str, float]:
    """Seconds of each stage from the start of a process to its first separated sound, of the fastest run."""
    best: list[float] | None = None
    for _ in range(runs):
        begun = time.time()
        done = subprocess.run([sys.executable, "-c", START, str(path)], check=True, capture_output=True, text=True)
        marks = [begun, *map(float, done.stdout.split())]
        if best is None or marks[-1] - marks[0] < best[-1] - best[0]:
            best = marks
    assert best is not None
    return dict(zip(STAGES, np.diff(best).tolist(), strict=True))


def a_minute(folder: Path, seconds: float = 60.0) -> Path:
    """Stereo, 44.1 kHz."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * f * t * (1 + 0.001 * np.sin(t))) for f in (220, 331, 440))
    sound = 0.1 * np.stack((tones, 0.7 * tones)) + 0.05 * rng.normal(size=(2, len(t)))
    path = folder / f"{seconds:g}s.wav"
    soundfile.write(path, sound.T.astype(np.float32), RATE)
    return path


def separation(path: Path, folder: Path, dtype: str, compiled: bool) -> tuple[dict[str, float], float, float]:
    """Seconds of each part of separating a file, of all of it, and of scoring it with the Judge."""
    separator = samaudio.load(judge=False)
    if compiled:
        network = separator.model.separator
        network.forward = torch.compile(network.forward)  # type: ignore[method-assign]
    scorer = judge.load()
    clock = Clock()
    with torch.autocast("cpu", torch.bfloat16) if dtype == "bf16" else nullcontext():
        separator.separate_file(path, ["guitar"], folder / "warm")
        with watched(separator, clock):
            begun = time.perf_counter()
            [made] = separator.separate_file(path, ["guitar"], folder / "out")
            alone = time.perf_counter() - begun
    begun = time.perf_counter()
    scorer.score(path, made.target, "guitar")
    judging = time.perf_counter() - begun
    clock.spent["reading, writing and the rest"] = alone - sum(clock.spent.values())
    return clock.spent, alone, judging


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--compile", action="store_true", help="compile the separator's network first")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, help="a folder for speed.json and speed.md")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stages = start_up(a_minute(folder, 1.0))
        parts, alone, judging = separation(a_minute(folder, given.seconds), folder, given.dtype, given.compile)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {given.dtype}" + ", compiled" * given.compile
    both = alone + judging
    lines = [f"{machine}.", "", f"Start-up, {sum(stages.values()):.1f} s to the first sound:", "",
             "| stage | seconds |", "|---|---:|", *(f"| {name} | {value:.2f} |" for name, value in stages.items()), "",
             f"{given.seconds:g} s of stereo at 44.1 kHz by one prompt: {alone:.1f} s, {given.seconds / alone:.1f} x "
             f"real time; with the Judge {both:.1f} s, {given.seconds / both:.1f} x.", "",
             "| part | seconds | share |", "|---|---:|---:|",
             *(f"| {name} | {value:.2f} | {100 * value / alone:.0f} % |"
               for name, value in sorted(parts.items(), key=lambda pair: -pair[1]))]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "speed.json").write_text(json.dumps(
            {"machine": machine, "start_up": stages, "parts": parts, "separation": alone, "judge": judging},
            indent=1) + "\n")  # fmt: skip
        (given.out / "speed.md").write_text(f"# Where the time goes\n\n`python -m benchmarks.speed`, {text}")


if __name__ == "__main__":
    main()
