"""``python -m demos.video_click``"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from peav import console
from peav.errors import UserError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def main(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes any free one.")] = 7860,
    max_megabytes: Annotated[float, typer.Option(metavar="MB", help="Largest file that can be loaded.")] = 200,
    max_minutes: Annotated[float, typer.Option(metavar="MINUTES", help="Longest film or recording.")] = 5,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A model folder or hub id. Default: the one in the package.")
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="SAM 2 or SAM 3 weights that follow clicks. Default: GrabCut, optical flow."),
    ] = None,
    device: console.Device = "auto",
) -> None:
    """Click on what makes a sound in a film and hear it alone, in the browser. Ctrl-C ends it."""
    if not 0 < max_megabytes <= 100_000:
        raise UserError(f"--max-megabytes is {max_megabytes:g}; give more than 0 and at most 100000")
    if not 0 < max_minutes <= 600:
        raise UserError(f"--max-minutes is {max_minutes:g}; give more than 0 and at most 600")
    console.check_device(device)

    from .server import check_installed, listen, serve
    from .session import Limits

    check_installed()
    with listen(host, port) as socket:  # a taken port is known before the model is loaded
        import samaudio

        separator = samaudio.load(model, device=device, segmenter=segmenter)
        where = "localhost" if host in ("0.0.0.0", "::") else host
        where = f"[{where}]" if ":" in where else where
        console.say(f"model {separator.name} on {separator.device}; open http://{where}:{socket.getsockname()[1]}/")
        serve(separator, socket, Limits(max_megabytes, max_minutes))


if __name__ == "__main__":
    sys.exit(console.run(app, "python -m demos.video_click"))
