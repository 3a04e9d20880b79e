"""Tables of measurements inside of hand-written pages."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column is aligned left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        ValueError: the page has no such place.
    """
    marks = f"<!-- {name} -->", f"<!-- /{name} -->"
    place = re.compile(f"{re.escape(marks[0])}\n.*?{re.escape(marks[1])}", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    new, found = place.subn(lambda match: f"{marks[0]}\n{text.strip()}\n{marks[1]}", old)
    if found != 1:
        raise ValueError(f"{page} holds {found} places for {name}; it needs one between {marks[0]} and {marks[1]}")
    page.write_text(new, encoding="utf-8")


def machine(threads: int) -> str:
    """Where it was measured, for the line above a table."""
    try:
        models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        models = []
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"
