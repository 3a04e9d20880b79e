"""``judge report`` and ``judge serve`` on the command line."""

from __future__ import annotations

import csv
import json
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
from peav.errors import UserError

RATE = 8_000


class Stub:
    device = torch.device("cpu")

    def score(self, mixture, target, prompt):
        if Path(target).stem == "bad":
            raise UserError("bad.wav: cannot be judged")
        return Score(overall=3.0, similarity=0.5)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge, "load", lambda model=None, device="auto", embedder=None: Stub(), raising=False)
    (tmp_path / "sep" / "mix").mkdir(parents=True)
    for name in ("mix.wav", "sep/mix/vocals.wav"):
        soundfile.write(name, np.full(RATE, 0.25), RATE)


def test_report_writes_both_files_and_says_where(capfd):
    assert cli.main(["report", "sep", "--mixture", "mix.wav", "--prompt", "vocals=singing voice"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == ["1 of 1 targets judged on cpu", f"  {Path('sep/report.html')}",
                                f"  {Path('sep/report.csv')}"] and err == ""  # fmt: skip
    assert "singing voice" in Path("sep/report.html").read_text()
    with Path("sep/report.csv").open() as lines:
        assert [row["prompt"] for row in csv.DictReader(lines)] == ["singing voice"]


def test_report_as_json_elsewhere(capfd):
    assert cli.main(["report", "sep", "--mixture", "mix.wav", "-o", "mine.html", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["html"], found["csv"]) == ("mine.html", "mine.csv")
    (row,) = found["rows"]
    assert (row["prompt"], row["overall"], row["recall"], row["mixture"]) == ("vocals", 3.0, None, "mix.wav")


def test_what_fails_is_one_line_and_the_rest_is_done(capfd):
    soundfile.write("sep/mix/bad.wav", np.full(RATE, 0.1), RATE)
    assert cli.main(["report", "sep", "--mixture", "mix.wav"]) == 2
    out, err = capfd.readouterr()
    assert err == "bad.wav: cannot be judged\n" and out.startswith("1 of 2 targets judged")
    assert Path("sep/report.html").is_file()


MISTAKES = {
    "folder": (["report", "none"], "none: no such folder"),
    "mixture": (["report", "sep"], "give --mixture"),
    "words": (["report", "sep", "--mixture", "mix.wav", "-p", "vocals"], "give NAME=WORDS"),
    "size": (["report", "sep", "--mixture", "mix.wav", "--max-mb", "-1"], "--max-mb is -1"),
    "exists": (["report", "sep", "--mixture", "mix.wav", "-o", "sep/there"], "exists already"),
    "device": (["report", "sep", "--mixture", "mix.wav", "--device", "abacus"], "device 'abacus' is unknown"),
    "port": (["serve", "--port", "99999"], "port 99999"),
    "token": (["serve", "--token", "a b"], "holds a space"),
    "upload": (["serve", "--max-upload", "0"], "--max-upload is 0 MiB"),
    "pending": (["serve", "--max-pending", "0"], "limit on pending is 0"),
    "host": (["serve", "--host", "no.such.host.invalid", "--token", "x"], "cannot listen there"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_one_line_and_two(capfd, monkeypatch, kind):
    monkeypatch.setattr(judge, "load", None)  # none of them waits for a model
    Path("sep/there.csv").write_text("mine")
    arguments, says = MISTAKES[kind]
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and says in err
    assert not Path("sep/report.html").exists() and Path("sep/there.csv").read_text() == "mine"


def test_a_port_that_is_taken_is_known_before_the_model_is_loaded(capfd, monkeypatch):
    import socket

    monkeypatch.setattr(judge, "load", None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
    assert f"127.0.0.1:{port}: cannot listen there" in capfd.readouterr().err


def test_everybody_is_let_in_only_with_a_warning(capfd, monkeypatch):
    started = []
    monkeypatch.setattr("judge.server.run.serve", lambda load, settings: started.append(settings))
    monkeypatch.setenv("JUDGE_TOKEN", "from-the-environment")
    assert cli.main(["serve", "--host", "0.0.0.0", "--max-upload", "1", "--batch-wait", "5"]) == 0
    assert capfd.readouterr().err == ""
    monkeypatch.delenv("JUDGE_TOKEN")
    assert cli.main(["serve", "--host", "0.0.0.0"]) == 0
    assert "no token is set" in capfd.readouterr().err
    first, second = started
    assert (first.token, second.token) == ("from-the-environment", None)
    assert (first.upload_bytes, first.batch_wait) == (1 << 20, 0.005)


def test_a_missing_extra_is_named(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve"]) == 2
    assert 'pip install "samaudio[serve]"' in capfd.readouterr().err


def test_help_does_not_import_what_is_heavy():
    code = (
        "import sys; from judge.cli import main; main(['serve', '--help']); main(['report', '--help']); "
        "sys.exit(str({'torch', 'fastapi', 'uvicorn', 'matplotlib'} & set(sys.modules)).replace('set()', '') or 0)"
    )
    root = Path(cli.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--max-pending" in done.stdout and "--mixture" in done.stdout
