"""Clips of sound, pictures or both with their captions: the JSONL manifest, and batches of them for training.

A manifest has one JSON object per line. ``audio`` and ``video`` are paths relative to the manifest, one of them or
both; the same film may be both. ``captions`` holds lists of wordings by what they describe: ``{"audio": [...],
"video": [...], "audio_video": [...]}``, any of them. ``split`` is ``train`` or ``valid``. ``start`` and ``seconds``
name a part of a long file; ``group`` (such as the film a clip is from) must not be in both splits. More fields are
left alone.

Axes: ``B`` batch, ``T`` samples, ``N`` images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from . import media
from .errors import UserError, shown
from .inputs import batch_clips, batch_videos
from .losses import match_keys
from .pairs import CAPTION_OF, PAIRS

CAPTIONS = ("audio", "video", "audio_video")
_TRIES = 5
Item = dict[str, Any]  # audio: [T] at the model's rate; video: uint8 [N, 3, height, width]; captions by kind; id


@dataclass(frozen=True)
class Film:
    """One line of a manifest."""

    audio: Path | None
    video: Path | None
    captions: dict[str, tuple[str, ...]]
    split: str
    start: float  # seconds from the start of the file
    seconds: float | None  # None: to its end


@dataclass(frozen=True)
class Cut:
    """What is taken of a film for one look at it.

    ``seconds``: length, at a random place of longer films. ``fps``: images per second; ``num_frames``: so many
    images evenly instead, for models that take a fixed number.
    """

    sample_rate: int  # Hz
    size: tuple[int, int]  # height and width of images, in pixels
    seconds: float = 10.0
    fps: float | None = None
    num_frames: int | None = None

    def __post_init__(self) -> None:
        if (self.fps is None) == (self.num_frames is None):
            raise UserError("give data.fps, or data.num_frames for a fixed number of images, not both")
        if self.seconds <= 0:
            raise UserError(f"data.seconds {self.seconds}; give more than 0")


class Films(Protocol):
    """Where items come from: files, or a generator of toys."""

    def __len__(self) -> int: ...

    def inputs(self, i: int) -> frozenset[str]:
        """What film i has: audio, video, and ``caption_<kind>`` for its captions."""

    def item(self, i: int, rng: np.random.Generator) -> Item:
        """One look at film i, the same for the same random numbers."""


def read_films(path: str | Path, split: str | None = None) -> list[Film]:
    """Films of a manifest, optionally of one split.

    Raises:
        UserError: the file is missing, or a line is no JSON object or has a field that makes no sense; the message
            names file, line and field.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"manifest {shown(path)} does not exist; give a JSONL file, one clip per line")
    films: list[Film] = []
    splits: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{shown(path)}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not JSON ({error.msg})") from None
        film = _film(row, path.parent, where)
        group = row.get("group")
        if group is not None and splits.setdefault(group, film.split) != film.split:
            raise UserError(f"{where} group {shown(group)!r} is in both splits; keep each in one")
        if split in (None, film.split):
            films.append(film)
    return films


