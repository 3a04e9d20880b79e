"""``peav localize``, with a model whose answers are known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from frame_fakes import Meter

import peav
from peav import cli

RATE = 8_000  # the model's, so that no filter rings


@pytest.fixture
def meter(monkeypatch, tmp_path) -> Meter:
    model = Meter(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peav, "load", lambda name=None, device="auto": model)
    wave = np.zeros(2 * RATE + 100, np.float32)
    wave[8_000:11_840] = 0.2  # whole frames
    wave[11_840:14_080] = 0.065
    wave[-100:] = 0.9
    soundfile.write("street.wav", wave, RATE, subtype="FLOAT")
    return model


def run(*arguments: str) -> int:
    return cli.main(["localize", *arguments])


def refused(arguments: list[str], capfd, expected: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert run(*arguments) == 2
    out, err = capfd.readouterr()
    assert "Traceback" not in err and len(err.splitlines()) == 1, err
    assert re.search(expected, err), err
    assert out == "" and {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_a_table_of_spans(meter, capfd):
    assert run("street.wav", "--prompt", "loud", "-p", "dog", "--prompt", "loud") == 0
    title, header, *rows = capfd.readouterr().out.splitlines()
    assert title == "street.wav, 2.01 s, on cpu"
    assert header.split() == ["prompt", "start", "end", "confidence"]
    # The log-odds of the levels are 2, -0.7 and 3.625; the published threshold is a probability of 0.3.
    assert [row.split() for row in rows[:2]] == [["loud", "1.00", "1.76", "0.679"], ["loud", "2.00", "2.01", "0.974"]]
    assert rows[2].split()[:3] == ["dog", "0.00", "2.01"] and len(rows) == 3


def test_what_is_not_heard_is_said(meter, capfd):
    assert run("street.wav", "-p", "loud", "--threshold", "0.99") == 0
    assert re.fullmatch(r"  loud +not heard \(highest probability 0\.9\d\d\)", capfd.readouterr().out.splitlines()[2])


def test_a_silent_file_is_an_answer(meter, capfd):
    soundfile.write("still.wav", np.zeros(RATE), RATE)
    assert run("still.wav", "-p", "quiet") == 0
    assert capfd.readouterr().out.splitlines()[1] == "  nothing heard: the recording is silent"
    assert run("still.wav", "-p", "quiet", "--json", "--plot", "still.png") == 0
    document = json.loads(capfd.readouterr().out)
    assert document["silent"] is True and document["prompts"][0]["spans"] == [] and Path("still.png").is_file()


def test_one_json_document(meter, capfd):
    arguments = ["street.wav", "-p", "loud", "--json", "--threshold", "0.5", "--hysteresis", "0.2", "--plot", "t.png"]
    assert run(*arguments) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["file"], found["threshold"], found["hysteresis"], found["plot"]) == ("street.wav", 0.5, 0.2, "t.png")
    assert (found["seconds"], found["frame_seconds"], found["device"]) == (2.0125, 0.04, "cpu")
    (prompt,) = found["prompts"]
    assert prompt["prompt"] == "loud"
    assert [(span["start"], span["end"]) for span in prompt["spans"]] == [(1.0, 1.76), (2.0, 2.0125)]
    assert prompt["spans"][1]["confidence"] == pytest.approx(torch.tensor(3.625).sigmoid().item(), abs=1e-3)
    assert prompt["highest_probability"] == prompt["spans"][1]["confidence"]


def test_options_reach_the_rule(meter, capfd):
    def spans(*options: str) -> list[tuple[float, float]]:
        assert run("street.wav", "-p", "loud", "--json", *options) == 0
        found = json.loads(capfd.readouterr().out)["prompts"][0]["spans"]
        return [(span["start"], span["end"]) for span in found]

    assert spans("--threshold", "0.7") == [(1.0, 1.48), (2.0, 2.0125)]
    assert spans("--threshold", "0.7", "--hysteresis", "0.2")[0] == (1.0, 1.76)
    assert spans("--min-duration", "0.5") == [(1.0, 1.76)]
    assert spans("--max-gap", "0.24") == [(1.0, 2.0125)]
    assert spans("--smooth", "0.12") == [(1.0, 1.76)]


def test_the_picture_is_written_and_named(meter, capfd):
    assert run("street.wav", "-p", "loud", "--plot", "t.png") == 0
    assert capfd.readouterr().out.splitlines()[-1] == "picture: t.png"
    assert Path("t.png").read_bytes()[:4] == b"\x89PNG"
    refused(["street.wav", "-p", "loud", "--plot", "t.png"], capfd, "t.png: exists already; give --force")
    assert run("street.wav", "-p", "loud", "--plot", "t.png", "--force") == 0


MISTAKES = {
    "no prompt": (["street.wav"], "no prompt"),
    "empty prompt": (["street.wav", "-p", " "], "a prompt is empty"),
    "threshold": (["street.wav", "-p", "a", "--threshold", "1.2"], "threshold 1.2 is no probability"),
    "hysteresis": (["street.wav", "-p", "a", "--hysteresis", "-1"], "hysteresis -1 is no probability"),
    "low above high": (["street.wav", "-p", "a", "--threshold", "0.5", "--hysteresis", "0.6"], "0.6 is above the"),
    "low above default": (["street.wav", "-p", "a", "--hysteresis", "0.6"], "0.6 is above the threshold 0.3"),
    "seconds": (["street.wav", "-p", "a", "--smooth", "-2"], "smooth -2 is no length of time"),
    "missing file": (["none.wav", "-p", "a"], "none.wav: no such file"),
    "picture over the recording": (["street.wav", "-p", "a", "--plot", "street.wav", "--force"], "written as PNG"),
    "no folder": (["street.wav", "-p", "a", "--plot", "x/t.png"], "there is no folder x"),
    "device": (["street.wav", "-p", "a", "--device", "meta"], "device 'meta' is unknown"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_one_line_and_two(meter, capfd, kind):
    arguments, expected = MISTAKES[kind]
    refused(arguments, capfd, expected)
    assert meter.lengths == []  # nothing was computed first


def test_a_model_without_frames_names_one_that_has_them(meter, capfd):
    meter.has_frames = False
    refused(["street.wav", "-p", "a"], capfd, "this model embeds whole clips .* facebook/pe-a-frame-small")
    refused(["street.wav", "-p", "a", "--model", "mine"], capfd, "model mine embeds whole clips")
