"""``peav localize``: when in a recording something is heard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peav import console
from peav.errors import shown

if TYPE_CHECKING:
    from peav.localize import Localization


def localize(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An audio or video file of any length.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help='What to look for, such as "dog barking". Repeatable.'),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="A span opens above this probability. Default: the model's, published 0.3."),
    ] = None,
    hysteresis: Annotated[
        float | None,
        typer.Option(metavar="P", help="An open span closes only at this lower probability. Default: the threshold."),
    ] = None,
    smooth: Annotated[float, typer.Option(metavar="SECONDS", help="Median over so much time, against flicker.")] = 0.0,
    max_gap: Annotated[
        float, typer.Option("--max-gap", metavar="SECONDS", help="Join spans that are no further apart.")
    ] = 0.0,
    min_duration: Annotated[
        float, typer.Option("--min-duration", metavar="SECONDS", help="Drop spans that are shorter, after joining.")
    ] = 0.0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the probabilities and the spans.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.png if it exists.")] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A folder or hub id, such as facebook/pe-a-frame-small. Default: packaged."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """When in a recording something is heard: spans of time with confidences, the mean probability of their frames."""
    import peav
    from peav import localize as localizing
    from peav import media, timeline
    from peav.spans import check_rule

    prompts = tuple(dict.fromkeys(localizing.check_prompts(prompt or ())))
    check_rule(threshold, hysteresis, smooth, max_gap, min_duration)
    if plot is not None:
        timeline.check_picture(plot, len(prompts), force)
    console.check_device(device)
    media.probe(file)

    loaded = localizing.with_frames(peav.load(model, device=device), model)
    with console.progress(file.name, enabled=not json) as advance:
        found = localizing.localize(
            file,
            prompts,
            loaded,
            threshold=threshold,
            low=hysteresis,
            smooth=smooth,
            max_gap=max_gap,
            min_duration=min_duration,
            progress=advance,
        )
    if plot is not None:
        timeline.plot_timeline(found, plot, file.name, force)
    if json:
        console.print_json(_document(found, file, plot, str(loaded.device)))
        return
    console.say(f"{console.whole(file)}, {found.seconds:.2f} s, on {loaded.device}")
    for line in table(found):
        console.say(f"  {line}")
    if plot is not None:
        console.say(f"picture: {console.whole(plot)}")


def table(found: Localization) -> list[str]:
    """The spans of each prompt in order of time, under a header."""
    if found.silent:
        return ["nothing heard: the recording is silent"]
    names = [shown(prompt, 60) for prompt in found.prompts]
    width = max(len("prompt"), *map(len, names))
    lines = [f"{'prompt':{width}}  {'start':>9}  {'end':>9}  confidence"]
    for name, spans, row in zip(names, found.spans, found.probabilities, strict=True):
        if not spans:
            lines.append(f"{name:{width}}  not heard (highest probability {float(row.max()):.3f})")
        for start, end, confidence in spans:
            lines.append(f"{name:{width}}  {start:9.2f}  {end:9.2f}  {confidence:10.3f}")
    return lines


def _document(found: Localization, file: Path, plot: Path | None, device: str) -> dict[str, Any]:
    return {
        "file": file,
        "seconds": found.seconds,
        "silent": found.silent,
        "threshold": found.threshold,
        "hysteresis": found.low,
        "frame_seconds": found.frame_seconds,
        "device": device,
        "plot": plot,
        "prompts": [
            {
                "prompt": prompt,
                "highest_probability": float(row.max()),
                "spans": [
                    {"start": round(start, 6), "end": round(end, 6), "confidence": confidence}
                    for start, end, confidence in spans
                ],
            }
            for prompt, spans, row in zip(found.prompts, found.spans, found.probabilities, strict=True)
        ],
    }
