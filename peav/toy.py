"""A toy pool of sounds, synthesised: enough to run every training script end to end where no recordings exist."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

LABELS = {
    "low tone": ("a deep hum", "a low steady tone"),
    "high tone": ("a high whistle", "a bright steady tone"),
    "noise": ("hissing noise", "white noise"),
    "clicks": ("ticking clicks", "a row of clicks"),
}


def make_pool(folder: str | Path, clips_per_label: int = 12, seconds: float = 1.5, sample_rate: int = 24_000,
              seed: int = 0) -> Path:
    """Write wav clips and ``manifest.jsonl`` into ``folder``; every fourth clip of a label is validation.

    Returns the manifest's path. An existing pool is kept.
    """
    folder = Path(folder)
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for label, captions in LABELS.items():
        for i in range(clips_per_label):
            name = f"{label.replace(' ', '_')}-{i}.wav"
            samples = _sound(label, round(seconds * sample_rate), sample_rate, rng)
            soundfile.write(folder / name, samples, sample_rate, subtype="PCM_16")
            rows.append({"path": name, "label": label, "captions": list(captions), "group": name,
                         "split": "valid" if i % 4 == 3 else "train", "source": "synthesised",
                         "license": "CC0-1.0", "seconds": seconds})
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def _sound(label: str, T: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(T) / rate
    if label == "noise":
        return 0.2 * rng.standard_normal(T) * (0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.5, 3) * t))
    if label == "clicks":
        out = np.zeros(T)
        period = int(rng.uniform(0.08, 0.25) * rate)
        decay = np.exp(-np.arange(400) / 40)
        for start in range(int(rng.integers(period)), T - 400, period):
            out[start:start + 400] += decay * rng.standard_normal(400)
        return 0.5 * out / max(np.abs(out).max(), 1e-9)
    base = rng.uniform(90, 220) if label == "low tone" else rng.uniform(1500, 3500)
    tone = sum(np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6.28)) / k for k in range(1, 4))
    return 0.25 * tone * (1 + 0.2 * np.sin(2 * np.pi * 5 * t))
