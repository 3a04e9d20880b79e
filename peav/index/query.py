"""What is looked for, as one vector: words, a sound, pictures, or two of them together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch.nn.functional as F_
from torch import Tensor

from peav.errors import UserError, shown
from peav.excerpts import Recipe, check_can, embed_path

from .settings import Settings

if TYPE_CHECKING:
    from peav.model import PEAV


@dataclass(frozen=True)
class Query:
    """At most two of the three."""

    text: str | None = None
    audio: Path | None = None
    video: Path | None = None

    def __post_init__(self) -> None:
        given = len(self.parts)
        if not given:
            raise UserError('nothing to look for; give --text "dog barking", --audio FILE, --video FILE or --like NAME')
        if given > 2:
            raise UserError("--text, --audio and --video are three; give at most two of them together")
        if self.text is not None and not self.text.strip():
            raise UserError('--text is empty; give words, such as --text "a dog barking"')

    @property
    def parts(self) -> dict[str, str | Path]:
        """What was given."""
        everything = {"text": self.text, "audio": self.audio, "video": self.video}
        return {name: part for name, part in everything.items() if part is not None}

    def __str__(self) -> str:
        shapes = {"text": '"{}"', "audio": "the sound of {}", "video": "the pictures of {}"}
        return " and ".join(shapes[name].format(shown(part, 60)) for name, part in self.parts.items())


def embed_query(model: PEAV, query: Query, settings: Settings, mean: bool = False) -> tuple[Tensor, str]:
    """The vector ``[E]`` to search an index with, and in words how it was made.

    Words and a sound, or words and pictures, become one vector by the model's own head for the pair where it has one
    (as the published ones do: "like this, but ..."), sound and pictures of one film by its fusion tower; everything
    else, and everything with ``mean``, by the mean of the two unit vectors.

    Raises:
        UserError: the model embeds no pictures, or a file cannot be read or is silent.
    """
    parts = query.parts
    for kind in parts.keys() - {"text"}:
        check_can(model, Recipe(kind))
    text = None if query.text is None else query.text.strip()
    if len(parts) == 1:
        return _one(model, *next(iter(parts.items())), settings), next(iter(parts))
    if "video" in model.modalities and not mean:
        if text is not None:
            kind = "audio" if query.audio is not None else "video"
            recipe = Recipe(kind, fps=settings.fps)
            return embed_path(model, parts[kind], recipe, text).float(), f"the model's head for {kind} and text"
        if query.audio is not None and query.video is not None and query.audio.samefile(query.video):
            return embed_path(model, query.audio, Recipe("audio_video", fps=settings.fps)).float(), "the fusion tower"
    both = [F_.normalize(_one(model, name, part, settings), dim=0) for name, part in parts.items()]
    return (both[0] + both[1]) / 2, "the mean of two unit vectors"


def _one(model: PEAV, kind: str, part: str | Path, settings: Settings) -> Tensor:
    if kind == "text":
        # Words have a head of their own for each kind of thing that they are compared with.
        return model.embed(text=[str(part).strip()], text_for=settings.kind)[0].float().cpu()
    return embed_path(model, part, Recipe(kind, fps=settings.fps))


def model_for(index: object, settings: Settings, given: str | None) -> str | None:
    """The model to load for an index: the one that was named, else the one that it was made with.

    Raises:
        UserError: none was named, and the index's is neither the packaged one nor a folder that is there. What an
            index says is no reason to fetch something from the hub.
    """
    name = settings.model_name
    if given is not None or name is None or Path(name).is_dir():
        return given if given is not None else name
    raise UserError(f"{shown(index, 60)}: was made with {settings.named}; give --model {shown(name, 60)}")
