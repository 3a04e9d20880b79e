"""The CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from judge.report.make import Row

SCORES = ("overall", "recall", "precision", "faithfulness", "similarity", "presence")
COLUMNS = ("system", "recording", "prompt", "target", "mixture", *SCORES, "notes", "error")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Sequence[Row]) -> str:
    """One line per target; what was not measured is empty.

    Texts that a spreadsheet would take for a formula get an apostrophe in front, which it does not show.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for row in rows:
        item = row.item
        texts = (item.system, item.recording, item.prompt, row.target, row.mixture)
        writer.writerow(
            [
                *map(_cell, texts),
                *(format_number(row.value(name), 4) for name in SCORES),
                _cell("; ".join(row.notes)),
                _cell(row.error or ""),
            ]
        )
    return buffer.getvalue()


def printable(value: object) -> str:
    """Text without the undecodable bytes of foreign file names, and without line breaks."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def format_number(value: float | None, digits: int) -> str:
    """Empty for what is not known."""
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _cell(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
