"""From a public set's own metadata to items, one function for each way of writing them down."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError, shown
from .folder import Folder
from .manifest import Event, Item
from .sets import EvaluationSet

Row = dict[str, str]


def items_of(what: EvaluationSet, folder: Folder, split: str | None = None) -> list[Item]:
    """The items of a set as distributed in ``folder``.

    Raises:
        UserError: the metadata are missing or written in another way, or hold nothing of the split.
    """
    split = split or what.split
    items = list(FORMATS[what.format](what, folder, split))
    if not items:
        raise UserError(f"{shown(folder.path)}: nothing of split '{shown(split, 40)}' of {what.title} in it")
    return items


def _audiocaps(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """csv: audiocap_id, youtube_id, start_time, caption; one row per caption."""
    clips: dict[tuple[str, int], list[str]] = {}
    path = _metadata(what, folder, split)
    for where, row in _table(path, ("youtube_id", "start_time", "caption")):
        key = row["youtube_id"].strip(), _whole(row["start_time"], where)
        clips.setdefault(key, []).append(row["caption"].strip())
    for (video, start), captions in clips.items():
        item = Item(f"{video}_{start}", captions=tuple(captions), split=split)
        yield folder.placed(item, _stems(what, id=video, start=start, end=start + 10))


def _clotho(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """csv: file_name, caption_1 to caption_5."""
    columns = [f"caption_{i}" for i in range(1, 6)]
    for _, row in _table(_metadata(what, folder, split), ("file_name", *columns)):
        name = row["file_name"]
        captions = tuple(row[column].strip() for column in columns if row[column].strip())
        # The file names of this set hold blanks at places where unpackers drop them.
        yield folder.placed(Item(name, captions=captions, split=split), [Path(name).stem, Path(name.strip()).stem])


def _valor(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """json: a list of objects with video_id (``<youtube id>_<start>_<end>``) and desc, a text or several."""
    path = _metadata(what, folder, split)
    rows = _json(path)
    if not isinstance(rows, list):
        raise _strange(path, "a list of objects with video_id and desc")
    for row in rows:
        text = row.get("desc", row.get("caption")) if isinstance(row, dict) else None
        if not text or not isinstance(row.get("video_id"), str):
            raise _strange(path, "objects with video_id and desc")
        whole = row["video_id"]
        texts = tuple(text) if isinstance(text, list) else (text,)
        parts = whole.rsplit("_", 2)
        stems = _stems(what, whole=whole, id=parts[0])
        yield folder.placed(Item(whole, captions=texts, split=split), stems, ".mp4")


def _vggsound(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """csv without a header: youtube id, start in seconds, label, split."""
    path = _metadata(what, folder, split)
    for number, row in enumerate(_lines(path, ","), 1):
        if len(row) != 4:
            raise _strange(f"{shown(path)}:{number}", "youtube id, start, label and split in each line")
        video, start, label, own = (cell.strip() for cell in row)
        if own == split:
            at = _whole(start, f"{shown(path)}:{number}")
            item = Item(f"{video}_{at}", labels=(label,), split=split)
            yield folder.placed(item, _stems(what, id=video, start=at, end=at + 10), ".mp4")


def _vctk(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """txt/<speaker>/<speaker>_<number>.txt beside the recordings, which carry the same name and maybe a microphone."""
    texts = {path.stem: path for path in folder.files if path.suffix == ".txt" and "txt" in path.parts}
    for sound in folder.audio_files():
        name, _, microphone = sound.stem.partition("_mic")
        # Recordings without a transcript (p315) are known gaps of the set, and of two microphones one is enough.
        if name in texts and microphone in ("", "1"):
            words = texts[name].read_text(encoding="utf-8", errors="replace").strip()
            if words:
                yield Item(sound.stem, audio=sound, captions=(words,), split=split)


def _activitynet(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """json: video id to duration, timestamps and sentences; all sentences together describe the video."""
    path = _metadata(what, folder, split)
    rows = _json(path)
    if not isinstance(rows, dict):
        raise _strange(path, "an object of videos with their sentences")
    for video, row in rows.items():
        sentences = row.get("sentences") if isinstance(row, dict) else None
        if not isinstance(sentences, list):
            raise _strange(path, "videos with a list of sentences")
        text = " ".join(sentence.strip() for sentence in sentences)
        stems = [video, video.removeprefix("v_")]
        yield folder.placed(Item(video, captions=(text,), split=split), stems, ".mp4")


def _kinetics(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """csv: label, youtube_id, time_start, time_end, split and maybe more."""
    path = _metadata(what, folder, split)
    for where, row in _table(path, ("label", "youtube_id", "time_start", "time_end")):
        video, start, end = row["youtube_id"].strip(), _whole(row["time_start"], where), _whole(row["time_end"], where)
        item = Item(f"{video}_{start}", labels=(row["label"].strip(),), split=split)
        yield folder.placed(item, _stems(what, id=video, start=start, end=end), ".mp4")


def _desed(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """tsv: filename, onset, offset, event_label; one row per event, an empty one where nothing sounds."""
    clips: dict[str, list[Event]] = {}
    path = _metadata(what, folder, split)
    for where, row in _table(path, ("filename", "onset", "offset", "event_label"), "\t"):
        events = clips.setdefault(row["filename"], [])
        if row["onset"].strip() and (start := _number(row["onset"], where)) == start:  # NaN stands for nothing
            _append(events, row["event_label"], start, _number(row["offset"], where), where)
    for name, events in clips.items():
        labels = tuple(dict.fromkeys(event.label for event in events))
        item = Item(name, labels=labels, events=tuple(events), split=split)
        yield folder.placed(item, [Path(name).stem])


def _urbansed(what: EvaluationSet, folder: Folder, split: str) -> Iterator[Item]:
    """annotations/<split>/*.txt, tab-separated without a header: start, end, label."""
    for path in folder.files:
        if path.suffix != ".txt" or path.parts[-3:-1] != ("annotations", split):
            continue
        events: list[Event] = []
        for number, row in enumerate(_lines(path, "\t"), 1):
            where = f"{shown(path)}:{number}"
            if len(row) != 3:
                raise _strange(where, "start, end and label in each line, with tabs between")
            _append(events, row[2], _number(row[0], where), _number(row[1], where), where)
        labels = tuple(dict.fromkeys(event.label for event in events))
        yield folder.placed(Item(path.stem, labels=labels, events=tuple(events), split=split), [path.stem])


FORMATS: dict[str, Callable[[EvaluationSet, Folder, str], Iterator[Item]]] = {
    "audiocaps": _audiocaps,
    "clotho": _clotho,
    "valor": _valor,
    "vggsound": _vggsound,
    "vctk": _vctk,
    "activitynet": _activitynet,
    "kinetics": _kinetics,
    "desed": _desed,
    "urbansed": _urbansed,
}


def _metadata(what: EvaluationSet, folder: Folder, split: str) -> Path:
    return folder.metadata([name.replace("{split}", split) for name in what.metadata])


def _stems(what: EvaluationSet, **values: str | int) -> list[str]:
    return [stem.format(**values) for stem in what.stems]


def _table(path: Path, columns: tuple[str, ...], separator: str = ",") -> Iterator[tuple[str, Row]]:
    """Rows of a table with a header, each with its place for messages."""
    lines = _lines(path, separator)
    header = [name.strip() for name in next(lines, [])]
    if missing := [name for name in columns if name not in header]:
        raise _strange(path, f"the columns {', '.join(columns)}; there is no {missing[0]}")
    for number, cells in enumerate(lines, 2):
        if len(cells) < len(header):
            cells += [""] * (len(header) - len(cells))  # tables drop empty cells at the end of a line
        yield f"{shown(path)}:{number}", dict(zip(header, cells, strict=False))


def _lines(path: Path, separator: str) -> Iterator[list[str]]:
    """Cells of every line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from (row for row in csv.reader(file, delimiter=separator) if any(cell.strip() for cell in row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{shown(path)}: cannot be read ({shown(error, 60)}); fetch it again") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(path)}: cannot be read ({shown(error, 60)}); fetch it again") from None


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _strange(where, f"numbers, not '{shown(text, 40)}'") from None


def _whole(text: str, where: str) -> int:
    value = _number(text, where)
    if not math.isfinite(value):
        raise _strange(where, f"seconds, not '{shown(text, 40)}'")
    return round(value)


def _append(events: list[Event], label: str, start: float, end: float, where: str) -> None:
    if not 0 <= start < end < math.inf:
        raise _strange(where, f"an event that starts before it ends, not {start:g} to {end:g} s")
    events.append(Event(label.strip(), start, end))


def _strange(where: object, expected: str) -> UserError:
    return UserError(f"{shown(where)}: is not written as this set's metadata are; expected {expected}")
