"""Peak memory of separating a minute and an hour, which should be the same.

    python benchmarks/memory.py                  # the model inside the package
    python benchmarks/memory.py --model FOLDER
    python benchmarks/memory.py --model none     # everything but the network: what the pipeline itself needs
    python benchmarks/memory.py --minutes 1 10 60 --chunk-seconds 12

Synthesises stereo recordings at 44.1 kHz, separates each in a process of its own, and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATE = 44_100  # Hz
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    arguments = parse()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.model, arguments.chunk_seconds)))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, model: {arguments.model or 'packaged'}\n")
    print("| recording | peak memory | time | times real time |")
    print("|---|---|---|---|")
    for minutes in arguments.minutes:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            recording = Path(folder) / "mix.wav"
            synthesise(recording, minutes)
            command = [sys.executable, __file__, "--measure", str(recording)]
            command += ["--chunk-seconds", str(arguments.chunk_seconds)]
            command += ["--model", arguments.model] if arguments.model else []
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        speed = 60 * minutes / found["seconds"]
        print(f"| {minutes:g} min | {found['peak'] / 2**20:.0f} MiB | {found['seconds']:.1f} s | {speed:.1f} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or hub id; 'none' for the stand-in of the tests")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 60])
    parser.add_argument("--chunk-seconds", type=float, default=12.0)
    parser.add_argument("--scratch", help="folder for the recordings: an hour and its stems take 4 GB")
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)
    return parser.parse_args()


def synthesise(path: Path, minutes: float) -> None:
    """Bursts of tones over noise, a second at a time."""
    import torch

    from peav.media import Writer

    random = torch.Generator().manual_seed(0)
    time_axis = torch.arange(RATE) / RATE
    with Writer(path, RATE, 2, format="wav16") as out:
        for second in range(round(60 * minutes)):
            tone = torch.sin(2 * torch.pi * (200 + 50 * (second % 20)) * time_axis) * (second % 3 > 0)
            out.write(0.2 * tone + 0.02 * torch.randn(2, RATE, generator=random))


def measure(recording: str, model: str | None, chunk_seconds: float) -> dict[str, float]:
    """Separate two prompts in this process; peak resident bytes and seconds."""
    import resource

    from samaudio.pipeline import Separator, load

    if model == "none":
        sys.path.insert(0, str(ROOT / "tests" / "samaudio"))
        from fake import FakeModel

        separator = Separator(FakeModel(), "none")
    else:
        separator = load(model, device="cpu")
    began = time.perf_counter()
    out = Path(recording).parent / "out"
    separator.separate_file(recording, ["low", "high"], out, chunk_seconds=chunk_seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak * (1 if sys.platform == "darwin" else 1024), "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
