"""Labelled clips: the JSONL manifest and a decoded store that training can draw from without touching files.

A manifest has one JSON object per line: ``path`` (relative to the manifest), ``label`` (the short prompt),
``captions`` (other wordings), ``group`` (clips of one recording session share it), ``split``
(``train`` or ``valid``), ``seconds``; ``source`` and ``license`` are carried along.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import media
from .errors import UserError

REQUIRED: dict[str, type | tuple[type, ...]] = {
    "path": str, "label": str, "captions": list, "group": str, "split": str, "seconds": (int, float),
}


@dataclass(frozen=True)
class Clip:
    """One labelled recording of one sound."""

    path: Path
    label: str
    captions: tuple[str, ...]
    group: str
    split: str
    seconds: float


def read_manifest(path: str | Path, split: str | None = None) -> list[Clip]:
    """Clips of a manifest, optionally of one split only.

    Raises:
        UserError: the file is missing, a line is not JSON, or a field is missing or has the wrong type; the
            message names file, line and field. Also when a group stands in both splits, because a validation
            figure would then be measured on recordings that were trained on.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"manifest {path} does not exist; give a JSONL file, one clip per line")
    clips: list[Clip] = []
    splits: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number} is not JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number} is no object with fields")
        for name, kind in REQUIRED.items():
            if not isinstance(row.get(name), kind):
                raise UserError(f"{path}:{number} field {name!r} is {row.get(name)!r}; expected {kind}")
        if row["split"] not in ("train", "valid"):
            raise UserError(f"{path}:{number} split {row['split']!r}; expected 'train' or 'valid'")
        if splits.setdefault(row["group"], row["split"]) != row["split"]:
            raise UserError(f"{path}:{number} group {row['group']!r} is in both splits; keep each in one")
        if split in (None, row["split"]):
            clips.append(Clip(path.parent / row["path"], row["label"], tuple(row["captions"]), row["group"],
                              row["split"], float(row["seconds"])))
    return clips


class ClipStore:
    """Decoded clips at one rate, mono int16 in a single memory-mapped file, with their true peak kept.

    The store is built once per manifest content and rate under ``cache`` and reused afterwards; several
    manifests are joined. ``store[i]`` is float32 ``[T]``.
    """

    def __init__(self, manifests: Sequence[str | Path], sample_rate: int, cache: str | Path,
                 split: str | None = None, progress: bool = True):
        self.sample_rate = sample_rate
        self.clips: list[Clip] = []
        self._parts: list[tuple[np.ndarray, int, int, float]] = []
        for manifest in manifests:
            clips = read_manifest(manifest)
            if not clips:  # an empty file cannot be mapped into memory
                continue
            data, index = _build(Path(manifest), clips, sample_rate, Path(cache), progress)
            for clip, (start, length, peak) in zip(clips, index, strict=True):
                if split in (None, clip.split):
                    self.clips.append(clip)
                    self._parts.append((data, int(start), int(length), float(peak)))
        if not self.clips:
            raise UserError(f"no clip of split {split!r} in {', '.join(map(str, manifests))}")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> np.ndarray:
        data, start, length, peak = self._parts[i]
        return data[start:start + length].astype(np.float32) * (peak / 32767)

    def by_label(self, indices: Iterable[int] | None = None) -> dict[str, list[int]]:
        """Clip numbers of each label, labels in alphabetical order."""
        table: dict[str, list[int]] = {}
        for i in range(len(self)) if indices is None else indices:
            table.setdefault(self.clips[i].label, []).append(i)
        return dict(sorted(table.items()))


def _build(manifest: Path, clips: list[Clip], rate: int, cache: Path, progress: bool):
    digest = hashlib.sha256(manifest.read_bytes() + f"|{manifest.resolve()}|{rate}|v1".encode()).hexdigest()[:16]
    folder = cache / f"clips-{digest}"
    if not (folder / "index.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows, start = [], 0
        # Two runs may build the same store at once; each writes its own files and the last one stays.
        partial = folder / f"samples.{os.getpid()}.partial"
        with partial.open("wb") as out:
            for clip in _progress(clips, f"decoding {manifest.parent.name}", progress):
                waveform, source_rate = media.read(clip.path)
                mono = media.resample(waveform.mean(0, keepdim=True), source_rate, rate)[0]
                peak = max(float(mono.abs().max()), 1e-9)
                out.write((mono / peak * 32767).round().to(torch.int16).numpy().tobytes())
                rows.append((start, len(mono), peak))
                start += len(mono)
        partial.replace(folder / "samples.i16")
        index_partial = folder / f"index.{os.getpid()}.partial.npy"
        np.save(index_partial, np.array(rows, dtype=np.float64))
        # Written last: it marks the store whole.
        index_partial.replace(folder / "index.npy")
    return np.memmap(folder / "samples.i16", dtype=np.int16, mode="r"), np.load(folder / "index.npy")


def _progress(items, title: str, show: bool):
    from rich.progress import track

    return track(items, title) if show else items
