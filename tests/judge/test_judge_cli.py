"""The ``judge`` command: what it prints, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from judge_fakes import RATE, Ears, Network, tone

import judge
from judge import cli


@pytest.fixture(autouse=True)
def loaded(monkeypatch, tmp_path) -> dict:
    """Files to score, and what `judge.load` was called with."""
    monkeypatch.chdir(tmp_path)
    asked: dict = {"network": True}

    def load(model=None, device="auto", *, embedder=None, weights=None):
        asked.update(model=model, device=device, embedder=embedder, weights=weights)
        return judge.Judge(Ears(), Network() if asked["network"] else None, weights)

    monkeypatch.setattr(judge, "load", load, raising=False)
    low, high = tone(200, 2.0), tone(3_000, 2.0)
    sounds = {"mix": low + high, "a": low, "b": 0.1 * low, "wrong": high, "silent": 0 * low}
    for name, samples in sounds.items():
        soundfile.write(f"{name}.wav", samples.numpy(), RATE)
    soundfile.write("wide.wav", np.stack([sounds["mix"].numpy()] * 2, 1), RATE)
    return asked


def test_score_is_a_table_that_says_what_its_numbers_mean(capfd):
    assert cli.main(["score", "wide.wav", "a.wav", "low"]) == 0
    title, *rows, note = capfd.readouterr().out.splitlines()
    assert title == 'a.wav, "low", on cpu'
    assert [row.split()[:2] for row in rows] == [
        ["overall", "3.54"], ["recall", "1.60"], ["precision", "1.00"], ["faithfulness", "3.00"],
        ["similarity", "1.000"], ["presence", "1.000"],
    ]  # fmt: skip
    assert all(row.split(maxsplit=2)[2] for row in rows)
    assert note == "  note: the mixture was mixed to mono from 2 channels"


def test_without_a_network_the_command_says_so(capfd, loaded):
    loaded["network"] = False
    assert cli.main(["score", "mix.wav", "a.wav", "low"]) == 0
    title, similarity, note = capfd.readouterr().out.splitlines()
    assert similarity.split()[:2] == ["similarity", "1.000"] and "need a judge network" in note
    assert cli.main(["rank", "mix.wav", "a.wav", "wrong.wav", "-p", "low"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split() == ["similarity"]


def test_score_as_json_has_null_for_what_is_not_known(capfd):
    assert cli.main(["score", "mix.wav", "silent.wav", "low", "--json", "--curve"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["target"], found["similarity"], found["overall"]) == ("silent.wav", None, 1.0)
    assert found["notes"] == ["the target is silent"]
    assert found["curve"] == {
        "step": 1.0, "overall": [0, 0], "recall": [pytest.approx(1.6)] * 2, "precision": [1, 1], "faithfulness": [3, 3],
    }  # fmt: skip


def test_an_example_stands_for_words(capfd):
    assert cli.main(["score", "mix.wav", "a.wav", "--example", "b.wav", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["prompt"], found["overall"]) == ("b.wav", None)
    assert found["similarity"] == pytest.approx(1.0)


def test_plot_writes_a_picture_and_keeps_what_is_there(capfd):
    arguments = ["score", "mix.wav", "a.wav", "low $x", "--plot", "curve.png"]
    assert cli.main(arguments) == 0
    picture = Path("curve.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000
    assert cli.main(arguments) == 2
    assert "exists already" in capfd.readouterr().err
    assert cli.main([*arguments, "--force"]) == 0
    assert not list(Path().glob("*.partial*"))


def test_rank_lists_the_best_first(capfd):
    arguments = ["rank", "mix.wav", "silent.wav", "b.wav", "wrong.wav", "a.wav", "--prompt", "low"]
    assert cli.main(arguments) == 0
    title, head, *rows = capfd.readouterr().out.splitlines()
    assert title == '"low" in mix.wav, best first, on cpu'
    assert head.split() == ["overall", "recall", "precision", "faithfulness", "similarity", "presence"]
    places = [["1", "a.wav"], ["2", "wrong.wav"], ["3", "b.wav"], ["4", "silent.wav"]]
    assert [row.split()[0::7] for row in rows] == places
    assert rows[-1].split()[5] == "silent"
    assert cli.main([*arguments, "--weights", "similarity=1", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [row["target"] for row in found][-2:] == ["wrong.wav", "silent.wav"]
    assert found[0]["ranking"] > found[2]["ranking"]


def test_models_are_handed_on(loaded):
    assert cli.main(["score", "mix.wav", "a.wav", "low", "--model", "m", "--embedder", "e", "--device", "cpu"]) == 0
    assert (loaded["model"], loaded["embedder"], loaded["device"]) == ("m", "e", "cpu")


MISTAKES = {
    "missing": (["score", "none.wav", "a.wav", "guitar"], "none.wav: no such file"),
    "empty prompt": (["score", "mix.wav", "a.wav", ""], "prompt is empty"),
    "no prompt": (["rank", "mix.wav", "a.wav"], "--example FILE"),
    "two prompts": (["score", "mix.wav", "a.wav", "low", "--example", "b.wav"], "give one prompt"),
    "no such example": (["score", "mix.wav", "a.wav", "--example", "none.wav"], "none.wav: no such file"),
    "no target": (["score", "mix.wav"], "TARGET"),
    "device": (["rank", "mix.wav", "a.wav", "-p", "x", "--device", "abacus"], "device 'abacus' is unknown"),
    "weights": (["rank", "mix.wav", "a.wav", "-p", "x", "--weights", "all=1"], "weight 'all=1'"),
    "curve": (["score", "mix.wav", "a.wav", "low", "--curve"], "give --json too"),
    "plot folder": (["score", "mix.wav", "a.wav", "low", "--plot", "none/c.png"], "no folder none"),
    "no curve": (["score", "mix.wav", "a.wav", "--example", "b.wav", "--plot", "c.png"], "no curve"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_one_line_and_two(capfd, kind):
    arguments, expected = MISTAKES[kind]
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "Traceback" not in err
    assert re.search(expected, err), err


def test_help_does_not_import_torch():
    code = "import sys; from judge.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    root = Path(cli.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No true stem is needed" in " ".join(done.stdout.split())
