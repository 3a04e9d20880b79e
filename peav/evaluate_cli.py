"""``peav evaluate``: figures of a model on a manifest or a public set."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peav import console
from peav.errors import UserError, shown

if TYPE_CHECKING:
    from peav.evaluation.manifest import Item
    from peav.evaluation.sets import EvaluationSet


def evaluate(
    manifest: Annotated[
        Path | None, typer.Argument(metavar="MANIFEST.jsonl", help="What to evaluate on, one item per line.")
    ] = None,
    set_name: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="A public set instead; see --list.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the set lies, as its makers distribute it.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Name the public sets and their sources, and stop.")] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A folder or a hub id. Default: the model in the package."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="retrieval, classification or frames. Repeatable. Default: all possible."),
    ] = None,
    direction: Annotated[
        list[str] | None,
        typer.Option(metavar="A->B", help='Of retrieval, such as "text->audio". Repeatable. Default: all possible.'),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="Which answers are right: item, text (same words) or label (same class)."),
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Only items of this split.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most N items, evenly spread.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out items whose files are missing or cannot be read.")
    ] = False,
    cosine: Annotated[bool, typer.Option("--cosine", help="Compare by cosine instead of dot product.")] = False,
    dsl: Annotated[bool, typer.Option("--dsl", help="Use the dual softmax in retrieval.")] = False,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="T", help="Of the dual softmax. Default: the model's own scale, for cosines 100."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="P", help="Probability above which a frame is on. Default: the model's own.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="N", help="Look at no more than N pictures a second. Default: all.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep embeddings there, so that a second run is quick.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Write the figures there, and to FILE.md.")
    ] = None,
    write_manifest: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write the items as a manifest, and stop.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """How good a model is: R@1, R@5, R@10 and median rank in every direction, accuracy, AUROC.

    Published figures of PE-AV stand beside, where there are some for the same set. Nothing is downloaded.
    """
    if show:
        _list(json)
        return
    what, items = _items(manifest, set_name, data, split, match)
    _check(task or [], direction or [], dsl, temperature, threshold, fps)
    if write_manifest is not None:
        _write_manifest(items, write_manifest, force)
        return
    from peav.evaluation import report as reports
    from peav.evaluation.manifest import present, thin
    from peav.evaluation.run import Options
    from peav.evaluation.run import evaluate as run

    if out is not None:
        reports.check_out(out, force)
    console.check_device(device)
    items = thin(present(items, allow_missing), limit)

    import peav

    loaded = peav.load(model, device=device)
    options = Options(
        tasks=tuple(task or ()), directions=tuple(direction or ()), cosine=cosine, dual=dsl, temperature=temperature,
        threshold=threshold, cache=cache, fps=fps, lenient=allow_missing,
    )  # fmt: skip
    outcome = run(loaded, items, what, options, track=_track(not json))
    facts: dict[str, Any] = {
        "manifest": None if manifest is None else str(manifest),
        "split": split or what.split or None,
        "items": len(items),
        "limit": limit,
        "identity": outcome.identity,
        "device": str(loaded.device),
        "similarity": "cosine" if cosine else "dot product",
        "dual softmax": dsl,
    }
    report = reports.Report(what, outcome, model, facts)
    written = [] if out is None else reports.write(report, out)
    if json:
        console.print_json(report.as_json())
        return
    console.say(f"{shown(what.title, 90)}, {len(items)} items, {outcome.identity} on {loaded.device}")
    for line in ["", *report.as_lines()]:
        console.say(line)
    for path in written:
        console.say(console.whole(path))


def _items(
    manifest: Path | None, name: str | None, data: Path | None, split: str | None, match: str | None
) -> tuple[EvaluationSet, list[Item]]:
    from dataclasses import replace

    from peav.evaluation import converters, sets
    from peav.evaluation.folder import Folder
    from peav.evaluation.manifest import read

    if match not in (None, *sets.MATCHES):
        raise UserError(f"--match {shown(match, 40)} is unknown; choose {', '.join(sets.MATCHES)}")
    if (manifest is None) == (name is None):
        raise UserError("give either a manifest, or --set NAME with --data FOLDER; --list names the sets")
    if name is None:
        if data is not None:
            raise UserError("--data belongs to --set; a manifest names its files itself")
        assert manifest is not None
        items, what = read(manifest, split), sets.EvaluationSet(name=manifest.stem, title=manifest.name)
    else:
        what = sets.load_set(name)
        if data is None:
            raise UserError(f"--set {name} needs --data FOLDER with {what.title}. {what.where}")
        items = converters.items_of(what, Folder(data), split)
    return (what if match is None else replace(what, match=match)), items


def _check(
    tasks: Sequence[str],
    directions: Sequence[str],
    dsl: bool,
    temperature: float | None,
    threshold: float | None,
    fps: float | None,
) -> None:
    from peav.evaluation.sets import DIRECTIONS, TASKS

    for what, given, known in (("task", tasks, TASKS), ("direction", directions, DIRECTIONS)):
        if unknown := [name for name in given if name not in known]:
            raise UserError(f"--{what} {shown(unknown[0], 40)} is unknown; choose {', '.join(known)}")
    if temperature is not None and (not dsl or not 0 < temperature < float("inf")):
        raise UserError(f"--temperature {temperature:g} belongs to --dsl and is above 0")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold:g} is a probability; give 0 to 1")
    if fps is not None and not 0 < fps < float("inf"):
        raise UserError(f"--fps {fps:g}: give more than 0 pictures a second")


def _list(json: bool) -> None:
    from peav.evaluation.sets import known_sets, load_set

    known = [load_set(name) for name in known_sets()]
    if json:
        fields = ("name", "title", "split", "items", "tasks", "directions", "licence", "where", "notes")
        console.print_json([{name: getattr(one, name) for name in fields} for one in known])
        return
    width = max(len(one.name) for one in known)
    for one in known:
        console.say(f"{one.name:{width}}  {one.title}: {', '.join(one.tasks)}. {one.where}")


def _write_manifest(items: Sequence[Item], path: Path, force: bool) -> None:
    import os

    from peav.evaluation.manifest import write

    if os.path.lexists(path) and not force:
        raise UserError(f"{shown(path)}: exists already; give --force to replace it, or another name")
    write(items, path)
    console.say(f"{console.whole(path)}: {len(items)} items")


def _track(enabled: bool) -> Any:
    """A bar on stderr that vanishes, where stderr is a terminal."""

    def track(things: Sequence[Any], title: str) -> Iterator[Any]:
        if not enabled or not sys.stderr.isatty() or len(things) < 2:
            return iter(things)
        from rich.console import Console
        from rich.progress import track as bar

        return iter(bar(things, title, total=len(things), console=Console(stderr=True), transient=True))

    return track
