"""``judge report``: a folder of separations as one table and one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peav import console
from peav.console import Device, Json
from peav.errors import UserError, shown

if TYPE_CHECKING:
    from judge.report import Report


def register(app: typer.Typer) -> None:
    """Add the command to ``judge``."""
    app.command()(report)


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What a separator wrote: FOLDER/recording/prompt.wav.")
    ],
    mixture: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="A recording that was separated, or a folder of them. Not needed where target and residual are there, "
            "or with FOLDER/manifest.jsonl.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", "-p", metavar="NAME=WORDS", help='Words for a file name: --prompt vocals="singing voice"'
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="PATH", help="Writes PATH.html and PATH.csv. [FOLDER/report]")
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Of the page.")] = "Separation report",
    link: Annotated[
        bool, typer.Option("--link", help="Point at the sounds instead of putting them into the page.")
    ] = False,
    max_mb: Annotated[float, typer.Option(metavar="MIB", help="Of sound in the page, at most.")] = 100,
    force: Annotated[bool, typer.Option("--force", help="Replace a report that exists.")] = False,
    json: Json = False,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A folder or a hub id. Default: the one in the package.")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Measures similarity. Default: the one in the package.")
    ] = None,
    device: Device = "auto",
) -> int:
    """Judge a folder of separations: a CSV and one HTML page to read and to listen to."""
    from judge.report import find_items, write_report
    from judge.report.make import MIB, output_paths

    if not 0 <= max_mb <= 4096:
        raise UserError(f"--max-mb is {max_mb:g}; give 0 to 4096, or --link for sounds outside of the page")
    items = find_items(folder, mixture or [], _words(prompt or []))
    place = _without_ending(out) if out is not None else folder / "report"
    output_paths(place, force)
    console.check_device(device)
    import judge as package

    judge = package.load(model, device=device, embedder=embedder)
    with console.progress(folder.name or "report", enabled=not json) as advance:
        done = write_report(
            judge, items, place, title=title, link=link, embedded=round(max_mb * MIB), force=force, progress=advance
        )
    return _tell(done, json)


def _words(given: Sequence[str]) -> dict[str, str]:
    words = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not (equals and name.strip() and text.strip()):
            raise UserError(f"--prompt is '{shown(item, 60)}'; give NAME=WORDS, for example vocals=\"singing voice\"")
        words[name.strip()] = text.strip()
    return words


def _without_ending(out: Path) -> Path:
    return out.with_suffix("") if out.suffix.lower() in (".html", ".csv") else out


def _tell(report: Report, json: bool) -> int:
    failed = [row for row in report.rows if row.error is not None]
    for error in dict.fromkeys(row.error for row in failed):
        console.complain(str(error))
    if json:
        rows = [row.to_dict() for row in report.rows]
        console.print_json({"rows": rows, "html": report.html, "csv": report.csv, "device": report.device})
    else:
        judged = len(report.rows) - len(failed)
        console.say(f"{judged} of {len(report.rows)} targets judged on {report.device}")
        console.say(f"  {console.whole(report.html)}")
        console.say(f"  {console.whole(report.csv)}")
    return console.MISTAKE if failed else console.DONE
