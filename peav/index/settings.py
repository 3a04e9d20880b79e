"""What all embeddings of one index have in common, and refusing to mix what has not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from peav.errors import UserError, shown

FORMAT, VERSION = "peav-index", 1


@dataclass(frozen=True)
class Settings:
    """``model``: its identity. ``model_name``: as the user called it, None for the one in the package.
    ``output_dim``: E. ``kind``: what is embedded, audio, video or audio_video. ``window``: seconds of the windows that
    have rows of their own beside the whole files; None: only whole files have. ``fps``: see `peav.excerpts.Recipe`.
    ``root``: the folder that names are relative to.
    """

    model: str
    output_dim: int
    root: str
    model_name: str | None = None
    kind: str = "audio"
    window: float | None = None
    fps: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """From `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown or impossible.
        """
        made = cls(**{field.name: values[field.name] for field in fields(cls)})
        if made.output_dim < 1 or not (made.window is None or 0 < made.window < math.inf):
            raise ValueError(f"output_dim {made.output_dim}, window {made.window}")
        return made

    @property
    def named(self) -> str:
        """The model, as a message calls it."""
        return f"{shown(self.model_name, 40) if self.model_name else 'the packaged model'} ({shown(self.model, 16)})"


def check_model(index: object, settings: Settings, identity: str, name: str | None) -> None:
    """Refuse to compare embeddings of two models.

    Raises:
        UserError: this one did not make the index.
    """
    if identity == settings.model:
        return
    other = Settings(identity, 1, "", model_name=name).named
    same = settings.model_name == name
    way = "its weights have changed since, so index anew with another --out" if same else _with(settings.model_name)
    raise UserError(f"{shown(index, 60)}: was made with {settings.named}, not {other}; {way}")


def _with(name: str | None) -> str:
    way = f"give --model {shown(name, 40)}" if name else "leave --model away"
    return f"{way}, or index anew with another --out"


def check_same(index: object, have: Settings, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with an index in another way than it was begun; None goes on as it was.

    Raises:
        UserError: it differs in ``kind``, ``window``, ``fps`` or ``root``.
    """
    for name, value in wanted.items():
        was = getattr(have, name)
        if value is None or value == was:
            continue
        if name == "root":
            raise UserError(
                f"{shown(index, 60)}: is the index of {shown(was, 60)}, not of {shown(value, 60)}; give another --out, "
                "or --moved if it is the same folder in another place"
            )
        option = {"kind": "--embed"}.get(name, f"--{name}")
        given = f"{value:g}" if isinstance(value, float) else value
        made = f"without {option}" if was is None else f"with {option} " + (f"{was:g}" if value != given else str(was))
        raise UserError(f"{shown(index, 60)}: was made {made}, not {given}; leave it away, or give another --out")
