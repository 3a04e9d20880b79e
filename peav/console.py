"""What the command lines share: one line per mistake, exit codes, progress bars, JSON.

Exit codes: 0 done, 2 the user can mend it (one line on stderr), 130 stopped by Ctrl-C, 141 nobody
reads the output any more. Results go to stdout, everything else to stderr. What goes wrong beyond that is a bug
and keeps its traceback.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Protocol

import typer

from peav.errors import UserError, shown

DONE, MISTAKE, STOPPED, UNHEARD = 0, 2, 130, 141
# Newer typer carries its own copy of click, older typer uses click's; this finds the base in both.
_UsageError: Any = typer.BadParameter.__mro__[1]
# Options that several commands have.
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]
_LONGEST_PATH = 4_096  # characters; what is printed as a result must be the whole name


def run(app: typer.Typer, prog: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; prints the one line if the user made a mistake."""
    _never_fail_to_print()
    command = typer.main.get_command(app)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with command.make_context(prog, arguments) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return code or DONE
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        complain("stopped; files that were not finished are not kept")
        return STOPPED
    except UserError as error:
        complain(str(error))
        return MISTAKE
    except BrokenPipeError:
        # `separate ... | head`: nobody reads on. Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except _UsageError as error:
        complain(str(UserError(f"{error.format_message().strip().rstrip('.')}; see {prog} --help")))
        return MISTAKE


def complain(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)


def say(line: str = "") -> None:
    """One line on stdout."""
    print(line, flush=True)


def whole(path: str | os.PathLike) -> str:
    """A path for a result line: not shortened, but without line breaks and escapes."""
    return shown(path, _LONGEST_PATH)


def print_json(value: Any) -> None:
    """The one JSON document of a ``--json`` run. Not-a-number becomes null, paths become text."""
    say(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, os.PathLike) else value


def check_device(name: str) -> str:
    """The name, if that device exists here.

    Raises:
        UserError: it is no device name, or there is no such device.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise UserError(f"device '{shown(name, 40)}' is unknown; choose auto, cpu, cuda, cuda:N or mps")
    from peav.training import pick_device

    pick_device(name)
    return name


def show_version(wanted: bool) -> None:
    """Callback of an eager ``--version``."""
    if wanted:
        try:
            say(version("samaudio"))
        except PackageNotFoundError:  # run from a checkout that was never installed
            say("unknown")
        raise typer.Exit()


class Advance(Protocol):
    """Told how far the work is, in seconds of sound; the whole may be unknown."""

    def __call__(self, done: float, total: float | None) -> None: ...


@contextmanager
def progress(title: str, enabled: bool = True) -> Iterator[Advance]:
    """A bar on stderr with the time left, which vanishes when the work is done.

    Where stderr is no terminal nothing is drawn, so logs stay readable and errors stay one line.
    """
    if not enabled or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} s done", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(Text(shown(title, 30)).plain, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _never_fail_to_print() -> None:
    # A terminal that cannot show a letter of a file name should show something else, not a traceback.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
