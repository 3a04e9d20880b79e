"""Drawn films as files: the film with its sound, its truth beside it, and the manifest that training reads.

A folder holds ``film-000000.mkv``, ``film-000000.npz`` and so on, ``manifest.jsonl`` (see `peav.films`; with more
fields) and ``recipe.json``, which tells a later run whether it may go on there. Every file is whole or missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media import cleanup_stale, temporary_sibling

from .films import DrawnFilm, DrawnFilms

CONTAINERS = {"mkv": "flac", "mp4": "aac"}  # and how each holds the sound
_EVERY = 25  # films between two writings of the manifest


@dataclass
class Truth:
    """What is known of a film, in the shapes of `DrawnFilm`; ``about`` is its line of the manifest."""

    times: Tensor
    masks: Tensor
    silent_masks: Tensor
    stems: Tensor
    loudness: Tensor
    sample_rate: int
    about: dict[str, Any]


def write_films(folder: str | Path, films: DrawnFilms, count: int, split: str, container: str = "mkv",
                progress: Callable[[int], None] | None = None) -> int:  # fmt: skip
    """Write the first ``count`` films; those that are there already stay. Returns how many were drawn.

    Raises:
        UserError: the folder holds films of another recipe, or cannot be written to.
    """
    folder = Path(folder)
    if container not in CONTAINERS:
        raise UserError(f"'{shown(container, 20)}': unknown kind of film; choose {' or '.join(CONTAINERS)}")
    height, width = films.recipe.size
    if height % 2 or width % 2:
        raise UserError(f"pictures of {height} x {width} pixels cannot be written as a film; give even numbers")
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        cleanup_stale(folder)
        _claim(folder, films, split, container)
        rows: list[dict[str, Any]] = []
        drawn = 0
        try:
            for i in range(count):
                film_path, truth_path = folder / f"film-{i:06d}.{container}", folder / f"film-{i:06d}.npz"
                if not (film_path.exists() and truth_path.exists()):
                    film = films[i]
                    row = describe(film, films, split, i, film_path.name, truth_path.name)
                    write_film(film_path, film)
                    _write_truth(truth_path, film, row)  # last: it marks the film as done
                    drawn += 1
                else:
                    row = read_truth(truth_path).about
                rows.append(row)
                if drawn % _EVERY == 0 and drawn:
                    _write_manifest(folder, rows)
                if progress is not None:
                    progress(i + 1)
        finally:
            if rows:
                _write_manifest(folder, rows)
    return drawn


def describe(film: DrawnFilm, films: DrawnFilms, split: str, i: int, film_name: str, truth_name: str) -> dict[str, Any]:
    """One line of the manifest."""
    def entry(look, click) -> dict[str, Any]:
        point = None if click is None else [click.x, click.y, click.time]
        return {"thing": look.thing, "style": look.style, "code": look.code, "click": point}

    K = len(film.labels)
    objects = [
        {"label": label, "phrase": phrase, "recording": films.store.clips[clip].group, **entry(look, click)}
        for label, phrase, clip, look, click in
        zip(film.labels, film.phrases, film.clips, film.looks[:K], film.clicks, strict=True)
    ]  # fmt: skip
    return {"audio": film_name, "video": film_name, "split": split, "group": f"drawn {split} {films.seed} {i}",
            "seconds": film.stems.shape[1] / film.sample_rate, "captions": film.captions, "truth": truth_name,
            "alike": film.alike, "objects": objects,
            "silent": [entry(*pair) for pair in zip(film.looks[K:], film.silent_clicks, strict=True)]}  # fmt: skip


def write_film(path: str | Path, film: DrawnFilm) -> None:
    """The frames and the mixture as one film file: H.264 with FLAC (mkv, exact to the sample) or AAC (mp4)."""
    import av

    path = Path(path)
    N, _, H, W = film.frames.shape
    rate, fps = film.sample_rate, Fraction(N, 1) / Fraction(film.stems.shape[1], film.sample_rate)
    fps = fps.limit_denominator(1000)
    samples = (film.samples.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
    temporary = temporary_sibling(path)
    try:
        # Nothing random in headers, and no looking ahead, which does not give the same bits twice.
        with av.open(str(temporary), "w", options={"fflags": "+bitexact"}) as out:
            options = {"crf": "16", "preset": "veryfast", "threads": "1", "x264-params": "rc-lookahead=0"}
            video: Any = out.add_stream("libx264", rate=fps, options=options)
            video.width, video.height, video.pix_fmt = W, H, "yuv420p"
            codec = CONTAINERS[path.suffix.removeprefix(".")]
            audio: Any = out.add_stream(codec, rate=rate, layout="mono")
            done = 0
            for n in range(N):
                pixels = film.frames[n].permute(1, 2, 0).contiguous().numpy()
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                picture.pts, picture.time_base = n, 1 / fps
                out.mux(video.encode(picture))
                until = round((n + 1) * len(samples) / N)
                block = av.AudioFrame.from_ndarray(samples[None, done:until], format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = rate, done, Fraction(1, rate)
                out.mux(audio.encode(block))
                done = until
            out.mux(video.encode())
            out.mux(audio.encode())
        temporary.replace(path)
    except av.error.FFmpegError as error:
        raise OSError(error.errno or 0, shown(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_truth(path: Path, film: DrawnFilm, row: dict[str, Any]) -> None:
    temporary = temporary_sibling(path)
    try:
        with temporary.open("wb") as out:
            np.savez(
                out, times=film.times.numpy(), stems=film.stems.numpy(), loudness=film.loudness.numpy(),
                sample_rate=np.array(film.sample_rate), size=np.array(film.frames.shape[-2:]),
                masks=np.packbits(film.masks.numpy(), axis=-1),
                silent_masks=np.packbits(film.silent_masks.numpy(), axis=-1), about=np.array(json.dumps(row)),
            )  # fmt: skip
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_truth(path: str | Path) -> Truth:
    """What `write_films` stored beside a film.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as data:
            width = int(data["size"][1])
            masks, silent = (torch.from_numpy(np.unpackbits(data[name], axis=-1, count=width).astype(bool))
                             for name in ("masks", "silent_masks"))  # fmt: skip
            return Truth(torch.from_numpy(data["times"]), masks, silent, torch.from_numpy(data["stems"]),
                         torch.from_numpy(data["loudness"]), int(data["sample_rate"]), json.loads(str(data["about"])))
    except FileNotFoundError:
        raise UserError(f"{shown(path)}: no such file; draw the films again") from None
    except Exception as error:  # zip files break in many ways
        raise UserError(f"{shown(path)}: is damaged ({shown(error, 80)}); delete it and draw the films again") from None


