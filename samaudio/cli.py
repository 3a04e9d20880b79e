"""The ``separate`` command: parse, check everything that is cheap, call :func:`samaudio.load`, print.

Heavy libraries are imported inside the functions, so that ``separate --help`` answers at once.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peav import console
from peav.errors import UserError, shown

if TYPE_CHECKING:
    from samaudio.prompts import Prompt

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# What a folder is searched for. Other endings are read too when the file is named.
SUFFIXES = (
    ".wav",
    ".wave",
    ".w64",
    ".rf64",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".caf",
    ".flac",
    ".mp3",
    ".mp2",
    ".ogg",
    ".oga",
    ".opus",
    ".m4a",
    ".m4b",
    ".aac",
    ".wma",
    ".ac3",
    ".mka",
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".3gp",
    ".wmv",
    ".flv",
    ".ogv",
)
FORMAT_HELP = "Of the outputs: wav (24 bit), wav16, wav24, wavf (float), flac, mp3 or ogg."
_SHOWN_SPANS = 6
_Extra = dict[str, Path]  # what was written beside target and residual: picture, film, film_without


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``separate``; returns the exit code."""
    return console.run(app, "separate", arguments)


@app.command()
def separate(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUTS", help="Audio or video files, folders (everything inside) or quoted globs."),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="The sound to take out. Repeat it for several in one pass."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="TEXT", help="A sound to keep out of the target. Repeatable."),
    ] = None,
    span: Annotated[
        list[str] | None,
        typer.Option(
            metavar="START-END",
            help="When the sound happens, in seconds (2.0-3.5) or minutes (1:02-1:05); repeat it for "
            "several times. With prompts it holds for all of them; alone it is the prompt.",
        ),
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A recording of the same kind of sound, alone or with one prompt."),
    ] = None,
    click: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y@SECONDS",
            help="A point of a film's picture on what makes the sound, in pixels from the upper left, and when. "
            "Repeatable; alone or with one prompt.",
        ),
    ] = None,
    not_click: Annotated[
        list[str] | None,
        typer.Option("--not-click", metavar="X,Y@SECONDS", help="A point on what does not belong to it. Repeatable."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0,Y0,X1,Y1@SECONDS", help="A rectangle around what makes the sound. Repeatable."),
    ] = None,
    object_mask: Annotated[
        Path | None,
        typer.Option("--mask", metavar="FILE", help="A picture or film that is white on what makes the sound."),
    ] = None,
    background_mask: Annotated[
        Path | None,
        typer.Option("--background-mask", metavar="FILE", help="One that is white on all else."),
    ] = None,
    whole_picture: Annotated[
        bool, typer.Option("--whole-picture", help="What is asked for is what all of the film's picture shows.")
    ] = False,
    segmenter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A folder or hub id of a SAM 2 or SAM 3 model that follows clicks. Default: GrabCut and optical flow.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Where FOLDER/<input>/<prompt>.wav and <prompt>.residual.wav go.",
        ),
    ] = Path("separated"),
    format: Annotated[str, typer.Option("--format", "-f", metavar="NAME", help=FORMAT_HELP)] = "wav",
    candidates: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Try this many separations of each sound and keep the best one."),
    ] = 1,
    judge: Annotated[
        bool,
        typer.Option("--judge/--no-judge", help="Score what comes out and choose candidates by that; or be faster."),
    ] = True,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="The same seed gives the same output on the same machine.")
    ] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A model folder, or a hub id, which is downloaded. Default: the model in the package.",
        ),
    ] = None,
    plot: Annotated[
        bool,
        typer.Option("--plot", help="Also draw <prompt>.png: spectrograms of mixture, target and residual."),
    ] = False,
    remux: Annotated[
        bool,
        typer.Option("--remux", help="Of films, also write the film with only the sound, and the film without it."),
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON list of results and errors on stdout, nothing else."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors (and the JSON).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that exist already.")] = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave finished outputs alone and do the rest, to go on after a stop."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=console.show_version, help="Print the version."),
    ] = False,
) -> int:
    """Name a sound and get it out of recordings: one file with the sound, one with everything else.

    separate mix.wav --prompt "guitar"

    separate *.wav folder/ -p drums -p "man speaking" --not wind -o stems --format flac --json

    separate mix.wav --prompt dog --span 2.0-3.5

    separate clip.mp4 --click 412,230@1.5

    A sound that is not there gives a silent target and a line that says so.

    Exit codes: 0 done, also when a sound was not heard; 2 something in the request or in a file is wrong
    (one line on stderr says what; with several inputs the others are still done); 130 stopped by Ctrl-C.
    """
    points = _points(click or (), not_click or (), box or (), object_mask, background_mask, whole_picture)
    prompts = _prompts(prompt or (), span or (), example, points)
    _check_request(exclude or (), format, out, force and skip_existing)
    inside = _expand(inputs, out)
    console.check_device(device)

    from samaudio.files import plan_outputs

    report = _Report(json=json, quiet=quiet)
    tracks = plan_outputs(inside)
    overwrite = force or skip_existing
    possible = [
        path for path in inside if _can_start(path, prompts, out / tracks[path], format, overwrite, report, remux)
    ]
    if not possible:
        return report.finish()

    import samaudio

    separator = samaudio.load(model, device=device, judge=judge, segmenter=segmenter)
    report.begin(separator.name, str(separator.device))
    for number, path in enumerate(possible, 1):
        title = path.name if len(possible) == 1 else f"{number}/{len(possible)} {path.name}"
        try:
            with console.progress(title, enabled=not (json or quiet)) as advance:
                results = separator.separate_file(
                    path,
                    prompts,
                    out,
                    exclude=exclude or (),
                    candidates=candidates,
                    seed=seed,
                    format=format,
                    force=force,
                    progress=advance,
                    skip_existing=skip_existing,
                    track=tracks[path],
                )
        except UserError as error:
            report.failed(path, error)
            continue
        extras: list[_Extra] = [{} for _ in results]
        try:
            if plot:
                _draw(path, results, extras, overwrite)
            if remux:
                _remux(path, results, extras, overwrite)
        except UserError as error:  # the stems are there all the same
            report.separated(path, results, extras)
            report.failed(path, error)
        else:
            report.separated(path, results, extras)
    return report.finish()


