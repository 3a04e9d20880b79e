"""The public sets that this project knows: one YAML file each in ``configs/evaluation``.

A file says how the set is evaluated and how its own metadata are read, so that ``peav evaluate --set NAME --data
FOLDER`` needs nothing but the set as its makers distribute it. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from typing import Any

from ..errors import UserError, shown

TASKS = ("retrieval", "classification", "frames")
# Query kind -> candidate kinds; "+" joins what is embedded together.
DIRECTIONS = (
    "text->audio",
    "audio->text",
    "text->video",
    "video->text",
    "text->audio+video",
    "audio+video->text",
    "audio->video",
    "video->audio",
    "audio+text->video",
    "video->audio+text",
    "video+text->audio",
    "audio->video+text",
)
INPUTS = ("audio", "video", "audio+video")
MATCHES = ("item", "text", "label")


@dataclass(frozen=True)
class EvaluationSet:
    """How a set is evaluated.

    ``name``: as in ``--set``. ``title``, ``licence``, ``where``, ``notes``: for people. ``format``: how its metadata
    are read, a name in `peav.evaluation.converters`. ``split``: the default one. ``metadata``: names under which the
    metadata may lie, anywhere in the folder. ``stems``: names of the media files without their ending, filled in
    from the metadata. ``items``: how many the split has, 0 if unknown. ``tasks``, ``directions``, ``inputs``: what is
    measured; empty means whatever the items and the model allow. ``match``: which answers are right, see
    `peav.evaluation.retrieval`. ``templates``: texts around a class name. ``labels``: the classes and the words for
    them; empty means those of the items.
    """

    name: str
    title: str = ""
    licence: str = ""
    where: str = ""
    notes: str = ""
    format: str = ""
    split: str = ""
    metadata: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()
    items: int = 0
    tasks: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    match: str | None = None
    templates: tuple[str, ...] = ("{}",)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("tasks", TASKS), ("directions", DIRECTIONS), ("inputs", INPUTS)):
            if unknown := set(getattr(self, name)) - set(known):
                raise ValueError(f"{self.name}: {name} {sorted(unknown)} unknown; choose from {', '.join(known)}")
        if self.match not in (None, *MATCHES):
            raise ValueError(f"{self.name}: match {self.match!r} unknown; choose from {', '.join(MATCHES)}")
        if bad := [template for template in self.templates if template.count("{}") != 1]:
            raise ValueError(f"{self.name}: template {bad[0]!r} has no single {{}} for the class name")

    def words(self, label: str) -> str:
        """The class name as a text: "Vacuum_cleaner" is "vacuum cleaner"."""
        return self.labels.get(label) or label.replace("_", " ").strip()

    def prompts(self, label: str) -> list[str]:
        """The class name in every template."""
        return [template.replace("{}", self.words(label)) for template in self.templates]


def known_sets() -> list[str]:
    """Names for ``--set``, in alphabetical order."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def load_set(name: str) -> EvaluationSet:
    """The set called ``name``.

    Raises:
        UserError: there is none; the message names those that are known.
    """
    if name not in known_sets():
        raise UserError(f"no set called '{shown(name, 40)}' is known; choose {', '.join(known_sets())}, or a manifest")
    import yaml  # type: ignore[import-untyped]

    return from_dict(name, yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8")))


def from_dict(name: str, values: Mapping[str, Any]) -> EvaluationSet:
    """The set of a YAML file's content.

    Raises:
        ValueError: a field is unknown or has an impossible value.
    """
    known = {f.name: f for f in fields(EvaluationSet)}
    if unknown := set(values) - set(known):
        raise ValueError(f"{name}: unknown fields {sorted(unknown)}")
    made: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
    return EvaluationSet(name=name, **made)


def _folder():
    return files("configs") / "evaluation"
