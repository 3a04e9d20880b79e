"""The ``peav`` command: embeddings of files and texts, and zero-shot classification.

Files are embedded as `peav.windows` says: of any length, in the same memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peav import console
from peav.errors import UserError, shown
from peav.evaluate_cli import evaluate
from peav.index_cli import index, search
from peav.localize_cli import localize

if TYPE_CHECKING:
    from torch import Tensor

    from peav.model import PEAV

app = typer.Typer(
    name="peav",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A folder or hub id, such as facebook/pe-av-small. Default: the packaged one."),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``peav``; returns the exit code."""
    return console.run(app, "peav", arguments)


@app.callback()
def group(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=console.show_version, help="Print the version."),
    ] = False,
) -> None:
    """One space for audio and text: what sounds alike or is called alike lies close together."""


@app.command()
def embed(
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILES]", help="Audio or video files.")] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", metavar="TEXT", help="A text to embed, after the files. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.npy", help="Write the embeddings as a NumPy array, one row for each."
        ),
    ] = None,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.npy if it exists.")] = False,
    video: Annotated[
        bool, typer.Option("--video", help="The pictures of video files instead of their sound; texts for them.")
    ] = False,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Embed files and texts. Long files are embedded in windows of 10 s and averaged."""
    from peav import media
    from peav.excerpts import Recipe, check_can, embed_path
    from peav.media.video import probe_video
    from peav.windows import embed_file, embed_texts

    files, texts = files or [], text or []
    if not files and not texts:
        raise UserError("nothing to embed; name files, or give --text")
    if not all(words.strip() for words in texts):
        raise UserError('a text is empty; give words, such as --text "a dog barking"')
    if out is not None:
        _check_array(out, force)
    console.check_device(device)
    for path in files:
        probe_video(path) if video else media.probe(path)

    embedder = _load(model, device)
    if video:
        check_can(embedder, Recipe("video"))
        vectors = [embed_path(embedder, path, Recipe("video")) for path in files]
        vectors += list(embedder.embed(text=[words.strip() for words in texts], text_for="video")) if texts else []
    else:
        vectors = [embed_file(embedder, path) for path in files]
        vectors += list(embed_texts(embedder, texts)) if texts else []
    names = [*map(str, files), *texts]
    if out is not None:
        _write_array(vectors, out)
    if json:
        kinds = ["file"] * len(files) + ["text"] * len(texts)
        console.print_json(
            [
                {kind: name, "embedding": vector.tolist()}
                for kind, name, vector in zip(kinds, names, vectors, strict=True)
            ]
        )
    elif out is not None:
        size = f"{len(vectors)} embeddings of {len(vectors[0])} numbers"
        console.say(f"{console.whole(out)}: {size}, {_where(embedder)}")
    else:
        for name, vector in zip(names, vectors, strict=True):
            first = " ".join(f"{value:+.3f}" for value in vector[:4].tolist())
            console.say(f"{console.whole(name)}: {first} ... ({len(vector)} numbers; all with --json or --out)")


@app.command()
def classify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An audio or video file.")],
    labels: Annotated[str, typer.Option("--labels", "-l", metavar="A,B,C", help="What it could be, comma-separated.")],
    json: Json = False,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Which of the labels fits a recording best, without training for them.

    The cosine says how near a label is; the probabilities say how it compares with the other labels, and add
    up to 1 even if none fits.
    """
    from peav import media
    from peav.windows import cosines, embed_file, embed_texts

    names = list(dict.fromkeys(name.strip() for name in labels.split(",") if name.strip()))
    if not names:
        raise UserError('--labels is empty; give names such as --labels "dog,guitar,speech"')
    console.check_device(device)
    media.probe(file)

    embedder = _load(model, device)
    with console.progress(file.name, enabled=not json) as advance:
        audio = embed_file(embedder, file, advance)
    texts = embed_texts(embedder, names)
    probabilities = embedder.logits("text_audio", audio[None], texts)[0].softmax(-1).tolist()
    ranked = sorted(zip(names, cosines(audio, texts), probabilities, strict=True), key=lambda row: -row[2])
    if json:
        console.print_json([{"label": name, "cosine": near, "probability": p} for name, near, p in ranked])
        return
    console.say(f"{console.whole(file)}, {_where(embedder)}")
    width = max(len(shown(name, 60)) for name in names)
    console.say(f"  {'label':{max(width, 5)}}  cosine  probability")
    for name, near, p in ranked:
        console.say(f"  {shown(name, 60):{max(width, 5)}}  {near:6.3f}  {p:11.3f}")


def _load(model: str | None, device: str) -> PEAV:
    import peav
    from peav.frame import clip_level

    return clip_level(peav.load(model, device=device))


def _where(model: PEAV) -> str:
    return f"on {model.device}"


def _check_array(out: Path, force: bool) -> None:
    if out.suffix != ".npy":
        raise UserError(f"{shown(out)}: embeddings are written as .npy; name it {shown(out.stem, 60)}.npy")
    if not out.parent.is_dir():
        raise UserError(f"{shown(out)}: there is no folder {shown(out.parent, 60)}; make it first")
    if os.path.lexists(out) and not force:
        raise UserError(f"{shown(out)}: exists already; give --force to replace it, or another name")


def _write_array(vectors: Sequence[Tensor], out: Path) -> None:
    """The whole array or none."""
    import numpy as np
    import torch

    from peav import media

    temporary = media.temporary_sibling(out)
    try:
        np.save(temporary, torch.stack(list(vectors)).float().cpu().numpy())
        temporary.replace(out)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(out)}: cannot be written ({why}); choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


app.command()(evaluate)
app.command()(index)
app.command()(localize)
app.command()(search)

if __name__ == "__main__":
    raise SystemExit(main())
