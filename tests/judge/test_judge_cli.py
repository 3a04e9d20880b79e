"""The ``judge`` command: prints what is measured and says what is not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import judge
from judge import cli
from judge.score import Score

RATE = 8_000


class Stub:
    """Likes a target the more the louder it is."""

    device = torch.device("cpu")

    def score(self, mixture, target, prompt) -> Score:
        peak = float(np.abs(soundfile.read(target)[0]).max())
        return Score(similarity=peak or float("nan"))

    def rank(self, mixture, targets, prompt):
        scores = [(i, self.score(mixture, target, prompt)) for i, target in enumerate(targets)]
        return sorted(scores, key=lambda item: -np.nan_to_num(item[1].similarity))


@pytest.fixture(autouse=True)
def files(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge, "load", lambda model=None, device="auto": Stub(), raising=False)
    for name, level in {"mix": 0.5, "a": 0.25, "b": 0.5, "silent": 0.0}.items():
        soundfile.write(f"{name}.wav", np.full(RATE, level), RATE)


def test_score_is_a_short_table_that_says_what_is_missing(capfd):
    assert cli.main(["score", "mix.wav", "a.wav", "guitar"]) == 0
    title, similarity, note = capfd.readouterr().out.splitlines()
    assert title == 'a.wav, "guitar", on cpu'
    assert similarity.split() == ["similarity", "0.250"]
    assert "overall, recall, precision and faithfulness" in note and "not part of this version" in note


def test_score_as_json_has_null_for_what_is_not_measured(capfd):
    assert cli.main(["score", "mix.wav", "silent.wav", "guitar", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["target"], found["similarity"], found["overall"]) == ("silent.wav", None, None)


def test_rank_lists_the_best_first(capfd):
    arguments = ["rank", "mix.wav", "silent.wav", "a.wav", "b.wav", "--prompt", "guitar"]
    assert cli.main(arguments) == 0
    lines = capfd.readouterr().out.splitlines()[1:]
    assert [line.split() for line in lines] == [
        ["1", "0.500", "b.wav"], ["2", "0.250", "a.wav"], ["3", "silent", "silent.wav"],
    ]  # fmt: skip
    assert cli.main([*arguments, "--json"]) == 0
    assert [row["target"] for row in json.loads(capfd.readouterr().out)] == ["b.wav", "a.wav", "silent.wav"]


MISTAKES = {
    "missing": (["score", "none.wav", "a.wav", "guitar"], "none.wav: no such file"),
    "empty prompt": (["score", "mix.wav", "a.wav", ""], "prompt is empty"),
    "no prompt": (["rank", "mix.wav", "a.wav"], "--prompt"),
    "no target": (["score", "mix.wav"], "TARGET"),
    "device": (["rank", "mix.wav", "a.wav", "-p", "x", "--device", "abacus"], "device 'abacus' is unknown"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_one_line_and_two(capfd, kind):
    arguments, expected = MISTAKES[kind]
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "Traceback" not in err
    assert re.search(expected, err), err


def test_help_is_honest_and_does_not_import_torch():
    code = "import sys; from judge.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    root = Path(cli.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not part of it yet" in " ".join(done.stdout.split())
