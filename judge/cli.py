"""The ``judge`` command: scores and rankings of separated sounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peav import console
from peav.errors import UserError

if TYPE_CHECKING:
    from judge.score import Judge

NOTE = "overall, recall, precision and faithfulness need the judge network, which is not part of this version"

app = typer.Typer(
    name="judge",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Mixture = Annotated[Path, typer.Argument(metavar="MIXTURE", help="The recording that was separated.")]
Model = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="A model folder. Default: the embedder of the model in the package."),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]


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
    """How well did a separation go?

    This version measures PE-AV similarity: the cosine between target and prompt. The network that fills
    overall, recall, precision and faithfulness is not part of it yet.
    """


@app.command()
def score(
    mixture: Mixture,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="What was separated from it.")],
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The words that the target should answer to.")
    ],
    json: Json = False,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Score one target. Only the similarity is measured in this version."""
    judge = _load(prompt, [mixture, target], model, device)
    found = judge.score(mixture, target, prompt)
    if json:
        console.print_json({"mixture": mixture, "target": target, "prompt": prompt, **found.to_dict()})
        return
    console.say(f'{console.whole(target)}, "{console.whole(prompt)}", on {judge.device}')
    for name, value in found.to_dict().items():
        if value is not None:
            console.say(f"  {name:12}  {_number(value)}")
    console.say(f"  ({NOTE})")


@app.command()
def rank(
    mixture: Mixture,
    targets: Annotated[list[Path], typer.Argument(metavar="TARGETS", help="What was separated from it.")],
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", metavar="TEXT", help="The words they should answer to.")
    ],
    json: Json = False,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Rank several targets of one prompt, best first, by their similarity to it."""
    judge = _load(prompt, [mixture, *targets], model, device)
    ranking = judge.rank(mixture, targets, prompt)
    if json:
        console.print_json(
            [
                {"rank": place, "target": targets[index], "prompt": prompt, **found.to_dict()}
                for place, (index, found) in enumerate(ranking, 1)
            ]
        )
        return
    console.say(f'"{console.whole(prompt)}" in {console.whole(mixture)}, by similarity, on {judge.device}')
    for place, (index, found) in enumerate(ranking, 1):
        console.say(f"  {place}  {_number(found.similarity)}  {console.whole(targets[index])}")


def _load(prompt: str, files: Sequence[Path], model: str | None, device: str) -> Judge:
    """The judge, after everything that is cheap to check."""
    from peav import media

    if not prompt.strip():
        raise UserError('the prompt is empty; name the sound, for example "guitar"')
    console.check_device(device)
    for path in files:
        media.probe(path)
    import judge

    return judge.load(model, device=device)


def _number(value: float) -> str:
    return "silent" if value != value else f"{value:6.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
