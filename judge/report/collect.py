"""Which files belong together: mixture, target, residual and prompt.

Two layouts are understood. A ``manifest.jsonl`` in the folder says everything. Without one, each folder of sounds is
one recording and each file in it a target, whose name is the prompt:

    separated/mix/guitar.wav, guitar.residual.wav        what `separate` writes
    separated/htdemucs/mix/vocals.wav, no_vocals.wav     what Demucs writes

The mixture is then a file called ``mixture`` beside them, one of the given mixtures that is called like the folder,
or target + residual, where both are there for any of its targets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peav.errors import UserError, shown

MANIFEST = "manifest.jsonl"
SUFFIXES = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".m4a", ".aac"})
_MIXTURES = ("mixture", "mix")
_LONGEST_LINE = 100_000  # characters


@dataclass(frozen=True)
class Item:
    """One target and what it was cut from.

    ``mixture`` is None where it has to be put together from two ``halves``, a target and its residual. ``system`` names
    who did the separating, where several are compared.
    """

    recording: str
    prompt: str
    target: Path
    mixture: Path | None
    residual: Path | None = None
    system: str = ""
    halves: tuple[Path, Path] | None = None


def find_items(
    folder: Path, mixtures: Sequence[Path] = (), prompts: Mapping[str, str] | None = None
) -> list[Item]:
    """Everything in and below a folder, in order.

    Args:
        mixtures: recordings, or folders of them; needed where neither a manifest nor residuals say what was separated.
        prompts: words for a name of a file, instead of the name itself: ``{"vocals": "singing voice"}``.

    Raises:
        UserError: there is nothing to judge, the manifest is wrong, or a mixture is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}: no such folder; give the one that holds the separated sounds")
    manifest = folder / MANIFEST
    if manifest.is_file():
        if mixtures:
            raise UserError(f"{shown(manifest)} names the mixtures already; leave out --mixture")
        return _from_manifest(manifest)
    return _from_names(folder, _expanded(mixtures), prompts or {})


def _from_manifest(manifest: Path) -> list[Item]:
    items = []
    try:
        with manifest.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    items.append(_row(line, manifest.parent, f"{shown(manifest)}, line {number}"))
    except UnicodeDecodeError:
        raise UserError(f"{shown(manifest)}: is not UTF-8 text; save it as such") from None
    except OSError as error:
        raise UserError(f"{shown(manifest)}: cannot be read ({error.strerror}); check its permissions") from None
    if not items:
        raise UserError(f"{shown(manifest)}: holds no rows; write one JSON object per target")
    return items


def _row(line: str, folder: Path, where: str) -> Item:
    try:
        row = json.loads(line) if len(line) < _LONGEST_LINE else None
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise UserError(f'{where}: is no JSON object; write {{"mixture": ..., "target": ..., "prompt": ...}}')

    def text(name: str, default: str | None = None) -> str:
        value: Any = row.get(name, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise UserError(f"{where}: '{name}' is {shown(value, 40)}; give text")
        return value

    mixture = folder / text("mixture")
    residual = text("residual", "")
    return Item(
        recording=text("recording", "") or mixture.stem,
        prompt=text("prompt").strip(),
        target=folder / text("target"),
        mixture=mixture,
        residual=folder / residual if residual else None,
        system=text("system", "").strip(),
    )


def _from_names(folder: Path, mixtures: Sequence[Path], prompts: Mapping[str, str]) -> list[Item]:
    given = {path.resolve() for path in mixtures}
    groups: dict[Path, list[Path]] = {}
    try:
        for path in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            is_sound = not hidden and path.suffix.lower() in SUFFIXES and path.is_file()
            if is_sound and path.resolve() not in given:
                groups.setdefault(path.parent, []).append(path)
    except OSError as error:
        raise UserError(f"{shown(folder)}: cannot be searched ({error.strerror}); check its permissions") from None
    items: list[Item] = []
    for group, paths in groups.items():
        parents = group.relative_to(folder).parts[:-1]
        items += _group(group, "/".join(parents), paths, mixtures, prompts, alone=len(groups) == 1)
    if not items:
        raise UserError(f"{shown(folder)}: holds no separated sounds; give the folder that a separator wrote to")
    unused = set(prompts) - {item.target.stem for item in items}
    if unused:
        raise UserError(f"no target is called '{shown(sorted(unused)[0], 60)}'; give --prompt NAME=WORDS with its name")
    return items


def _group(
    group: Path, system: str, paths: Sequence[Path], mixtures: Sequence[Path], prompts: Mapping[str, str], alone: bool
) -> list[Item]:
    """The targets in one folder."""
    stems = {path.stem for path in paths}
    beside = next((path for name in _MIXTURES for path in paths if path.stem == name), None)
    mixture = beside or _called_like(group.name, mixtures, alone)
    targets = [path for path in paths if path != beside and not _is_residual(path.stem, stems)]
    residuals = {
        target: next((path for path in paths if path.stem in _residuals(target.stem)), None) for target in targets
    }
    halves = next(((target, residual) for target, residual in residuals.items() if residual is not None), None)
    if targets and mixture is None and halves is None:
        raise UserError(
            f"{shown(targets[0])}: it is not known what it was cut from; give --mixture FILE, or a folder with a "
            f"recording called '{shown(group.name, 40)}', or a {MANIFEST}"
        )
    return [
        Item(group.name, _words(target.stem, prompts), target, mixture, residual, system, None if mixture else halves)
        for target, residual in residuals.items()
    ]


def _words(stem: str, prompts: Mapping[str, str]) -> str:
    return prompts.get(stem) or " ".join(stem.replace("_", " ").split()) or stem


def _residuals(stem: str) -> tuple[str, str]:
    return f"{stem}.residual", f"no_{stem}"


def _is_residual(stem: str, stems: set[str]) -> bool:
    if stem.endswith(".residual"):
        return True
    return stem.startswith("no_") and stem.removeprefix("no_") in stems


def _called_like(name: str, mixtures: Sequence[Path], alone: bool) -> Path | None:
    if alone and len(mixtures) == 1:
        return mixtures[0]
    # Separators replace what file systems do not like, each in its way.
    return next((path for path in mixtures if _plain(path.stem) == _plain(name)), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold())


def _expanded(mixtures: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in mixtures:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
            if not inside:
                raise UserError(f"{shown(path)}: holds no recordings; give the folder with the mixtures")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{shown(path)}: no such file; check the name of the mixture")
    return found