def _points(
    clicks: Sequence[str],
    away: Sequence[str],
    boxes: Sequence[str],
    object_mask: Path | None,
    background_mask: Path | None,
    whole_picture: bool,
) -> list[Prompt]:
    """What was pointed at in the picture, all of it on one object."""
    from samaudio.prompts import Mask, Video
    from samaudio.visual.parse import parse_box, parse_click

    found: list[Prompt] = [parse_click(text) for text in clicks]
    found += [parse_click(text, positive=False) for text in away]
    found += [parse_box(text) for text in boxes]
    if away and not (clicks or boxes):
        raise UserError("--not-click alone points at nothing; add a --click or a --box on what makes the sound")
    if object_mask is not None and background_mask is not None:
        raise UserError("--mask and --background-mask both give the outline; give one of the two")
    for path in (object_mask, background_mask):
        if path is not None and not path.is_file():
            raise UserError(f"{shown(path)}: no such file; give a picture or a film as the mask")
    if object_mask is not None or background_mask is not None:
        found.append(Mask(object=object_mask, background=background_mask))
    if whole_picture:
        if found:
            raise UserError("--whole-picture and a click, box or mask contradict each other; give one of them")
        found.append(Video())
    return found


def _prompts(
    texts: Sequence[str], spans: Sequence[str], example: Path | None, points: Sequence[Prompt] = ()
) -> list[tuple[Prompt, ...]]:
    """One tuple for each sound to take out. Spans hold for every one of them."""
    from samaudio.prompts import Example, Text

    words: dict[str, Text] = {}
    for text in texts:
        words.setdefault(Text(text).text.strip().lower(), Text(text.strip()))
    shared: list[Prompt] = [_span(text) for text in spans]
    if example is not None:
        from peav import media

        if len(words) > 1:
            raise UserError("--example shows one sound; give it with one --prompt, or alone")
        media.probe(example)
        shared.append(Example(example))
    if points and len(words) > 1:
        raise UserError("clicks, boxes and masks point at one sound; give them with one --prompt, or alone")
    shared += points
    if not words and not shared:
        raise UserError('no prompt; name the sound, for example --prompt "guitar"')
    return [(text, *shared) for text in words.values()] or [tuple(shared)]


def _span(text: str) -> Prompt:
    from samaudio.prompts import Span

    time = r"((?:\d+:)?\d+:)?(\d+(?:\.\d*)?|\.\d+)"
    match = re.fullmatch(rf"\s*{time}\s*-\s*{time}\s*", text, re.ASCII)
    if match is None:
        raise UserError(f"span '{shown(text, 40)}' is not START-END in seconds, such as 2.0-3.5")
    start, end = (_seconds(match[2 * i + 1], match[2 * i + 2]) for i in range(2))
    return Span(start, end)


