"""The ``judge`` command: scores and rankings of separated sounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge import report_cli, serve_cli
from peav import console
from peav.console import Device, Json
from peav.errors import UserError

if TYPE_CHECKING:
    from judge.prompts import Prompt
    from judge.score import Judge, RankWeights, Score

NO_NETWORK = "overall, recall, precision and faithfulness need a judge network; none is installed, so give --model"
MEANINGS = {
    "overall": "how good the separation is, 1 to 5",
    "recall": "how much of the sound is there, 1 to 5",
    "precision": "how little else is there, 1 to 5",
    "faithfulness": "how much it sounds as it did in the mixture, 1 to 5",
    "similarity": "how near it lies to the prompt, -1 to 1",
    "presence": "probability that the mixture holds the sound",
}

app = typer.Typer(
    name="judge",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Mixture = Annotated[Path, typer.Argument(metavar="MIXTURE", help="The recording that was separated.")]
Example = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Instead of words: another recording of the sound. Similarity alone."),
]
Video = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Instead of words: a film that shows it. Similarity alone; needs --embedder."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="A folder or a hub id, e.g. facebook/sam-audio-judge. Default: the one in the package."
    ),
]
Embedder = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Measures similarity, e.g. facebook/pe-av-small. Default: the one in the package."
    ),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``judge``; returns the exit code."""
    return console.run(app, "judge", arguments)


@app.callback()
def group(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=console.show_version, help="Print the version."),
    ] = False,
) -> None:
    """How well did a separation go? No true stem is needed: the mixture, what was separated and the prompt are enough.

    Overall, recall (all of the sound is there), precision (nothing else is) and faithfulness (it sounds as it did in
    the mixture) go from 1 to 5; similarity is the cosine between target and prompt; presence says whether the mixture
    holds the sound at all.
    """


@app.command()
def score(
    mixture: Mixture,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="What was separated from it.")],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="The words that the target should answer to.")
    ] = None,
    example: Example = None,
    video: Video = None,
    json: Json = False,
    curve: Annotated[bool, typer.Option("--curve", help="With --json: also the scores of every second.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the scores over time.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.png if it exists.")] = False,
    model: Model = None,
    embedder: Embedder = None,
    device: Device = "auto",
) -> None:
    """Score one target."""
    query, words = _prompt(prompt, example, video)
    if curve and not json:
        raise UserError("--curve is part of the JSON document; give --json too, or --plot for a picture")
    if plot is not None:
        _check_picture(plot, force)
    judge = _load([mixture, target], model, embedder, device)
    with console.progress(target.name, enabled=not json) as advance:
        found = judge.score(mixture, target, query, progress=advance)
    if plot is not None:
        from judge.plots import plot_curve

        plot_curve(found, plot, f'{target.name}, "{words}"', force)
    if json:
        document: dict[str, Any] = {"mixture": mixture, "target": target, "prompt": words, **_document(found)}
        if curve:
            document["curve"] = found.curve and found.curve.every(1.0).to_dict()
        console.print_json(document)
        return
    console.say(f'{console.whole(target)}, "{console.whole(words)}", on {judge.device}')
    for name, value in found.to_dict().items():
        if value is not None:
            console.say(f"  {name:12}  {_number(name, value):>6}  {MEANINGS[name]}")
    _say_notes(judge, found.notes)


@app.command()
def rank(
    mixture: Mixture,
    targets: Annotated[list[Path], typer.Argument(metavar="TARGETS", help="What was separated from it.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="The words they should answer to.")
    ] = None,
    example: Example = None,
    video: Video = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME=NUMBER,...", help="What the ranking goes by, e.g. overall=1,similarity=0.5."),
    ] = None,
    json: Json = False,
    model: Model = None,
    embedder: Embedder = None,
    device: Device = "auto",
) -> None:
    """Rank several targets of one prompt, best first; silent ones come last."""
    query, words = _prompt(prompt, example, video)
    judge = _load([mixture, *targets], model, embedder, device, weights)
    with console.progress(mixture.name, enabled=not json) as advance:
        ranking = judge.rank(mixture, targets, query, progress=advance)
    if json:
        console.print_json(
            [
                {"rank": place, "target": targets[k], "prompt": words, **_document(found), "ranking": found.ranking}
                for place, (k, found) in enumerate(ranking, 1)
            ]
        )
        return
    console.say(f'"{console.whole(words)}" in {console.whole(mixture)}, best first, on {judge.device}')
    names = [name for name in MEANINGS if any(getattr(found, name) is not None for _, found in ranking)]
    console.say("     " + "".join(f"{name:>{len(name) + 2}}" for name in names))
    for place, (k, found) in enumerate(ranking, 1):
        cells = "".join(f"{_number(name, getattr(found, name)):>{len(name) + 2}}" for name in names)
        console.say(f"  {place:2} {cells}  {console.whole(targets[k])}")
    _say_notes(judge, dict.fromkeys(note for _, found in ranking for note in found.notes if "silent" not in note))


def _prompt(words: str | None, example: Path | None, video: Path | None) -> tuple[Prompt, str]:
    """The prompt and what to call it, after a look at the files."""
    given = [item for item in (words, example, video) if item is not None]
    if len(given) != 1:
        raise UserError('give one prompt: words such as "guitar", or --example FILE, or --video FILE')
    from peav import media

    if words is not None and not words.strip():
        raise UserError('the prompt is empty; name the sound, for example "guitar"')
    if example is not None:
        media.probe(example)
    if video is not None:
        from peav.media.video import probe_video

        probe_video(video)
    if words is not None:
        return words, words.strip()
    from judge import score

    return (score.Example(example), str(example)) if example is not None else (score.Video(video or ""), str(video))


def _load(
    files: Sequence[Path], model: str | None, embedder: str | None, device: str, weights: str | None = None
) -> Judge:
    """The judge, after everything that is cheap to check."""
    from peav import media

    chosen: RankWeights | None = None
    if weights is not None:
        from judge.rank import RankWeights

        chosen = RankWeights.parse(weights)
    console.check_device(device)
    for path in files:
        media.probe(path)
    import judge

    return judge.load(model, device=device, embedder=embedder, weights=chosen)


def _check_picture(path: Path, force: bool) -> None:
    from judge.plots import check_picture

    check_picture(path, force)


def _document(found: Score) -> dict[str, Any]:
    return {**found.to_dict(), "notes": list(found.notes)}


def _say_notes(judge: Judge, notes: Any) -> None:
    for note in [*notes, *([NO_NETWORK] if judge.network is None else [])]:
        console.say(f"  note: {note}")


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if math.isnan(value):
        return "silent"
    return f"{value:.3f}" if name in ("similarity", "presence") else f"{value:.2f}"


report_cli.register(app)
serve_cli.register(app)

if __name__ == "__main__":
    raise SystemExit(main())
