"""Bringing an index up to date with its folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from index_fakes import BLUE, GREEN, RATE, RED, WORDS, Deaf, Tones, film, load_other, load_tones, save, tone
from torch.nn.functional import normalize

import peav
from peav import media
from peav.errors import UserError
from peav.excerpts import Recipe, embed_path, excerpts
from peav.index import Index, build, embedding
from peav.index import builder as building
from peav.index.builder import Report
from peav.index.query import Query, embed_query
from peav.media import resample
from peav.media.video import read_frames
from peav.windows import embed_file


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def sounds(tmp_path) -> Path:
    """One file of each kind, one of them in a folder."""
    folder = tmp_path / "sounds"
    save(folder / "low.wav", tone("low"))
    save(folder / "mid.wav", tone("mid"))
    save(folder / "deep down/high.wav", tone("high"))
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "a.index"


def run(sounds: Path, out: Path, model=None, **options) -> Report:
    return build(sounds, out, model=model or Tones(), **options)


def kinds(out: Path) -> dict[str, str | None]:
    """What each file sounds like, by its vector."""
    index = Index.open(out)
    names = {axis: word for word, axis in WORDS.items()}
    found = {}
    for entry in index.entries():
        vector = None if entry.silent else index.vector(index.find(entry.path))
        assert vector is None or np.linalg.norm(vector) == pytest.approx(2.0, abs=0.01)
        found[entry.path] = None if vector is None else names[int(np.argmax(vector))]
    return found


def test_a_folder_becomes_an_index(sounds, out):
    (sounds / "notes.txt").write_text("no sound")
    save(sounds / ".hidden.wav", tone("low"))
    told = []
    report = run(sounds, out, progress=lambda done, total: told.append((done, total)))
    assert report.added == ["deep down/high.wav", "low.wav", "mid.wav"] and report.files == report.rows == 3
    assert report.seconds == pytest.approx(0.6) and not report.failed
    assert kinds(out) == {"deep down/high.wav": "high", "low.wav": "low", "mid.wav": "mid"}
    assert told[-1] == (pytest.approx(0.6), pytest.approx(0.6)) and told[0][1] == pytest.approx(0.6, rel=0.1)
    index = Index.open(out)
    assert index.file("low.wav") == sounds / "low.wav"
    assert index.search(Tones().embed(text=["high"])[0], 1)[0].path == "deep down/high.wav"


def test_only_what_changed_is_embedded_again(sounds, out):
    run(sounds, out)
    model = Tones()
    report = run(sounds, out, model)
    assert report.unchanged == 3 and model.lengths == [] and report.files == 3

    save(sounds / "low.wav", tone("high", 0.3))  # another sound
    os.utime(sounds / "mid.wav", ns=(1, 1))  # another time, the same bytes
    shutil.move(sounds / "deep down/high.wav", sounds / "moved.wav")
    save(sounds / "new.wav", tone("low", 0.4))
    report = run(sounds, out, model)
    assert sorted(model.lengths) == [round(0.3 * RATE), round(0.4 * RATE)]
    assert (report.added, report.changed, report.unchanged) == (["new.wav"], ["low.wav"], 0)
    assert report.reused == ["mid.wav", "moved.wav"] and report.removed == ["deep down/high.wav"]
    assert kinds(out) == {"low.wav": "high", "mid.wav": "mid", "moved.wav": "high", "new.wav": "low"}
    assert run(sounds, out).unchanged == 4


def test_what_is_gone_goes_unless_it_is_kept(sounds, out):
    run(sounds, out)
    (sounds / "low.wav").unlink()
    report = run(sounds, out, keep_missing=True)
    assert report.missing == ["low.wav"] and not report.removed and kinds(out)["low.wav"] == "low"
    report = run(sounds, out)
    assert report.removed == ["low.wav"] and "low.wav" not in kinds(out) and report.files == 2


def test_what_cannot_be_read_is_told_and_passed_over(sounds, out):
    run(sounds, out)
    (sounds / "broken.wav").write_bytes(b"RIFF????WAVE")
    (sounds / "empty.mp3").write_bytes(b"")
    (sounds / "link.wav").symlink_to(sounds / "nowhere.wav")
    (sounds / "mid.wav").write_text("no longer a sound")
    save(sounds / "strange.wav", tone("low", 13 / RATE))  # which the model refuses
    report = run(sounds, out)
    assert set(report.failed) == {"broken.wav", "empty.mp3", "link.wav", "mid.wav", "strange.wav"}
    assert "is empty" in report.failed["empty.mp3"] and "header cannot be read" in report.failed["broken.wav"]
    assert "thirteen samples" in report.failed["strange.wav"] and "No such file" in report.failed["link.wav"]
    assert report.removed == ["mid.wav"] and set(kinds(out)) == {"deep down/high.wav", "low.wav"}
    again = run(sounds, out)
    assert set(again.failed) == set(report.failed)  # tried again, because what was missing may have come


def test_a_surprised_decoder_is_no_crash(sounds, out, monkeypatch):
    from peav import media

    original = media.stream

    def surprised(path, *arguments):
        if "mid" in str(path):
            raise ArithmeticError("what is this?")
        return original(path, *arguments)

    monkeypatch.setattr(media, "stream", surprised)
    report = run(sounds, out)
    assert "cannot be decoded (ArithmeticError: what is this?)" in report.failed["mid.wav"]
    assert len(report.added) == 2


def test_silence_is_recorded_as_such(sounds, out):
    save(sounds / "quiet.wav", np.zeros(RATE, np.float32))
    report = run(sounds, out)
    assert report.silent == ["quiet.wav"] and "quiet.wav" in report.added
    assert (report.files, report.rows) == (4, 3) and kinds(out)["quiet.wav"] is None
    assert run(sounds, out).unchanged == 4


def test_long_files_as_a_whole_are_as_peav_embed_has_them(sounds, out):
    silence = np.zeros(10 * RATE, np.float32)
    path = save(sounds / "long.wav", tone("low", 10.0), tone("high", 5.5), silence, tone("mid", 0.5))
    model = Tones()
    run(sounds, out, model)
    index = Index.open(out)
    np.testing.assert_allclose(index.vector(index.find("long.wav")), embed_file(model, path), atol=1e-5)


def test_windows_have_times(sounds, out):
    save(sounds / "long.wav", tone("low", 4.0), np.zeros(2 * RATE, np.float32), tone("high", 1.5))
    report = run(sounds, out, window=2.0)
    assert (report.files, report.rows) == (4, 4 + 3 + 3)  # whole files, short ones, and all but the silent window
    index = Index.open(out)
    hits = index.search(Tones().embed(text=["high"])[0], 2)
    assert {(hit.path, hit.start, hit.end) for hit in hits} == {
        ("long.wav", 6.0, 7.5), ("deep down/high.wav", 0.0, 0.2)}  # fmt: skip
    entry = next(entry for entry in index.entries() if entry.path == "long.wav")
    assert entry.spans == (None, (0.0, 2.0), (2.0, 4.0), (6.0, 7.5)) and entry.seconds == 7.5
    model = Tones()
    assert run(sounds, out, model).unchanged == 4 and Index.open(out).settings.window == 2.0  # goes on as begun
    with pytest.raises(UserError, match="made with --window 2, not 5"):
        run(sounds, out, window=5.0)


def test_unit_embeddings_give_unit_means(sounds, out):
    class Unit(Tones):
        def embed(self, **inputs):
            return normalize(super().embed(**inputs), dim=-1)

    save(sounds / "long.wav", tone("low", 10.0), tone("high", 10.0))
    run(sounds, out, Unit())
    index = Index.open(out)
    vector = index.vector(index.find("long.wav"))
    np.testing.assert_allclose(vector, [0.5**0.5, 0, 0.5**0.5], atol=0.01)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)


def test_a_stopped_run_goes_on(sounds, out, monkeypatch):
    monkeypatch.setattr(building, "COMMIT_SECONDS", 0.0)

    class Stopped(Tones):
        def embed(self, **inputs):
            if len(self.lengths) == 2:
                raise KeyboardInterrupt
            return super().embed(**inputs)

    with pytest.raises(KeyboardInterrupt):
        run(sounds, out, Stopped())
    assert kinds(out) == {"deep down/high.wav": "high", "low.wav": "low"}
    model = Tones()
    report = run(sounds, out, model)
    assert (report.unchanged, report.added, len(model.lengths)) == (2, ["mid.wav"], 1)


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_time(sounds, out):
    class Meddling(Tones):
        def embed(self, **inputs):
            save(sounds / "low.wav", tone("low", 12.0))
            return super().embed(**inputs)

    save(sounds / "low.wav", tone("low", 90.0))  # longer than what is read ahead
    report = run(sounds, out, Meddling())
    assert set(report.failed) == {"low.wav"} and len(report.added) == 2


def test_what_must_not_be_mixed(sounds, out, tmp_path):
    run(sounds, out)
    with pytest.raises(UserError, match=r"made with a model given in Python \(tones\), not .* \(other\)"):
        run(sounds, out, Tones("other"))
    with pytest.raises(UserError, match="made with --embed audio, not video"):
        run(sounds, out, kind="video")
    elsewhere = tmp_path / "elsewhere"
    sounds.rename(elsewhere)
    with pytest.raises(UserError, match="is the index of .*sounds, not of .*elsewhere"):
        run(elsewhere, out)
    model = Tones()
    report = run(elsewhere, out, model, moved=True)
    assert report.unchanged == 3 and model.lengths == [] and Index.open(out).file("low.wav").is_file()


def test_mistakes_leave_nothing(sounds, out, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        run(tmp_path / "none", out)
    with pytest.raises(UserError, match="embeds no pictures"):
        run(sounds, out, Deaf(), kind="video")
    with pytest.raises(UserError, match="'smell' cannot be embedded"):
        run(sounds, out, kind="smell")
    with pytest.raises(UserError, match=r"windows of 0.01 s are too short"):
        run(sounds, out, window=0.01)
    with pytest.raises(UserError, match="0 workers"):
        run(sounds, out, workers=0)
    assert not out.exists()


def test_an_index_inside_its_folder_is_no_part_of_it(sounds):
    out = sounds / "own.index"
    run(sounds, out)
    save(out / "stray.wav", tone("low"))
    out2 = sounds / "second.index"
    assert run(sounds, out2).files == 3


@pytest.mark.parametrize(("together", "readers"), [(1, 1), (4, 3), (50, 2)])
def test_windows_of_several_files_at_once_change_nothing(tmp_path, out, monkeypatch, together, readers):
    monkeypatch.setattr(embedding, "_pace", lambda model, recipe: (together, readers))
    sounds, lengths = tmp_path / "many", (2.5, 0.3, 13 / RATE, 9.0, 0.0, 1.0)
    for number, seconds in enumerate(lengths):
        parts = [tone(kind, seconds / 2) for kind in ("low", "high")] if number != 2 else [tone("low", seconds)]
        save(sounds / f"{number}.wav", *(parts if seconds else [np.zeros(RATE, np.float32)]))
    report = run(sounds, out, window=1.0)
    assert set(report.failed) == {"2.wav"} and report.silent == ["4.wav"] and len(report.added) == 5
    index = Index.open(out)
    for number in (0, 1, 3, 5):
        direct = embed_path(Tones(), sounds / f"{number}.wav", Recipe(seconds=1.0))
        np.testing.assert_allclose(index.vector(index.find(f"{number}.wav")), direct, atol=1e-6)
    starts = [span and span[0] for entry in index.entries() if entry.path == "3.wav" for span in entry.spans]
    assert starts == [None, *map(float, range(9))]


# -- films ----------------------------------------------------------------------------------------------------------


def test_pictures_of_films(sounds, out):
    film(sounds / "red.mp4", [RED] * 2)
    film(sounds / "both.mkv", [GREEN] * 2 + [BLUE] * 2, tone("low", 4.0))
    model = Tones()
    report = run(sounds, out, model, kind="video", window=2.0, fps=2.5)
    assert report.added == ["both.mkv", "red.mp4"] and not report.failed  # sounds are not even tried
    assert model.pictures == [5, 5, 5]
    index = Index.open(out)
    hit = index.search([0.0, 0.0, 1.0], 1)[0]
    assert (hit.path, hit.start, hit.end) == ("both.mkv", 2.0, 4.0)
    whole = index.vector(index.find("both.mkv"))
    np.testing.assert_allclose(whole / np.linalg.norm(whole), [0, 0.707, 0.707], atol=0.05)


def test_a_model_with_a_fixed_number_of_pictures_gets_them(tmp_path):
    class Sixteen(Tones):
        class config:  # noqa: N801
            video_frames = 3

            class vision:  # noqa: N801
                image_size = (8, 16)

    path = film(tmp_path / "a.mp4", [RED, GREEN, BLUE])
    (whole,) = excerpts(path, Sixteen(), Recipe("video"))
    assert whole.video is not None and whole.video.shape == (3, 3, 8, 16)
    assert whole.video.float().mean((2, 3)).argmax(1).tolist() == [0, 1, 2]


def test_pictures_and_sound_as_one(sounds, out):
    film(sounds / "both.mkv", [BLUE] * 3, tone("low", 3.0))
    film(sounds / "mute.mp4", [RED] * 2)
    model = Tones()
    report = run(sounds, out, model, kind="audio_video")
    assert report.added == ["both.mkv"] and "no audio stream" in report.failed["mute.mp4"]
    index = Index.open(out)
    expected = normalize(torch.tensor([2.0, 0.0, 1.0]), dim=0) * 2  # the fake counts the first of a pair twice
    np.testing.assert_allclose(index.vector(index.find("both.mkv")), expected, atol=0.05)


def test_a_film_is_embedded_in_windows_and_averaged(tmp_path):
    path = film(tmp_path / "a.mp4", [RED] * 10 + [GREEN] * 5)
    vector = normalize(embed_path(Tones(), path, Recipe("video")), dim=0)
    np.testing.assert_allclose(vector, [2 / 5**0.5, 1 / 5**0.5, 0], atol=0.05)


@pytest.mark.parametrize("kind", ["audio", "video", "audio_video"])
def test_with_a_published_model(tmp_path, out, kind):
    published = peav.load(Path(__file__).parents[1] / "fixtures" / "pe_av", device="cpu")
    assert isinstance(published, peav.PEAV)
    path = film(tmp_path / "films/a.mkv", [RED, GREEN], tone("low", 0.1), fps=2)
    assert run(path.parent, out, published, kind=kind).added == ["a.mkv"]
    samples = resample(media.read(path)[0][0], RATE, published.sample_rate)
    clips = {"audio": [samples]} if "audio" in kind else {}
    # What is seen while something is heard.
    frames = read_frames(path, [0.0] if kind == "audio_video" else [0.0, 0.5, 1.0, 1.5])[0]
    clips |= {"video": [frames]} if "video" in kind else {}
    index = Index.open(out)
    np.testing.assert_allclose(index.vector(0), published.embed(**clips)[0], atol=1e-3)
    hits = index.search(published.embed(text=["red"], text_for=kind)[0])
    assert [hit.path for hit in hits] == ["a.mkv"]
    with_words, how = embed_query(published, Query("red", audio=path), index.settings)
    assert "head for audio and text" in how
    np.testing.assert_allclose(with_words, published.embed(audio=[samples], text=["red"])[0], atol=1e-3)


# -- processes ------------------------------------------------------------------------------------------------------


def test_processes_do_the_same_and_survive_a_deadly_file(tmp_path, out, monkeypatch):
    sounds = tmp_path / "many"
    names = {f"{kind}{i}.wav": kind for i in range(4) for kind in WORDS}
    for name, kind in names.items():
        save(sounds / name, tone(kind))
    save(sounds / "zz deadly.wav", tone("low", 17 / RATE))  # ends whoever embeds it
    monkeypatch.setenv("TONES_LOG", str(tmp_path / "log"))
    report = build(sounds, out, model=load_tones, workers=2)
    assert kinds(out) == names
    assert set(report.failed) == {"zz deadly.wav"} and "ends the process" in report.failed["zz deadly.wav"]
    loads = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines() if line.startswith("load")]
    assert len(loads) == len(set(loads)) and str(os.getpid()) not in loads  # once per process
    with pytest.raises(UserError, match="not .* \\(other\\)"):
        build(sounds, out, model=load_other, workers=2)
    with pytest.raises(ValueError, match="cannot be sent to workers"):
        build(sounds, out, model=Tones(), workers=2)
