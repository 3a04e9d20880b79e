"""``separate film --click ...`` from the command line to the files, with a tiny model that sees."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from seeing import seeing_model, sounding_film

import samaudio
from peav import media
from samaudio import cli
from samaudio.prompts import Mask, Video

CLICK, NEAR, BESIDE = "25,30@0.3", "28,33@0.3", "78,58@0.3"


@pytest.fixture(scope="module")
def separator():
    return samaudio.Separator(seeing_model(), "seeing")


@pytest.fixture
def film(tmp_path, separator, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(samaudio, "load", lambda *_, **__: separator)
    return sounding_film(Path("clip.mkv"))


def pictures(path: str | Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_a_click_gives_the_film_with_only_the_sound_and_without_it(film, capfd):
    arguments = [str(film), "--click", CLICK, "--click", NEAR, "--not-click", BESIDE, "--remux", "--json"]
    assert cli.main(arguments) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    assert entry["prompt"] == "click 25,30 at 0.3s" and "GrabCut" in entry["followed_by"]
    target, residual, only, without = (entry[name] for name in ("target", "residual", "film", "film_without"))
    assert pictures(only) == pictures(without) == pictures(film)
    mixture = media.read(film)[0]
    for made, stem in ((only, target), (without, residual)):
        assert float((media.read(made)[0] - media.read(stem)[0]).abs().max()) < 1e-4
    assert float((media.read(only)[0] + media.read(without)[0] - mixture).abs().max()) < 1e-4


@pytest.mark.parametrize("how", ["--box", "--mask", "--background-mask", "--whole-picture"])
def test_other_ways_to_point_reach_the_model(film, separator, capfd, monkeypatch, how):
    seen = []
    watch = separator.model.watch
    monkeypatch.setattr(separator.model, "watch", lambda path, points, **rest: seen.append((points, watch(
        path, points, **rest))) or seen[-1][1])  # fmt: skip
    white = np.zeros((72, 96), np.uint8)
    white[18:43, 8:50] = 255
    Image.fromarray(white if how == "--mask" else 255 - white).save("mask.png")
    value = {"--box": ["8,17,48,43@0.3"], "--whole-picture": []}.get(how, ["mask.png"])
    assert cli.main([str(film), how, *value, "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    assert Path(entry["target"]).is_file() and "film" not in entry
    ((point,), sight) = seen[0]
    if how == "--whole-picture":
        assert isinstance(point, Video) and sight.used == "whole picture"
        return
    assert isinstance(point, Mask) == (how != "--box")
    assert bool(sight.track.masks[2, 30, 24]) and not bool(sight.track.masks[2, 60, 75])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--click", "200,30@0.3"], "outside of the picture, which has 96 x 72 pixels"),
        (["--click", "25,30@9"], "after the end of clip.mkv, which lasts 2.00 s"),
        (["--box", "1,1,9,9@0", "--box", "20,20,30,30@0"], "two boxes at 0 s"),
        (["--click", CLICK, "--mask", "mask.png"], "one mask says all"),
    ],
)
def test_what_is_not_in_the_film_is_refused_in_one_line(film, capfd, monkeypatch, arguments, message):
    """Before the model is loaded."""
    monkeypatch.setattr(samaudio, "load", lambda *_, **__: pytest.fail("loaded a model"))
    Image.new("L", (96, 72), 255).save("mask.png")
    assert cli.main([str(film), *arguments, "--remux"]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert message in line
    assert not list(Path().glob("separated/**/*.*"))


def test_what_followed_the_object_is_said_and_only_where_something_was_followed(film, capfd):
    assert cli.main([str(film), "--click", CLICK]) == 0
    assert "followed by GrabCut" in capfd.readouterr().out
    assert cli.main([str(film), "--prompt", "dog", "--json"]) == 0
    assert "followed_by" not in json.loads(capfd.readouterr().out)[0]
