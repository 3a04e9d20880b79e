"""``peav index``, ``peav search`` and ``peav embed --video``, with an embedder whose answers are known."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from index_fakes import BLUE, GREEN, RATE, RED, Deaf, Tones, film, save, tone

import peav
from peav import cli
from peav.index import Index, search


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def model(monkeypatch, tmp_path) -> Tones:
    """What every command loads, and a folder to work in."""
    embedder = Tones()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peav, "load", lambda model=None, device="auto": embedder)
    save(Path("sounds/low.wav"), tone("low"))
    save(Path("sounds/mid.wav"), tone("mid"))
    save(Path("sounds/far/long.wav"), tone("low", 2.0), tone("high", 1.0))
    return embedder


def called(capfd, *arguments: str, code: int = 0) -> str:
    assert cli.main(list(arguments)) == code, capfd.readouterr()
    return capfd.readouterr().out


def refused(capfd, *arguments: str) -> str:
    assert cli.main(list(arguments)) == 2
    out, err = capfd.readouterr()
    assert out == "" and "Traceback" not in err and len(err.splitlines()) == 1, err
    return err


def found(capfd, *arguments: str) -> dict:
    return json.loads(called(capfd, "search", "sounds.index", *arguments, "--json"))


def names(document: dict) -> list[str]:
    return [hit["path"] for hit in document["results"]]


def test_index_says_what_it_did(model, capfd):
    save(Path("sounds/quiet.wav"), np.zeros(RATE, np.float32))
    Path("sounds/broken.wav").write_text("no sound")
    assert cli.main(["index", "sounds/"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "sounds.index: 4 files, 3 rows of audio, model the packaged model (tones), on cpu",
        "  4 added, 0 unchanged",
        "  1 silent, nothing to embed: quiet.wav",
        "  1 could not be read and are left out: broken.wav",
    ]
    assert len(err.splitlines()) == 1 and "broken.wav: is not audio" in err
    assert cli.main(["index", "sounds", "--strict"]) == 2
    Path("sounds/broken.wav").unlink()
    Path("sounds/mid.wav").rename("sounds/middle.wav")
    out = called(capfd, "index", "sounds", "--strict")
    assert "1 known by their content, 3 unchanged" in out and "1 gone or unreadable, dropped: mid.wav" in out


def test_index_as_json(model, capfd):
    report = json.loads(called(capfd, "index", "sounds", "-o", "i", "--window", "1", "--json"))
    assert report["added"] == ["far/long.wav", "low.wav", "mid.wav"] and report["failed"] == {}
    assert (report["files"], report["rows"], report["window"], report["model"]) == (3, 3 + 5, 1.0, "tones")


def test_search_by_words(model, capfd):
    called(capfd, "index", "sounds")
    out = called(capfd, "search", "sounds.index", "--text", " high ")
    title, first, *_ = out.splitlines()
    assert title == 'sounds.index: 3 files; cosine to "high", exact'
    assert re.fullmatch(r"  +0\.\d{4}  far/long\.wav", first)
    assert model.asked == ["audio"]  # the words' head for what the index holds
    document = found(capfd, "-t", "high", "--top", "1")
    assert document["exact"] and document["score"] == "cosine" and len(document["results"]) == 1
    assert document["results"][0]["file"] == str(Path("sounds/far/long.wav").absolute())


def test_search_tells_times(model, capfd):
    called(capfd, "index", "sounds", "--window", "1")
    out = called(capfd, "search", "sounds.index", "-t", "high")
    assert re.search(r"1\.0000    2\.0-3\.0 s  far/long\.wav", out) or "2.0-3.0 s  far/long.wav" in out
    hits = found(capfd, "-t", "low", "--every")["results"]
    assert [(hit["path"], hit["start"]) for hit in hits[:3]] == [
        ("far/long.wav", 0.0), ("far/long.wav", 1.0), ("low.wav", 0.0)]  # fmt: skip
    assert found(capfd, "-t", "high", "--whole")["results"][0]["start"] is None


def test_search_by_sound_and_pictures(model, capfd):
    called(capfd, "index", "sounds")
    save(Path("like.wav"), tone("mid"))
    film(Path("red.mp4"), [RED])
    assert names(found(capfd, "--audio", "like.wav"))[0] == "mid.wav"
    document = found(capfd, "--video", "red.mp4", "-k", "2")
    assert names(document) == ["low.wav", "far/long.wav"] and document["query"]["embedded_as"] == "video"


def test_words_and_sound_by_the_models_head_or_by_the_mean(model, capfd, monkeypatch):
    called(capfd, "index", "sounds")
    save(Path("like.wav"), tone("mid"))
    seen = []
    monkeypatch.setattr(Index, "search", lambda self, vector, *rest, **options: seen.append(vector) or [])
    both = ("--text", "low", "--audio", "like.wav")
    assert found(capfd, *both)["query"]["embedded_as"] == "the model's head for audio and text"
    assert found(capfd, *both, "--mean")["query"]["embedded_as"] == "the mean of two unit vectors"
    monkeypatch.setattr(Tones, "modalities", Deaf.modalities)
    assert found(capfd, *both)["query"]["embedded_as"] == "the mean of two unit vectors"
    np.testing.assert_allclose(seen[0] / seen[0].norm(), torch.tensor([2, 1, 0]) / 5**0.5, atol=0.02)
    for vector in seen[1:]:
        np.testing.assert_allclose(vector, [0.5, 0.5, 0.0], atol=0.02)
    assert "(the mean of two unit vectors), exact" in called(capfd, "search", "sounds.index", *both)


def test_sound_and_pictures_of_one_film_are_one(model, capfd, monkeypatch):
    called(capfd, "index", "sounds")
    film(Path("both.mkv"), [BLUE], tone("low", 1.0))
    film(Path("green.mp4"), [GREEN])
    assert found(capfd, "--audio", "both.mkv", "--video", "both.mkv")["query"]["embedded_as"] == "the fusion tower"
    other = found(capfd, "--audio", "both.mkv", "--video", "green.mp4")
    assert other["query"]["embedded_as"] == "the mean of two unit vectors"
    assert found(capfd, "--text", "low", "--video", "green.mp4")["query"]["embedded_as"].endswith("video and text")


def test_like_a_row_of_the_index_needs_no_model(model, capfd, monkeypatch):
    called(capfd, "index", "sounds", "--window", "1")
    save(Path("sounds/odd@2.wav"), tone("mid"))
    called(capfd, "index", "sounds")
    monkeypatch.setattr(peav, "load", lambda *a, **k: pytest.fail("loaded"))
    assert names(found(capfd, "--like", "mid.wav"))[0] == "odd@2.wav"
    assert names(found(capfd, "--like", "odd@2.wav"))[0] == "mid.wav"
    assert "far/long.wav" not in names(found(capfd, "--like", "far/long.wav@2.5"))
    assert names(found(capfd, "--like", "far/long.wav@0.5"))[0] == "low.wav"


def test_faiss_says_that_it_is_approximate(model, capfd, monkeypatch):
    pytest.importorskip("faiss")
    called(capfd, "index", "sounds")
    exact, near = found(capfd, "-t", "low"), found(capfd, "-t", "low", "--faiss")
    assert exact["exact"] and not near["exact"] and names(exact) == names(near)
    monkeypatch.setattr(search, "MANY", 1)
    assert not found(capfd, "-t", "low")["exact"] and found(capfd, "-t", "low", "--exact")["exact"]
    assert "faiss, exact scores" in called(capfd, "search", "sounds.index", "-t", "low")


def test_two_models_are_not_mixed(model, capfd, monkeypatch, tmp_path):
    called(capfd, "index", "sounds")
    monkeypatch.setattr(peav, "load", lambda model=None, device="auto": Tones("other"))
    for command in (["index", "sounds", "--model", "big"], ["search", "sounds.index", "-t", "low", "--model", "big"]):
        assert "with the packaged model (tones), not big (other); leave --model away" in refused(capfd, *command)
    # An index from elsewhere does not make anything be fetched from the hub.
    file = Path("sounds.index/index.json")
    content = json.loads(file.read_text())
    content["settings"]["model_name"] = "somebody/large"
    file.write_text(json.dumps(content))
    monkeypatch.setattr(peav, "load", lambda *a, **k: pytest.fail("loaded"))
    assert "give --model somebody/large" in refused(capfd, "search", "sounds.index", "-t", "low")
    assert "give --model somebody/large" in refused(capfd, "index", "sounds")


def test_the_index_brings_its_own_model_folder(model, capfd, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(peav, "load", lambda model=None, device="auto": asked.append(model) or Tones())
    Path("net").mkdir()
    called(capfd, "index", "sounds", "--model", "net")
    called(capfd, "index", "sounds")
    called(capfd, "search", "sounds.index", "-t", "low")
    assert asked == ["net", str(tmp_path / "net"), str(tmp_path / "net")]


MISTAKES = {
    "no folder": (["index", "none"], "none: is no folder"),
    "kind": (["index", "sounds", "--embed", "smell"], "'smell' cannot be embedded"),
    "no scheduler": (["index", "sounds", "--scheduler", "nonsense"], "nonsense: no scheduler answers"),
    "device": (["index", "sounds", "--device", "meta"], "device 'meta' is unknown"),
    "no index": (["search", "sounds", "-t", "low"], "sounds: is no index; make one"),
    "nothing": (["search", "made.index"], "nothing to look for"),
    "empty": (["search", "made.index", "-t", " "], "--text is empty"),
    "three": (["search", "made.index", "-t", "a", "--audio", "b", "--video", "c"], "at most two"),
    "like and text": (["search", "made.index", "-t", "a", "--like", "b"], "--like is a query of its own"),
    "unknown name": (["search", "made.index", "--like", "b.wav"], "b.wav: is not in the index"),
    "no window": (["search", "made.index", "--like", "low.wav@1"], "has no window at 1 s"),
    "score": (["search", "made.index", "-t", "low", "--score", "l2"], "--score l2 is unknown"),
    "both": (["search", "made.index", "-t", "low", "--faiss", "--exact"], "one of the two"),
    "no file": (["search", "made.index", "--audio", "none.wav"], "none.wav: no such file"),
    "no pictures": (["search", "made.index", "--video", "sounds/low.wav"], "has no pictures"),
    "top": (["search", "made.index", "-t", "low", "--top", "0"], "--top"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_one_line_and_two(model, capfd, kind):
    called(capfd, "index", "sounds", "-o", "made.index")
    before = set(Path().rglob("*"))
    arguments, told = MISTAKES[kind]
    assert told in refused(capfd, *arguments)
    assert set(Path().rglob("*")) == before


def test_a_model_without_video_is_told_before_any_work(model, capfd, monkeypatch):
    called(capfd, "index", "sounds")
    monkeypatch.setattr(Tones, "modalities", Deaf.modalities)
    film(Path("red.mp4"), [RED])
    for arguments in (["index", "sounds", "-o", "x", "--embed", "video"], ["embed", "red.mp4", "--video"],
                      ["search", "sounds.index", "--video", "red.mp4"]):  # fmt: skip
        assert "this model embeds no pictures" in refused(capfd, *arguments)


# -- peav embed --video ---------------------------------------------------------------------------------------------


def test_embed_pictures(model, capfd):
    film(Path("both.mkv"), [BLUE, BLUE], tone("low", 2.0))
    film(Path("red.mp4"), [RED])
    called(capfd, "embed", "both.mkv", "red.mp4", "--video", "-t", "mid", "-o", "e.npy")
    vectors = np.load("e.npy")
    np.testing.assert_allclose(vectors / 2, [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=0.05)
    assert model.asked == ["video"]
    called(capfd, "embed", "both.mkv", "-o", "sound.npy")
    np.testing.assert_allclose(np.load("sound.npy") / 2, [[1, 0, 0]], atol=0.05)
    assert "has no pictures, only sound" in refused(capfd, "embed", "sounds/low.wav", "--video")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from peav.cli import main; main(['index', '--help']); main(['search', '--help']);"
        "sys.exit(bool({'torch', 'faiss', 'distributed', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(cli.__file__).parents[1], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
