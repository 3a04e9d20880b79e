"""Films of the drawn world as files.

    python -m samaudio.drawn OUT sounds/manifest.jsonl --pictures PICTURES --count 1000 --split train
    python -m samaudio.drawn OUT sounds/manifest.jsonl --pictures PICTURES --count 100 --split valid --alike
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from peav import console
from peav.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]})  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    return console.run(app, "python -m samaudio.drawn", arguments)


@app.command()
def draw(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the films. Running again goes on there.")],
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Labelled clips, JSONL.")],
    pictures: Annotated[Path, typer.Option(metavar="PICTURES", help="What python -m samaudio.drawn.collect wrote.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, metavar="N", help="Films in the end.")] = 100,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, or valid: unseen clips and style.")] = "train",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Another one gives other films.")] = 0,
    alike: Annotated[bool, typer.Option("--alike", help="Pairs of look-alikes, which movement tells apart.")] = False,
    objects: Annotated[
        int | None, typer.Option(min=1, max=4, metavar="N", help="So many sounding objects. Default: one to four.")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="SECONDS", help="Length of a film.")] = 3.0,
    fps: Annotated[float, typer.Option(metavar="N", help="Frames per second.")] = 8.0,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Width and height.")] = 112,
    rate: Annotated[int, typer.Option(min=8000, metavar="HZ", help="Of the sound.")] = 16_000,
    container: Annotated[str, typer.Option(metavar="KIND", help="mkv (exact sound) or mp4.")] = "mkv",
    preview: Annotated[int, typer.Option(min=0, metavar="N", help="A contact sheet of the first N: preview.png.")] = 0,
    held_out: Annotated[str, typer.Option(metavar="STYLE", help="The style that only valid is drawn in.")] = "twemoji",
    cache: Annotated[Path, typer.Option(metavar="FOLDER", help="Decoded clips.")] = Path("data/cache"),
) -> None:
    """Draw films whose objects move with the sounds that they make."""
    from peav.clips import ClipStore

    from .files import write_films
    from .films import LOOK_ALIKES, DrawnFilms, Recipe
    from .preview import write_sheet
    from .styles import open_pictures, require_extra

    require_extra()
    if alike and objects not in (None, 2):
        raise UserError(f"--objects {objects} with --alike: look-alikes are two; leave one of them out")
    if not 0.5 <= seconds <= 60:
        raise UserError(f"--seconds {seconds:g}: give 0.5 to 60")
    if not 1 <= fps <= 60:
        raise UserError(f"--fps {fps:g}: give 1 to 60")
    recipe = LOOK_ALIKES if alike else Recipe()
    sources = recipe.sound.sources if objects is None else (0.0,) * (objects - 1) + (1.0,)
    recipe = replace(recipe, fps=fps, size=(size, size), sound=replace(recipe.sound, seconds=seconds, sources=sources))
    if objects is not None and not alike:
        recipe = replace(recipe, alike=0.0)
    looks = open_pictures(pictures, split, held_out)
    films = DrawnFilms(ClipStore(manifests, rate, cache, split, progress=False), looks, recipe, seed)
    with console.progress("drawing films") as advance:
        drawn = write_films(out, films, count, split, container, lambda i: advance(i * seconds, count * seconds))
    console.say(f"{console.whole(out)}: {count} films, {drawn} of them new, in {', '.join(looks.styles)}")
    if preview:
        write_sheet(out / "preview.png", [films[i] for i in range(min(preview, count))])
        console.say(console.whole(out / "preview.png"))


if __name__ == "__main__":
    sys.exit(main())