def _seconds(clock: str | None, seconds: str) -> float:
    total = 0.0
    for part in (clock or "").split(":"):
        total = total * 60 + float(part or 0)
    return total + float(seconds) if clock else float(seconds)


def _check_request(exclude: Sequence[str], format: str, out: Path, both: bool) -> None:
    """All that can be wrong before any file is opened."""
    from peav.media import FORMATS
    from samaudio.prompts import Text

    for text in exclude:
        if not text.strip():
            raise UserError("--not is empty; name the sound to keep out, or leave it away")
        Text(text)
    if format not in FORMATS:
        raise UserError(f"format '{shown(format, 40)}' is unknown; choose one of {', '.join(FORMATS)}")
    if both:
        raise UserError("--force replaces outputs and --skip-existing keeps them; give one of the two")
    _check_folder(out)


def _check_folder(folder: Path) -> None:
    """A file made for a moment tells more than permissions do: it sees read-only and full disks too."""
    try:
        existing = folder
        while not os.path.lexists(existing) and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            raise UserError(f"{shown(folder)}: {shown(existing, 60)} is not a folder; choose another --out")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{shown(folder)}: cannot be written to ({why}); choose another --out") from error


def _can_start(
    path: Path,
    prompts: Sequence[Sequence[Prompt]],
    folder: Path,
    format: str,
    overwrite: bool,
    report: _Report,
    remux: bool = False,
) -> bool:
    """Whether nothing speaks against this file that can be known before a model is loaded."""
    from peav import media
    from samaudio.files import check_stems, stem_paths
    from samaudio.prompts import VisualPrompt, describe
    from samaudio.spans import check_spans

    try:
        info = media.probe(path)
        if info.frames is not None:
            check_spans(prompts[0], info.frames / info.sample_rate)  # every prompt has the same
        if any(isinstance(prompt, VisualPrompt) for prompt in prompts[0]):
            from samaudio.visual.check import check_film

            check_film(prompts[0], path)
        for stems in stem_paths(folder, [describe(items) for items in prompts], format):
            check_stems(stems, info.sample_rate, info.channels, format, overwrite)
            if remux:
                _check_films(path, stems, overwrite)
    except UserError as error:
        report.failed(path, error)
        return False
    return True


def _draw(path: Path, results: Sequence[Any], extras: list[_Extra], force: bool) -> None:
    from samaudio.plots import plot_separation

    mixture: Any = path
    for result, extra in zip(results, extras, strict=True):
        presence = _number(result.scores.presence)
        title = f'"{shown(result.prompt, 60)}" in {shown(path.name, 40)}, presence {presence}'
        picture = result.target.with_suffix(".png")
        if not (result.skipped and picture.exists()):
            stems = result.target, result.residual
            mixture = plot_separation(mixture, *stems, picture, title, result.spans, force=force)
        extra["picture"] = picture


def _check_films(path: Path, stems: Sequence[Path], force: bool) -> None:
    from samaudio.remux import check, ending_for, has_pictures

    if has_pictures(path):
        for stem in stems:
            check(path, stem.with_suffix(ending_for(path)), force)


def _remux(path: Path, results: Sequence[Any], extras: list[_Extra], force: bool) -> None:
    from samaudio.remux import ending_for, has_pictures, remux

    if not has_pictures(path):  # of a folder of recordings, those that are films
        return
    for result, extra in zip(results, extras, strict=True):
        for name, stem in (("film", result.target), ("film_without", result.residual)):
            film = stem.with_suffix(ending_for(path))
            if not (result.skipped and film.exists()):
                remux(path, stem, film, force=force)
            extra[name] = film


