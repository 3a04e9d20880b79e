"""``peav index`` and ``peav search``: the recordings of a folder by what is in them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peav import console
from peav.errors import UserError, shown

if TYPE_CHECKING:
    from peav.index import Hit, Index, Report
    from peav.index.query import Query

_NAMED = 5  # files in a summary line
Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A folder or hub id. Default: what made the index, or the packaged one."),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]


def index(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the recordings are, in it and below it.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="INDEX", help="The index, a folder. Default: <name of FOLDER>.index here."),
    ] = None,
    embed: Annotated[
        str | None,
        typer.Option("--embed", metavar="KIND", help="Of each file its audio (default), video, or audio_video."),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Also index windows of this length, so that a search tells times."),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="N", help="Look at so many pictures per second. Default: all, up to 30.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Local processes; each loads the model.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on this dask cluster, e.g. tcp://10.0.0.5:8786.")
    ] = None,
    keep_missing: Annotated[
        bool, typer.Option("--keep-missing", help="Keep what is known of files that are gone.")
    ] = False,
    moved: Annotated[
        bool, typer.Option("--moved", help="FOLDER is the folder of the index in another place.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if a file could not be read.")] = False,
    json: Json = False,
    model: Model = None,
    device: Device = "auto",
) -> int:
    """Embed all recordings below a folder into an index, or bring that up to date.

    Run it again at any time: what has not changed is not embedded again, and a run that was stopped goes on.

    peav index sounds/ --window 10 && peav search sounds.index --text "a dog barking"
    """
    console.check_device(device)
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}: is no folder; name the one with the recordings")
    out = out or Path(f"{Path(os.path.abspath(folder)).name or 'root'}.index")  # noqa: PTH100 keeps links

    from peav.index.builder import build
    from peav.index.query import model_for
    from peav.index.store import is_index, read_contents

    if is_index(out):
        model = model_for(out, read_contents(out).settings, model)
    with console.progress(folder.name or str(folder), enabled=not json) as advance:
        report = build(
            folder,
            out,
            model=model,
            device=device,
            kind=embed,
            window=window,
            fps=fps,
            workers=workers,
            scheduler=scheduler,
            keep_missing=keep_missing,
            moved=moved,
            progress=advance,
        )
    for reason in report.failed.values():
        console.complain(reason)
    if json:
        console.print_json(report.to_dict())
    else:
        for line in _summary(report):
            console.say(line)
    return console.MISTAKE if strict and report.failed else console.DONE


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that peav index has made.")],
    text: Annotated[
        str | None, typer.Option("--text", "-t", metavar="TEXT", help='What to look for, such as "a dog barking".')
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Something that sounds like this; with --text both count.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Something that looks like this; needs a model for video.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="NAME[@SECONDS]", help="Something like this file of the index, or its window at a time."),
    ] = None,
    top: Annotated[int, typer.Option("--top", "-k", min=1, metavar="K", help="How many results.")] = 10,
    score: Annotated[str, typer.Option(metavar="NAME", help="cosine, or dot, which long vectors win.")] = "cosine",
    whole: Annotated[bool, typer.Option("--whole", help="Compare whole files, also where there are windows.")] = False,
    every: Annotated[bool, typer.Option("--every", help="All near windows, not the best one of each file.")] = False,
    mean: Annotated[bool, typer.Option("--mean", help="Combine two queries by their mean, not by the model.")] = False,
    faiss: Annotated[bool, typer.Option("--faiss", help="Search approximately, as beyond a million rows.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every row, however many there are.")] = False,
    json: Json = False,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """The recordings of an index that are nearest to words, a sound, pictures, or to two of them.

    peav search sounds.index --text "rain on a roof" --audio my_roof.wav
    """
    if score not in ("cosine", "dot"):
        raise UserError(f"--score {shown(score, 40)} is unknown; choose cosine or dot")
    if faiss and exact:
        raise UserError("--faiss is approximate and --exact is not; give one of the two")
    if like is not None and (text is not None or audio is not None or video is not None):
        raise UserError("--like is a query of its own; leave --text, --audio and --video away")
    console.check_device(device)

    from peav.index import Index

    opened = Index.open(index)
    options: dict[str, Any] = {"score": score, "per_file": not every, "windows": False if whole else None}
    options["approximate"] = True if faiss else False if exact else None
    if like is not None:
        name, vector = _row(opened, like)
        how, asked = "a row of the index", name
        options["exclude"] = None if every else name
    else:
        from peav.index.query import Query

        query = Query(text, audio, video)
        vector, how = _embedded(opened, query, model, device, mean)
        asked = str(query)
    approximate = opened.uses_faiss(options["approximate"])
    with console.progress("preparing faiss", enabled=approximate and not json):  # minutes, after a change
        hits = opened.search(vector, top, **options)
    if json:
        console.print_json(
            {
                "index": index,
                "query": {"text": text, "audio": audio, "video": video, "like": like, "embedded_as": how},
                "score": score,
                "exact": not approximate,
                "results": [{**hit.to_dict(), "file": opened.file(hit.path)} for hit in hits],
            }
        )
        return
    way = "faiss, exact scores" if approximate else "exact"
    named = f" ({how})" if " " in how else ""
    console.say(f"{console.whole(index)}: {_count(opened.files, 'file')}; {score} to {asked}{named}, {way}")
    for line in _table(hits):
        console.say(line)


def _row(opened: Index, like: str) -> tuple[str, Any]:
    """Name and vector of a row."""
    name, time = like, None
    match = re.fullmatch(r"(.+)@(\d+(?:\.\d*)?)", like, re.DOTALL)
    if match is not None and not any(entry.path == like for entry in opened.entries()):
        name, time = match[1], float(match[2])
    return name, opened.vector(opened.find(name, time))


def _embedded(opened: Index, query: Query, model: str | None, device: str, mean: bool) -> tuple[Any, str]:
    import peav
    from peav import media
    from peav.frame import clip_level
    from peav.index.query import embed_query, model_for
    from peav.index.settings import check_model
    from peav.media.video import probe_video

    # What is wrong with the query is told before a model is loaded.
    if query.audio is not None:
        media.probe(query.audio)
    if query.video is not None:
        probe_video(query.video)
    name = model_for(opened.folder, opened.settings, model)
    embedder = clip_level(peav.load(name, device=device))
    check_model(opened.folder, opened.settings, embedder.identity, name)
    return embed_query(embedder, query, opened.settings, mean)


def _table(hits: list[Hit]) -> list[str]:
    if not hits:
        return ["  nothing: no file of the index has anything to hear"]
    times = ["" if hit.start is None else f"{hit.start:.1f}-{hit.end:.1f} s" for hit in hits]
    width = max(map(len, times))
    lines = []
    for hit, time in zip(hits, times, strict=True):
        when = f"  {time:>{width}}" if width else ""
        lines.append(f"  {hit.score:8.4f}{when}  {console.whole(hit.path)}")
    return lines


def _summary(report: Report) -> list[str]:
    settings = report.settings
    size = f"{_count(report.files, 'file')}, {_count(report.rows, 'row')}"
    lines = [f"{console.whole(report.index)}: {size} of {settings.kind}, model {settings.named}, on {report.device}"]
    done = {"added": report.added, "changed": report.changed, "known by their content": report.reused}
    counts = [f"{len(paths)} {what}" for what, paths in done.items() if paths]
    lines.append(f"  {', '.join([*counts, f'{report.unchanged} unchanged'])}")
    told = {
        "gone or unreadable, dropped": report.removed,
        "gone or unreadable, kept": report.missing,
        "silent, nothing to embed": report.silent,
        "could not be read and are left out": list(report.failed),
    }
    for what, paths in told.items():
        if paths:
            names = ", ".join(shown(path, 60) for path in paths[:_NAMED]) + (", ..." if len(paths) > _NAMED else "")
            lines.append(f"  {len(paths)} {what}: {names}")
    if report.mended:
        lines.append(f"  {_count(report.mended, 'damaged shard')} made again")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
