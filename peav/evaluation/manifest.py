"""What is evaluated on: a JSONL manifest, one item per line.

======== ==============================================================================================
path     the file, relative to the manifest; a video counts as audio and video
audio    instead of ``path``, or beside it: the file with the sound
video    instead of ``path``, or beside it: the file with the pictures
captions texts that describe the item (or ``caption``, one); or by what they describe: ``{"audio": [...],
         "video": [...], "audio_video": [...]}``
labels   its classes (or ``label``, one)
events   what sounds when: ``[{"label": ..., "start": seconds, "end": seconds}, ...]``, empty for nothing
start    seconds; only what follows counts, if the file is longer than the item
end      seconds of the file; or ``seconds``, the length from ``start`` on
split    kept apart by ``--split``
id       a name for messages; by default that of the file
======== ==============================================================================================

Everything but a file is optional, and further fields are ignored; so the training manifests of `peav.clips` and
`peav.films` are such manifests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import UserError, shown

KINDS = ("audio", "video", "audio_video")  # what captions may describe
VIDEO = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".3gp", ".wmv"})


@dataclass(frozen=True)
class Event:
    """Something that sounds from ``start`` to ``end``, in seconds of the item."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Item:
    """One clip: its files and what is known of it.

    ``captions`` describe all of it, ``captions_of`` its "audio", "video" or "audio_video". ``events`` is None where
    nothing is said of times.
    """

    id: str
    audio: Path | None = None
    video: Path | None = None
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    events: tuple[Event, ...] | None = None
    start: float = 0.0  # seconds
    end: float | None = None  # seconds
    split: str | None = None
    captions_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def texts(self, kind: str) -> tuple[str, ...]:
        """The captions of its "audio", "video" or "audio_video"; those of the whole item describe each."""
        return self.captions_of.get(kind, ()) if self.captions_of else self.captions

    @property
    def files(self) -> tuple[Path, ...]:
        """Its one or two files."""
        return tuple(dict.fromkeys(path for path in (self.audio, self.video) if path is not None))


def with_file(item: Item, path: Path) -> Item:
    """The item with ``path`` for its sound, and for its pictures if it is a video."""
    return replace(item, audio=path, video=path if path.suffix.lower() in VIDEO else None)


def read(path: str | os.PathLike, split: str | None = None) -> list[Item]:
    """Items of a manifest, optionally of one split only.

    Raises:
        UserError: the file is missing, a line is not JSON, a field has the wrong type, or nothing is left; the
            message names file, line and field.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{shown(path)}: no such manifest; give a JSONL file, one item per line, or --set") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(path)}: cannot be read ({shown(error, 60)}); give a JSONL file in UTF-8") from None
    items, splits = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        item = _item(line, f"{shown(path)}:{number}", path.parent)
        splits.add(item.split)
        if split in (None, item.split):
            items.append(item)
    if not items:
        if splits:
            known = ", ".join(sorted(shown(name, 40) for name in splits if name is not None)) or "none"
            raise UserError(f"{shown(path)}: no item of split '{shown(split, 40)}'; its splits are: {known}")
        raise UserError(f"{shown(path)}: is empty; give a JSONL file, one item per line")
    return items


def write(items: Iterable[Item], path: str | os.PathLike) -> None:
    """Write a manifest in one step, files relative to its folder where they lie below it."""
    from ..media import temporary_sibling

    path = Path(path)
    temporary = temporary_sibling(path)
    try:
        text = "".join(json.dumps(_row(item, path.parent), ensure_ascii=False) + "\n" for item in items)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(path)}: cannot be written ({why}); choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def present(items: Sequence[Item], allow_missing: bool = False) -> list[Item]:
    """The items whose files are all there.

    Raises:
        UserError: some are not and ``allow_missing`` is False, or none are.
    """
    gone = {path for item in items for path in item.files if not path.is_file()}
    kept = [item for item in items if gone.isdisjoint(item.files)]
    if gone and not (allow_missing and kept):
        first = shown(min(gone))
        way = "check the folder" if not kept else "fetch them, or give --allow-missing to do without"
        raise UserError(
            f"{len(items) - len(kept)} of {len(items)} items have no file, such as {first}; {way}"
        )
    return kept


def thin(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most ``limit`` items, evenly spread over the manifest."""
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise UserError(f"--limit {limit}: give 1 or more")
    return [items[i * len(items) // limit] for i in range(limit)]


def _item(line: str, where: str, folder: Path) -> Item:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error.msg}); give one object per line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is no object with fields; give one object per line")
    files = {name: _text(row, name, where) for name in ("path", "audio", "video")}
    if not any(files.values()):
        raise UserError(f"{where} names no file; give path, audio or video")
    item = Item(
        id=_text(row, "id", where) or next(name for name in files.values() if name),
        captions=() if isinstance(row.get("captions"), dict) else _texts(row, "captions", "caption", where),
        labels=_texts(row, "labels", "label", where),
        events=_events(row, where),
        start=_seconds(row, "start", where) or 0.0,
        end=_seconds(row, "end", where),
        split=_text(row, "split", where),
        captions_of=_captions_of(row, where),
    )
    if item.end is None and (length := _seconds(row, "seconds", where)):
        item = replace(item, end=item.start + length)
    if item.end is not None and item.end <= item.start:
        raise UserError(f"{where} ends at {item.end:g} s, before it starts at {item.start:g} s; exchange them")
    if files["path"]:
        item = with_file(item, folder / files["path"])
    own = {name: folder / file for name in ("audio", "video") if (file := files[name])}
    return replace(item, **own)  # type: ignore[arg-type]


