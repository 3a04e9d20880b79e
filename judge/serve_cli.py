"""``judge serve``: the judge over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from peav import console
from peav.console import Device
from peav.errors import UserError, shown

_MIB = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command to ``judge``."""
    app.command()(serve)


def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="0 takes any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="JUDGE_TOKEN",
            show_envvar=False,
            help="What clients must send as bearer token. Better in the environment as JUDGE_TOKEN, "
            "because others can see a command line.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A folder or a hub id. Default: the one in the package.")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Measures similarity. Default: the one in the package.")
    ] = None,
    device: Device = "auto",
    max_upload: Annotated[float, typer.Option(metavar="MIB", help="Largest request.")] = 64,
    max_seconds: Annotated[float, typer.Option(metavar="SECONDS", help="Longest sound.")] = 600,
    max_decoded: Annotated[float, typer.Option(metavar="MIB", help="Largest sound, unpacked.")] = 512,
    max_pending: Annotated[int, typer.Option(metavar="N", help="Requests at a time; more get status 429.")] = 32,
    batch: Annotated[int, typer.Option(metavar="N", help="Requests that share one run of the model, at most.")] = 8,
    batch_wait: Annotated[
        float, typer.Option(metavar="MS", help="Milliseconds that a request waits for others to share it.")
    ] = 10,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="From the upload to the answer.")] = 120,
    upload_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For the upload.")] = 60,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", help="What running requests get when the server is stopped.")
    ] = 30,
) -> None:
    """Answer requests over HTTP: POST /v1/score and /v1/rank; see /docs."""
    from judge.server import Settings
    from judge.server.run import check_installed
    from judge.server.run import serve as run

    settings = Settings(
        host=host,
        port=port,
        token=token,
        upload_bytes=_bytes(max_upload, "--max-upload"),
        seconds=max_seconds,
        decoded_bytes=_bytes(max_decoded, "--max-decoded"),
        pending=max_pending,
        batch=batch,
        batch_wait=batch_wait / 1000,
        timeout=timeout,
        upload_timeout=upload_timeout,
        grace=grace,
    )
    check_installed()
    console.check_device(device)
    if not settings.is_local and token is None:
        console.complain(
            f"warning: {shown(host, 60)} can be reached from other machines and no token is set; set JUDGE_TOKEN"
        )

    def load() -> object:
        import judge

        return judge.load(model, device=device, embedder=embedder)

    run(load, settings)


def _bytes(mib: float, option: str) -> int:
    if not 0 < mib < 1 << 20:
        raise UserError(f"{option} is {mib:g} MiB; give more than 0 and less than {1 << 20}")
    return max(1, round(mib * _MIB))