def _claim(folder: Path, films: DrawnFilms, split: str, container: str) -> None:
    """Say what the folder holds, or refuse when it holds something else."""
    clips = repr([(clip.group, clip.label, clip.path.name) for clip in films.store.clips])
    recipe = {"recipe": dataclasses.asdict(films.recipe), "seed": films.seed, "split": split, "container": container,
              "sample_rate": films.store.sample_rate, "styles": list(films.pictures.styles),
              "pictures": films.pictures.identity(),
              "clips": hashlib.sha256(clips.encode()).hexdigest()[:16]}  # fmt: skip
    recipe = json.loads(json.dumps(recipe))  # tuples become lists, as they do when they are read
    path = folder / "recipe.json"
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = {}
        differ = [name for name in recipe if not isinstance(known, dict) or known.get(name) != recipe[name]]
        if differ:
            raise UserError(f"{shown(folder)}: holds films of other settings ({', '.join(differ)}); choose another "
                            "folder")
    else:
        if any(folder.glob("film-*")):
            raise UserError(f"{shown(folder)}: holds films of unknown settings; choose another folder")
        _write_text(path, json.dumps(recipe, indent=1) + "\n")


def _write_manifest(folder: Path, rows: list[dict[str, Any]]) -> None:
    _write_text(folder / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _write_text(path: Path, text: str) -> None:
    temporary = temporary_sibling(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or os.strerror(error.errno or 0)
        raise UserError(f"{shown(folder)}: cannot be written to ({shown(why, 80)}); choose another folder") from error
