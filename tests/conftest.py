"""Labelled sounds that several test files need, written anew for each run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

# benchmarks/ is no part of the installed packages.
sys.path.insert(0, str(Path(__file__).parent.parent))

RATE = 8_000
LABELS = ("violin", "viola", "cello", "flute", "hi-hat", "closed hi-hat", "rain", "dog barking", "person speaking")


def write_pool(folder: Path, labels: Sequence[str] = LABELS, clips: int = 4, rate: int = RATE) -> Path:
    """Wav files of 0.15 to 0.6 s and their manifest; the last clip of each label is validation."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in labels:
        for i in range(clips):
            path = f"{label.replace(' ', '_')}-{i}.wav"
            samples = 0.2 * rng.standard_normal(int(rng.uniform(0.15, 0.6) * rate))
            soundfile.write(folder / path, samples, rate, subtype="PCM_16")
            rows.append({"path": path, "label": label, "captions": [f"one {label}", f"a nice {label}"],
                         "group": path, "split": "valid" if i == clips - 1 else "train",
                         "seconds": len(samples) / rate})  # fmt: skip
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    """Manifest of four clips of each of nine labels, at 8 kHz. Not to be written to."""
    return write_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="session")
def store(pool, tmp_path_factory):
    """The training clips of `pool`."""
    from peav.clips import ClipStore

    return ClipStore([pool], RATE, tmp_path_factory.mktemp("cache"), "train", progress=False)