def _text(row: dict[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise UserError(f"{where} field '{name}' is {shown(repr(value), 60)}; give a text that is not empty")
    return value


def _texts(row: dict[str, Any], many: str, one: str, where: str) -> tuple[str, ...]:
    if row.get(many) is None:
        value = _text(row, one, where)
        return () if value is None else (value.strip(),)
    values = row[many]
    if not isinstance(values, list) or not all(isinstance(text, str) and text.strip() for text in values):
        raise UserError(f"{where} field '{many}' is {shown(repr(values), 60)}; give a list of texts")
    return tuple(dict.fromkeys(text.strip() for text in values))


def _captions_of(row: dict[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    given = row.get("captions")
    if not isinstance(given, dict):
        return {}
    if unknown := sorted(set(given) - set(KINDS)):
        raise UserError(f"{where} has captions of '{shown(unknown[0], 40)}'; give those of {', '.join(KINDS)}")
    found = {kind: _texts(given, kind, "", where) for kind in KINDS}
    return {kind: texts for kind, texts in found.items() if texts}


def _seconds(row: dict[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise UserError(f"{where} field '{name}' is {shown(repr(value), 60)}; give seconds from 0 on")
    return float(value)


def _events(row: dict[str, Any], where: str) -> tuple[Event, ...] | None:
    rows = row.get("events")
    if rows is None:
        return None
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise UserError(f"{where} field 'events' is {shown(repr(rows), 60)}; give a list of objects")
    events = []
    for one in rows:
        label, start, end = _text(one, "label", where), _seconds(one, "start", where), _seconds(one, "end", where)
        if label is None or start is None or end is None or end <= start:
            raise UserError(f"{where} event {shown(json.dumps(one), 60)}; give label, start and a later end")
        events.append(Event(label, start, end))
    return tuple(events)


def _row(item: Item, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": item.id}
    if item.audio is not None and (item.video is None) == (item.audio.suffix.lower() not in VIDEO) and (
        item.video in (None, item.audio)
    ):
        row["path"] = _relative(item.audio, folder)
    else:
        row |= {name: _relative(file, folder) for name in ("audio", "video") if (file := getattr(item, name))}
    if item.captions_of:
        row["captions"] = {kind: list(texts) for kind, texts in item.captions_of.items()}
    elif item.captions:
        row["captions"] = list(item.captions)
    if item.labels:
        row["labels"] = list(item.labels)
    if item.events is not None:
        row["events"] = [vars(event) for event in item.events]
    if item.start:
        row["start"] = item.start
    if item.end is not None:
        row["end"] = item.end
    if item.split is not None:
        row["split"] = item.split
    return row


def _relative(path: Path, folder: Path) -> str:
    path, folder = path.absolute(), folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