class _Report:
    """What the user gets to see, as lines while it happens or as one JSON list at the end."""

    def __init__(self, json: bool, quiet: bool) -> None:
        self.json = json
        self.lines = not (json or quiet)
        self.code = console.DONE
        self.entries: list[dict[str, Any]] = []
        self.about: dict[str, str] = {}

    def begin(self, model: str, device: str) -> None:
        self.about = {"model": model, "device": device}
        if self.lines:
            console.say(f"model {model} on {device}")

    def failed(self, path: Path, error: UserError) -> None:
        self.code = console.MISTAKE
        if all(entry.get("error") != str(error) for entry in self.entries):  # what is wrong with all is said once
            console.complain(str(error))
        self.entries.append({"input": path, "error": str(error)})

    def separated(self, path: Path, results: Sequence[Any], extras: Sequence[_Extra]) -> None:
        for result, extra in zip(results, extras, strict=True):
            self.entries.append({"input": path, **result.to_dict(), **self.about, **extra})
        if not self.lines:
            return
        if results:
            first = results[0]
            channels = "1 channel" if first.channels == 1 else f"{first.channels} channels"
            console.say(f"{console.whole(path)} ({first.seconds:.1f} s, {first.sample_rate} Hz, {channels})")
        for result, extra in zip(results, extras, strict=True):
            for line in _lines(path, result, extra):
                console.say(line)

    def finish(self) -> int:
        if self.json:
            console.print_json(self.entries)
        return self.code


def _lines(path: Path, result: Any, extra: _Extra) -> list[str]:
    name, presence, similarity = shown(result.prompt, 60), result.scores.presence, result.scores.similarity
    if result.skipped:
        lines = [f'  "{name}"  was there already, left alone']
    elif result.present:
        overall = result.scores.quality.overall
        heard = f"  similarity {similarity:.2f}" if similarity == similarity else ""
        heard += f"  judged {overall:.1f} of 5" if overall == overall else ""
        lines = [f'  "{name}"  presence {presence:.2f}{heard}{_heard_at(result.spans)}']
    else:
        lines = [f'"{name}": not heard in {shown(path.name)} (presence {presence:.2f}); the target is silent']
    if result.followed_by is not None:
        lines.append(f"    followed by {result.followed_by}")
    files = {"target": result.target, "residual": result.residual, **extra}
    lines += [f"    {kind.replace('_', ' '):9} {console.whole(file)}" for kind, file in files.items()]
    return lines + [f"    warning: {shown(warning, 200)}" for warning in result.warnings]


def _heard_at(spans: Sequence[tuple[float, float, float]]) -> str:
    if not spans:
        return ""
    times = ", ".join(f"{start:.1f}-{end:.1f}" for start, end, *_ in spans[:_SHOWN_SPANS])
    more = len(spans) - _SHOWN_SPANS
    return f"  heard at {times} s" + (f" and {more} more" if more > 0 else "")


def _number(value: float) -> str:
    return "unknown" if value != value else f"{value:.2f}"


def _expand(inputs: Sequence[str], out: Path) -> list[Path]:
    """Files, folders and globs as a list of files, each once, in the order given.

    A folder stands for all audio and video files in and below it, sorted, but the hidden ones, those in
    ``out`` and pairs of target and residual that an earlier run wrote. A name that exists is never a glob.

    Raises:
        UserError: a folder without such files, or a glob that matches nothing. Missing files stay in the
            list, because the others can still be done.
    """
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if os.path.lexists(path) or not re.search(r"[*?\[]", given):
            matches = [path]
        else:
            matches = _glob(given)
            if not matches:
                raise UserError(f"{shown(given)}: matches no file; check the pattern and the folder")
        for match in matches:
            # os.path.isdir says no where Path.is_dir raises: no permission, a name that is too long.
            inside = _below(match, out) if os.path.isdir(match) else [match]  # noqa: PTH112
            if not inside:
                raise UserError(f"{shown(match)}: no audio or video files in this folder; check the name")
            found += inside
    once: dict[str, Path] = {}
    for path in found:
        once.setdefault(os.path.realpath(path), path)
    return list(once.values())


def _glob(pattern: str) -> list[Path]:
    import glob

    return [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 takes any pattern


def _below(folder: Path, out: Path) -> list[Path]:
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        visible = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in visible if os.path.realpath(Path(root, name)) != os.path.realpath(out)]
        beside = {name for name in names if not name.startswith(".")}
        found += [
            Path(root, name)
            for name in beside
            if Path(name).suffix.lower() in SUFFIXES and not _is_stem(Path(name), beside)
        ]
    return sorted(found)


def _is_stem(name: Path, beside: set[str]) -> bool:
    """``guitar.wav`` beside ``guitar.residual.wav``, or the other way round."""
    if name.stem.endswith(".residual"):
        return name.stem.removesuffix(".residual") + name.suffix in beside
    return f"{name.stem}.residual{name.suffix}" in beside


if __name__ == "__main__":
    raise SystemExit(main())