def _film(row: Any, folder: Path, where: str) -> Film:
    if not isinstance(row, dict):
        raise UserError(f"{where} is no object with fields")

    def field(name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = row.get(name, default)
        if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
            raise UserError(f"{where} field {name!r} is {shown(value, 40)!r}; see the format in peav.films")
        return value

    paths = {name: field(name, str) for name in ("audio", "video")}
    if not any(paths.values()):
        raise UserError(f"{where} has neither audio nor video; give a path to one of them or both")
    captions = field("captions", dict, {})
    for kind, wordings in captions.items():
        if kind not in CAPTIONS or not isinstance(wordings, list) or not all(isinstance(w, str) for w in wordings):
            raise UserError(f"{where} captions {shown(kind, 40)!r}: give lists of texts for {', '.join(CAPTIONS)}")
    split = field("split", str, "train")
    if split not in ("train", "valid"):
        raise UserError(f"{where} split {shown(split, 40)!r}; expected 'train' or 'valid'")
    start, seconds = field("start", (int, float), 0.0), field("seconds", (int, float))
    if start < 0 or (seconds is not None and seconds <= 0):
        raise UserError(f"{where} start {start}, seconds {seconds}; give a part of the file")
    found = {name: None if path is None else folder / path for name, path in paths.items()}
    texts = {kind: tuple(w for w in wordings if w.strip()) for kind, wordings in captions.items()}
    return Film(found["audio"], found["video"], {k: w for k, w in texts.items() if w}, split, float(start), seconds)


class FilmFiles:
    """Films on disk, decoded when they are asked for."""

    def __init__(self, films: Sequence[Film], cut: Cut) -> None:
        self.films, self.cut = films, cut

    def __len__(self) -> int:
        return len(self.films)

    def inputs(self, i: int) -> frozenset[str]:
        film = self.films[i]
        there = {name for name in ("audio", "video") if getattr(film, name) is not None}
        return frozenset(there | {f"caption_{kind}" for kind in film.captions})

    def item(self, i: int, rng: np.random.Generator) -> Item:
        film, cut = self.films[i], self.cut
        path = film.audio or film.video
        assert path is not None
        # Of a file that does not say how long it is, the first part.
        whole = (_seconds_of(path, film.audio is not None) or film.start + cut.seconds) - film.start
        length = whole if film.seconds is None else min(whole, film.seconds)
        if length <= 0:
            raise UserError(f"{shown(path)}: ends before {film.start:g} s, where its clip starts; correct the manifest")
        start = film.start + float(rng.uniform(0, max(length - cut.seconds, 0)))
        length = min(length, cut.seconds)
        item: Item = {"id": f"{film.audio} {film.video} {film.start}"}
        item["captions"] = {kind: wordings[int(rng.integers(len(wordings)))]
                            for kind, wordings in sorted(film.captions.items())}
        offset = 0.0
        if film.audio is not None:
            offset = max(0.0, media.probe(film.audio).start_seconds)  # the sound of a film may begin after its pictures
            waveform, rate = media.read(film.audio, start, length)
            item["audio"] = media.resample(waveform.mean(0, keepdim=True), rate, cut.sample_rate)[0]
        if film.video is not None:
            from .media.video import read_frames

            item["video"] = read_frames(
                film.video, fps=cut.fps, num_frames=cut.num_frames, start=start + offset, end=start + offset + length,
                size=cut.size)[0]  # fmt: skip
        return item


@lru_cache(maxsize=65_536)
def _seconds_of(path: Path, heard: bool) -> float | None:
    if heard:
        return media.probe(path).seconds
    from .media.video import probe_video

    return probe_video(path).seconds


def embeddings_of(inputs: frozenset[str]) -> frozenset[str]:
    """Which embeddings films with these inputs have, see `peav.pairs`."""
    found = set(inputs & {"audio", "video"})
    if len(found) == 2:
        found.add("audio_video")
    for name, kind in CAPTION_OF.items():
        joined_with = name.removesuffix("_plus_text")
        if f"caption_{kind}" in inputs and (name.startswith("text_") or joined_with in inputs):
            found.add(name)
    return frozenset(found)


class FilmBatches:
    """Batch number to a batch, the same for the same number.

    All films of a batch have the same inputs, and so have the batches of one step in all processes; a corpus with
    silent films and sounds without pictures gives batches of each in turn, as often as there are such films.

    Args:
        pairs: what is trained; films that have none of them are left out.
        heads: which embeddings the model has.
        world: processes; batch ``step * world + rank`` is that of one of them.

    Raises:
        UserError: no film has one of the pairs.
    """

    def __init__(
        self, films: Films, batch_size: int, pairs: Sequence[str], heads: frozenset[str], world: int = 1, seed: int = 0
    ) -> None:
        self.films, self.batch_size, self.world, self.seed = films, batch_size, world, seed
        alike: dict[frozenset[str], list[int]] = {}
        for i in range(len(films)):
            there = embeddings_of(films.inputs(i)) & heads
            if any(there.issuperset(PAIRS[name].ends) for name in pairs):
                alike.setdefault(films.inputs(i), []).append(i)
        if not alike:
            raise UserError(f"none of {len(films)} clips has both ends of a pair ({', '.join(pairs[:3])}, ...); they "
                            "need sound and pictures, or captions")
        # Sorted, so that every process has them in the same order.
        self.alike = [alike[inputs] for inputs in sorted(alike, key=sorted)]
        self.used = sum(map(len, self.alike))

    def __call__(self, number: int) -> dict[str, Any]:
        step, rank = divmod(number, self.world)
        # Drawn alike in all processes; then each takes its own part of what was drawn.
        rng = np.random.default_rng((self.seed, step))
        members = self.alike[rng.choice(len(self.alike), p=[len(m) / self.used for m in self.alike])]
        joint = self.batch_size * self.world
        drawn = rng.choice(len(members), joint, replace=joint > len(members))
        own = drawn[rank * self.batch_size : (rank + 1) * self.batch_size]
        looks = np.random.default_rng((self.seed, number, 1))
        return collate([self._item(members, int(i), looks) for i in own])

    def _item(self, members: list[int], i: int, looks: np.random.Generator) -> Item:
        """Film i of these, or another one in place of a damaged file: in a large corpus some always are."""
        for _ in range(_TRIES):
            try:
                return self.films.item(members[i], looks)
            except UserError as error:
                print(f"left out: {error}", flush=True)
                latest, i = error, int(looks.integers(len(members)))
        raise UserError(f"{_TRIES} clips in a row cannot be read; the last: {latest}")


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Items with the same inputs as one batch, as flat as `peav.gradient_cache.split_batch` wants it.

    ``waveform [B, 1, T]`` with ``waveform_mask [B, T]``; ``video [B, N, 3, height, width]`` uint8 with ``video_mask
    [B, N]``; ``caption_<kind>``: B texts; ``clip [B, 1]`` int64, equal where the same film was drawn twice.
    """
    batch: dict[str, Any] = {"clip": match_keys([item["id"] for item in items], "clip")}
    if "audio" in items[0]:
        batch["waveform"], batch["waveform_mask"] = batch_clips([item["audio"] for item in items])
    if "video" in items[0]:
        batch["video"], batch["video_mask"] = batch_videos([item["video"] for item in items])
    for kind in items[0]["captions"]:
        batch[f"caption_{kind}"] = [item["captions"][kind] for item in items]
    return batch


def as_images(video: Tensor) -> Tensor:
    """What a frame encoder takes, -1..1, of uint8 images. They travel as bytes, which is a quarter of it."""
    return video.to(torch.float32) / 127.5 - 1
