"""Scores everything and writes both files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from judge.report.collect import Item
from judge.report.embed import Embedder, Linker, add_up
from judge.report.table import csv_text
from peav import media
from peav.errors import UserError, shown

if TYPE_CHECKING:
    from judge.score import Judge, Score

MIB = 1 << 20
EMBEDDED = 100 * MIB  # of all sounds in a page together

Advance = Callable[[float, float | None], None]


@dataclass
class Player:
    """One sound of the page."""

    role: str  # mixture, target or residual
    name: str  # of the file
    source: str | None = None  # what an <audio> plays
    picture: str | None = None  # data URI
    seconds: float = 0.0
    top_hz: float = 0.0  # upper edge of the picture
    why_silent: str = ""  # why there is no source


@dataclass
class Row:
    """One target: what is known of it."""

    item: Item
    target: str  # what to call the files
    mixture: str
    score: Score | None = None
    error: str | None = None
    curve: dict[str, Any] | None = None
    players: list[Player] = field(default_factory=list)

    @property
    def notes(self) -> Sequence[str]:
        return () if self.score is None else self.score.notes

    def value(self, name: str) -> float | None:
        """A score by name, None where it was not measured, NaN where the target is silent."""
        return None if self.score is None else self.score.to_dict()[name]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        item = self.item
        facts = {"system": item.system, "recording": item.recording, "prompt": item.prompt, "target": item.target}
        facts["mixture"] = item.mixture
        if self.score is None:
            return {**facts, "error": self.error}
        return {**facts, **self.score.to_dict(), "notes": list(self.notes)}


@dataclass
class Recording:
    """A mixture and what was cut from it."""

    name: str
    mixture: str
    rows: list[Row]
    player: Player | None = None


@dataclass
class Report:
    """What a page shows."""

    title: str
    device: str
    is_linked: bool
    recordings: list[Recording]
    csv: Path
    html: Path

    @property
    def rows(self) -> list[Row]:
        return [row for recording in self.recordings for row in recording.rows]


def write_report(
    judge: Judge,
    items: Sequence[Item],
    out: Path,
    *,
    title: str = "Separation report",
    link: bool = False,
    embedded: int = EMBEDDED,
    force: bool = False,
    progress: Advance | None = None,
) -> Report:
    """Judge every item and write ``out.csv`` and ``out.html``, both or none.

    What is wrong with one item stands in its row; the others are judged all the same.

    Args:
        out: path without an ending.
        link: let the page point at the sounds instead of holding them.
        embedded: bytes of sound that the page may hold; what does not fit is named but not heard.
        force: replace files that exist.
        progress: told how many seconds of targets are done, of how many.

    Raises:
        UserError: the files exist or cannot be written.
    """
    from judge.report.page import page_html

    csv, html = output_paths(out, force)
    source: Embedder | Linker = Linker(html) if link else Embedder(embedded)
    report = Report(title, str(judge.device), link, _recordings(items, out.parent), csv, html)
    lengths = {row.item.target: _seconds(row.item.target) for row in report.rows}
    done, total = 0.0, sum(lengths[row.item.target] for row in report.rows)
    for recording in report.recordings:
        with TemporaryDirectory(prefix="judge-") as folder:
            listener = _Listener(judge, source, recording, Path(folder))
            for row in recording.rows:
                listener.fill(row)
                done += lengths[row.item.target]
                if progress is not None:
                    progress(done, total)
    _write_both({csv: csv_text(report.rows), html: page_html(report)})
    return report


def _recordings(items: Sequence[Item], base: Path) -> list[Recording]:
    """Items by what they were cut from, in the order of their first ones."""
    groups: dict[object, Recording] = {}
    for item in items:
        mixture = "target + residual" if item.mixture is None else _name(item.mixture, base)
        group = groups.setdefault(
            (item.recording, item.mixture, item.halves), Recording(item.recording, mixture, [])
        )
        group.rows.append(Row(item, _name(item.target, base), mixture))
    return list(groups.values())


def _name(path: Path, base: Path) -> str:
    """What to call a file: without the folders that all have in common, which are nobody else's business."""
    try:
        return str(path.absolute().relative_to(base.absolute()))
    except ValueError:
        return str(path)


