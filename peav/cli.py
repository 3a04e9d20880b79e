"""The ``peav`` command: embeddings of files and texts, and zero-shot classification.

A file is embedded in windows of :data:`WINDOW` seconds, whose embeddings are averaged by length; so a file of
any length takes the same memory, and a sound that fills half of it counts half.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peav import console
from peav.errors import UserError, shown

if TYPE_CHECKING:
    from torch import Tensor

    from peav.model import PEAV

WINDOW = 10.0  # seconds
SHORTEST = 1.0  # seconds; a shorter rest at the end is left out, unless it is all there is
SILENCE = 1e-5  # full scale 1.0; samples below it say nothing and do not count

app = typer.Typer(
    name="peav",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Model = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="A model folder. Default: the embedder of the model in the package."),
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
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Embed files and texts. Long files are embedded in windows of 10 s and averaged."""
    from peav import media

    files, texts = files or [], text or []
    if not files and not texts:
        raise UserError("nothing to embed; name files, or give --text")
    if not all(words.strip() for words in texts):
        raise UserError('a text is empty; give words, such as --text "a dog barking"')
    if out is not None:
        _check_array(out, force)
    console.check_device(device)
    for path in files:
        media.probe(path)

    embedder = _load(model, device)
    vectors = [embed_file(embedder, path) for path in files]
    if texts:
        vectors += list(embed_texts(embedder, texts))
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

    names = list(dict.fromkeys(name.strip() for name in labels.split(",") if name.strip()))
    if not names:
        raise UserError('--labels is empty; give names such as --labels "dog,guitar,speech"')
    console.check_device(device)
    media.probe(file)

    embedder = _load(model, device)
    with console.progress(file.name, enabled=not json) as advance:
        audio = embed_file(embedder, file, advance)
    texts = embed_texts(embedder, names)
    probabilities = embedder.text_audio_logits(audio[None], texts)[0].softmax(-1).tolist()
    ranked = sorted(zip(names, cosines(audio, texts), probabilities, strict=True), key=lambda row: -row[2])
    if json:
        console.print_json([{"label": name, "cosine": near, "probability": p} for name, near, p in ranked])
        return
    console.say(f"{console.whole(file)}, {_where(embedder)}")
    width = max(len(shown(name, 60)) for name in names)
    console.say(f"  {'label':{max(width, 5)}}  cosine  probability")
    for name, near, p in ranked:
        console.say(f"  {shown(name, 60):{max(width, 5)}}  {near:6.3f}  {p:11.3f}")


def embed_texts(model: PEAV, texts: Sequence[str]) -> Tensor:
    """``[B, E]``; the texts are trimmed and lower-cased, as in training."""
    return model.embed(text=[text.strip().lower() for text in texts])


def embed_file(model: PEAV, path: str | os.PathLike, progress: console.Advance | None = None) -> Tensor:
    """Embedding ``[E]`` of a file of any length.

    Raises:
        UserError: it cannot be read, or holds only silence.
    """
    from peav import media

    with media.stream(path, 1 << 16) as blocks:
        found = embed_blocks(model, _told(blocks, blocks.info, progress), blocks.info.sample_rate)
    if found is None:
        raise UserError(f"{shown(path)}: is silent, so there is nothing to embed; check the recording")
    return found


def embed_blocks(model: PEAV, blocks: Iterable[Tensor], sample_rate: int) -> Tensor | None:
    """Embedding ``[E]`` of a waveform that arrives in blocks ``[C, T]``: windows, averaged by length.

    Digital silence does not count, neither whole windows of it nor the part of one. None if there is nothing else.
    """
    import torch

    device = next(model.parameters()).device
    total: Tensor | None = None
    length, unit = 0, False  # samples; whether this model's embeddings have length one
    for window in _windows(blocks, sample_rate, model.sample_rate):
        heard = int((window.abs() > SILENCE).sum())
        if not heard:
            continue
        vector = model.embed(audio=[window.to(device)])[0]
        unit = math.isclose(float(vector.norm()), 1.0, abs_tol=1e-3)
        weighted = vector * heard
        total = weighted if total is None else total + weighted
        length += heard
    if total is None:
        return None
    return torch.nn.functional.normalize(total, dim=0) if unit else total / length


def cosines(one: Tensor, many: Tensor) -> list[float]:
    """Cosine of ``[E]`` with each of ``[B, E]``."""
    import torch

    return torch.nn.functional.cosine_similarity(one[None], many, dim=-1).tolist()


def _windows(blocks: Iterable[Tensor], rate_from: int, rate_to: int) -> Iterator[Tensor]:
    """Mono windows ``[T]`` at ``rate_to``."""
    import torch

    from peav import media

    resampler = media.StreamResampler(rate_from, rate_to)
    size, shortest = round(WINDOW * rate_to), round(SHORTEST * rate_to)
    pending = torch.zeros(0)
    first = True

    def resampled() -> Iterator[Tensor]:
        for block in blocks:
            yield resampler.push(block.float().mean(0))
        yield resampler.flush()

    for part in resampled():
        pending = torch.cat((pending, part.cpu()))
        while len(pending) >= size:
            yield pending[:size]
            pending, first = pending[size:], False
    if len(pending) >= shortest or (first and len(pending)):
        yield pending


def _told(blocks: Iterable[Tensor], info: Any, progress: console.Advance | None) -> Iterator[Tensor]:
    done = 0
    for block in blocks:
        yield block
        done += block.shape[-1]
        if progress is not None:
            progress(done / info.sample_rate, info.seconds)


def _load(model: str | None, device: str) -> PEAV:
    import peav
    from peav.training import pick_device

    return peav.load(model).to(pick_device(device))


def _where(model: PEAV) -> str:
    return f"on {next(model.parameters()).device}"


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


if __name__ == "__main__":
    raise SystemExit(main())
