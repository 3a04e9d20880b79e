"""Figures as a table, as JSON and as Markdown, with the published ones beside them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, shown
from .figures import Figure
from .published import Published, published, variant_of
from .run import Outcome
from .sets import EvaluationSet

# The metric whose published value is shown; of the others none was published.
_HEADLINE = {"retrieval": "R@1", "classification": "top-1", "frames": "AUROC"}
_AS_FRACTION = ("AUROC", "AUROC, class mean")  # as it is published
_AS_NUMBER = ("median rank",)


@dataclass(frozen=True)
class Report:
    """An evaluation and what it was made with. ``facts`` go into the JSON and above the tables."""

    what: EvaluationSet
    outcome: Outcome
    model: str | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def published(self, figure: Figure) -> list[Published]:
        """Of the evaluated model if it is a published one, else of all of them."""
        metric = _HEADLINE[figure.task]
        return published(self.what.name, figure.task, figure.name, metric, variant_of(self.model))

    def tables(self) -> list[tuple[str, list[list[str]]]]:
        """Per task a title, and rows of cells of which the first is the header."""
        found = []
        for task in dict.fromkeys(figure.task for figure in self.outcome.figures):
            figures = [figure for figure in self.outcome.figures if figure.task == task]
            metrics = list(dict.fromkeys(name for figure in figures for name in figure.values))
            counts = list(dict.fromkeys(name for figure in figures for name in figure.counts))
            beside = any(self.published(figure) for figure in figures)
            header = [task, *metrics, *([f"published {_HEADLINE[task]}"] if beside else []), *counts]
            rows = [header]
            for figure in figures:
                cells = [shown(figure.name, 60)]
                cells += [written(name, figure.values.get(name)) for name in metrics]
                if beside:
                    cells.append(_beside(self.published(figure), _HEADLINE[task]))
                cells += [str(figure.counts.get(name, "")) for name in counts]
                rows.append(cells)
            found.append((task, rows))
        return found

    def notes(self) -> list[str]:
        """What a reader has to know."""
        lines = []
        if any(figure.task == "retrieval" for figure in self.outcome.figures):
            lines.append(f"right answers: {_RULES[self.outcome.match]}; ties count as drawn by lot")
            if self.facts.get("dual softmax"):
                lines.append("retrieval by the dual softmax, which needs all queries at once: not what a search finds")
        lines += [f"{count} items {why} and are left out" for why, count in self.outcome.left_out.items()]
        items = self.facts.get("items")
        if self.what.items and items is not None and items != self.what.items:
            lines.append(
                f"{items} items; the published figures are of {self.what.items}, and with fewer retrieval is easier"
                if items < self.what.items
                else f"{items} items; the published figures are of {self.what.items}"
            )
        if sources := {one.source for figure in self.outcome.figures for one in self.published(figure)}:
            lines += [f"published: {source}" for source in sorted(sources)]
        if self.what.notes:
            lines.append(self.what.notes)
        return lines

    def as_json(self) -> dict[str, Any]:
        """Everything, for a program."""
        return {
            "set": self.what.name,
            "title": self.what.title,
            "model": self.model,
            **self.facts,
            "match": self.outcome.match,
            "left_out": self.outcome.left_out,
            "figures": [
                {
                    "task": figure.task,
                    "name": figure.name,
                    **{name: None if math.isnan(value) else value for name, value in figure.values.items()},
                    **figure.counts,
                    "published": [
                        {"model": one.model, "metric": _HEADLINE[figure.task], "value": one.value, "source": one.source}
                        for one in self.published(figure)
                    ],
                }
                for figure in self.outcome.figures
            ],
            "notes": self.notes(),
        }

    def as_markdown(self) -> str:
        """The tables for a document."""
        lines = [f"# {self.what.title or self.what.name}", ""]
        lines += [f"- {name}: {value}" for name, value in {"model": self.model, **self.facts}.items() if value]
        for _, rows in self.tables():
            cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            lines += ["", f"| {' | '.join(cells[0])} |", f"| --- |{' ---: |' * (len(cells[0]) - 1)}"]
            lines += [f"| {' | '.join(row)} |" for row in cells[1:]]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes()), ""])

    def as_lines(self) -> list[str]:
        """The tables for a terminal."""
        lines: list[str] = []
        for _, rows in self.tables():
            widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
            lines += [_aligned(row, widths) for row in rows] + [""]
        return [*lines, *self.notes()]


_RULES = {
    "item": "the query's own item",
    "text": "items described in the same words",
    "label": "items of the same class, or one that cannot be told apart by name",
}


def written(metric: str, value: float | None) -> str:
    """A figure as tables show it: shares in percent, ranks and areas as they are."""
    if value is None or math.isnan(value):
        return "-"
    if metric in _AS_FRACTION:
        return f"{value:.3f}"
    return f"{value:.1f}" if metric in _AS_NUMBER else f"{100 * value:.1f}"


def write(report: Report, path: str | os.PathLike) -> list[Path]:
    """Write ``FILE.json`` and beside it ``FILE.md``, each in one step; returns both paths.

    Raises:
        UserError: one cannot be written.
    """
    path = Path(path)
    texts = {path: json.dumps(report.as_json(), indent=2) + "\n", path.with_suffix(".md"): report.as_markdown()}
    for file, text in texts.items():
        _write(file, text)
    return list(texts)


def check_out(path: str | os.PathLike, force: bool) -> None:
    """Refuse what `write` could not write, before anything is computed.

    Raises:
        UserError: the name does not end in .json, the folder is missing, or a file exists and is to be kept.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise UserError(f"{shown(path)}: figures are written as .json and .md; name it {shown(path.stem, 60)}.json")
    if not path.parent.is_dir():
        raise UserError(f"{shown(path)}: there is no folder {shown(path.parent, 60)}; make it first")
    for file in (path, path.with_suffix(".md")):
        if os.path.lexists(file) and not force:
            raise UserError(f"{shown(file)}: exists already; give --force to replace it, or another name")


def _write(path: Path, text: str) -> None:
    from ..media import temporary_sibling

    temporary = temporary_sibling(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(path)}: cannot be written ({why}); choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def _beside(found: Sequence[Published], metric: str) -> str:
    """One figure, or of several models those that look at all frames, by size; the others are in the JSON."""
    if len(found) == 1 and found[0].model.endswith("-16-frame"):
        return written(metric, found[0].value)
    shown_ones = [one for one in found if not one.model.endswith("-16-frame")]
    sized = [f"{written(metric, one.value)} {one.model.rsplit('-', 1)[-1]}" for one in shown_ones]
    return " / ".join(sized) or "-"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [f"{row[0]:<{widths[0]}}"] + [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join(cells).rstrip()