def output_paths(out: Path, force: bool) -> tuple[Path, Path]:
    """``out.csv`` and ``out.html``.

    Raises:
        UserError: one of them exists and ``force`` is not given, or there is no such folder.
    """
    if not out.name:
        raise UserError(f"{shown(out)}: is no name for a report; give for example {shown(out / 'report', 60)}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{shown(out)}: there is no folder {shown(out.parent, 60)}; make it first")
    paths = out.with_name(out.name + ".csv"), out.with_name(out.name + ".html")
    for path in paths:
        if path.is_dir():
            raise UserError(f"{shown(path)}: is a folder; give another --out")
        if path.exists() and not force:
            raise UserError(f"{shown(path)}: exists already; give --force to replace it, or another --out")
    return paths


def _seconds(path: Path) -> float:
    try:
        return media.probe(path).seconds or 0.0
    except UserError:  # which its row will say
        return 0.0


class _Listener:
    """Fills the rows of one recording.

    Args:
        folder: an empty one, for a mixture that has to be put together.
    """

    def __init__(self, judge: Judge, source: Embedder | Linker, recording: Recording, folder: Path) -> None:
        self._judge, self._source = judge, source
        self._top: float | None = None  # level in dB of the brightest colour
        self._mixture, self._error = Path(), ""
        first = recording.rows[0].item
        try:
            if first.mixture is not None:
                self._mixture = first.mixture
            else:
                assert first.halves is not None  # `find_items` has seen to it
                self._mixture = folder / "mixture.wav"
                add_up(*first.halves, self._mixture)
        except UserError as error:
            self._error = str(error)
            return
        recording.player = self._player("mixture", self._mixture)
        recording.player.name = Path(recording.mixture).name
        if first.mixture is None and isinstance(source, Linker):
            recording.player.source, recording.player.why_silent = None, "Put together: there is no file to point at."

    def fill(self, row: Row) -> None:
        """Scores, curve and players of a target."""
        from judge.report.curve import sampled

        files = {"target": row.item.target, "residual": row.item.residual}
        row.players = [self._player(role, path) for role, path in files.items() if path is not None]
        if self._error:
            row.error = self._error
            return
        try:
            row.score = self._judge.score(self._mixture, row.item.target, row.item.prompt)
        except UserError as error:
            row.error = str(error)
            return
        if row.score.curve is not None and bool(row.score.curve.values.isfinite().any()):
            row.curve = sampled(row.score.curve)

    def _player(self, role: str, path: Path) -> Player:
        from judge.report.picture import BANDS, COLUMNS, loudest, png_uri
        from peav.spectrogram import spectrogram

        try:
            panel = spectrogram(path, COLUMNS, BANDS)
            source = self._source.source(path)
        except UserError as error:
            return Player(role, path.name, why_silent=str(error))
        if self._top is None:  # the mixture comes first; brightness means the same in all of its pictures
            self._top = loudest(panel)
        why = "" if source else "Not in this page, which would have grown too large; make it with --link."
        picture = png_uri(panel, self._top)
        return Player(role, path.name, source, picture, panel.seconds, panel.sample_rate / 2, why)


def _write_both(texts: dict[Path, str]) -> None:
    """All files or none of them."""
    staged = {path: media.temporary_sibling(path) for path in texts}
    current = next(iter(texts))
    try:
        for path, text in texts.items():
            current = path
            staged[path].write_text(text, encoding="utf-8", newline="")
        for path in texts:
            current = path
            staged[path].replace(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(current)}: cannot be written ({why}); choose another --out") from error
    finally:
        for path in staged.values():
            path.unlink(missing_ok=True)
