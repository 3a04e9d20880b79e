"""Drawn films on disk: films and truth that agree, runs that go on, and mistakes told in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_pictures import CODES, shape, write_pictures

from peav import media
from peav.errors import UserError
from peav.films import Cut, FilmFiles, read_films
from peav.media.video import read_frames
from samaudio.drawn import DrawnFilms, Recipe, open_pictures
from samaudio.drawn import files as files_module
from samaudio.drawn.__main__ import main
from samaudio.drawn.collect import collect
from samaudio.drawn.collect import main as collect_main
from samaudio.drawn.files import read_truth, write_films
from samaudio.drawn.preview import contact_sheet
from samaudio.drawn.vocabulary import OWN, RELATED, SILENT, THINGS, all_codes, things_of
from samaudio.drawn.wording import counted, listed, with_article

SMALL = Recipe(sound=replace(Recipe().sound, seconds=1.0), size=(64, 64), wear=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def films(store, folder):
    return DrawnFilms(store, open_pictures(folder, "train"), SMALL, seed=1)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_files_hold_what_was_drawn(films, tmp_path, container):
    assert write_films(tmp_path, films, 2, "train", container) == 2
    for i, row in enumerate(rows_of(tmp_path)):
        film, truth = films[i], read_truth(tmp_path / row["truth"])
        assert torch.equal(truth.masks, film.masks) and torch.equal(truth.silent_masks, film.silent_masks)
        assert torch.equal(truth.stems, film.stems) and truth.sample_rate == film.sample_rate and truth.about == row
        frames, times = read_frames(tmp_path / row["video"], num_frames=8)
        assert frames.shape == film.frames.shape and times == pytest.approx(film.times.tolist(), abs=2e-3)
        assert (frames.float() - film.frames.float()).abs().mean() < 8
        sound, rate = media.read(tmp_path / row["audio"])
        assert rate == film.sample_rate
        if container == "mkv":
            assert sound.shape == (1, film.stems.shape[1]) and (sound[0] - film.samples).abs().max() < 1e-4
        assert [entry["label"] for entry in row["objects"]] == film.labels
        assert {entry["recording"] for entry in row["objects"]} <= {clip.group for clip in films.store.clips}
        assert all(entry["style"] != "twemoji" for entry in row["objects"] + row["silent"])


def test_training_reads_the_manifest(films, tmp_path):
    write_films(tmp_path, films, 3, "train")
    found = read_films(tmp_path / "manifest.jsonl", "train")
    cut = Cut(sample_rate=16_000, size=(32, 32), seconds=1.0, num_frames=4)
    item = FilmFiles(found, cut).item(1, np.random.default_rng(0))
    assert item["video"].shape == (4, 3, 32, 32) and len(item["audio"]) == 16_000
    assert set(item["captions"]) == {"audio", "video", "audio_video"}
    assert not read_films(tmp_path / "manifest.jsonl", "valid")


def test_a_run_goes_on_where_another_stopped(films, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop_at_the_third(path, film, write=files_module.write_film):
        if path.name.startswith("film-000002"):
            raise Stopped
        write(path, film)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(files_module, "write_film", stop_at_the_third)
        write_films(tmp_path, films, 4, "train")
    assert len(rows_of(tmp_path)) == 2
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("film-*")}
    known = read_truth(tmp_path / "film-000001.npz")
    assert len(before) == 4
    (tmp_path / "film-000001.npz").unlink()
    assert write_films(tmp_path, films, 4, "train") == 3
    assert all((tmp_path / name).stat().st_mtime_ns == before[name] for name in ("film-000000.mkv", "film-000000.npz"))
    again = read_truth(tmp_path / "film-000001.npz")
    assert torch.equal(again.masks, known.masks) and torch.equal(again.stems, known.stems)
    assert [row["video"] for row in rows_of(tmp_path)] == [f"film-00000{i}.mkv" for i in range(4)]
    assert not list(tmp_path.glob(".*"))


def test_another_seed_does_not_go_on_in_the_same_folder(films, store, folder, tmp_path):
    write_films(tmp_path, films, 1, "train")
    other = DrawnFilms(store, open_pictures(folder, "train"), SMALL, seed=2)
    with pytest.raises(UserError, match=r"other settings \(seed\)"):
        write_films(tmp_path, other, 1, "train")
    assert len(rows_of(tmp_path)) == 1


def test_damaged_truth_is_named(films, tmp_path):
    write_films(tmp_path, films, 1, "train")
    (tmp_path / "film-000000.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(UserError, match="film-000000.npz: is damaged"):
        read_truth(tmp_path / "film-000000.npz")
    with pytest.raises(UserError, match="no such file"):
        read_truth(tmp_path / "film-000009.npz")


def test_the_command_draws_and_shows(pool, folder, tmp_path, capsys):
    arguments = [str(tmp_path / "out"), str(pool), "--pictures", str(folder), "--cache", str(tmp_path / "cache"),
                 "--seconds", "1", "--size", "64", "--rate", "8000"]  # fmt: skip
    assert main([*arguments, "-n", "3", "--split", "valid", "--preview", "2"]) == 0
    assert "3 films, 3 of them new, in twemoji" in capsys.readouterr().out
    assert (tmp_path / "out" / "preview.png").stat().st_size > 1_000
    assert all(entry["style"] == "twemoji" for row in rows_of(tmp_path / "out") for entry in row["objects"])
    assert main([*arguments, "-n", "3"]) == 2  # the other split
    assert "choose another folder" in capsys.readouterr().err
    for wrong, message in (("--seconds=0", "give 0.5 to 60"), ("--split=test", "choose train or valid"),
                           ("--objects=9", "--objects"), ("--container=avi", "choose mkv or mp4"),
                           ("--size=65", "even numbers")):  # fmt: skip
        assert main([str(tmp_path / "new"), *arguments[1:], wrong]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("missing", ["av", "cv2", "PIL"])
def test_without_its_extra_the_commands_name_it(missing, pool, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main([str(tmp_path / "out"), str(pool), "--pictures", str(folder)]) == 2
    assert collect_main([str(tmp_path / "pictures"), f"noto={folder / 'noto'}"]) == 2
    assert capsys.readouterr().err.count('pip install "samaudio[drawn]"') == 2
    assert not list(tmp_path.iterdir())


def test_help_does_not_wait_for_torch():
    code = ("import sys; from samaudio.drawn.__main__ import main; from samaudio.drawn import collect\n"
            "main(['--help']); collect.main(['--help']); sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0


def test_alike_on_the_command_line(pool, folder, tmp_path):
    arguments = [str(tmp_path / "out"), str(pool), "--pictures", str(folder), "--cache", str(tmp_path / "cache"),
                 "--seconds", "1", "--size", "64", "--rate", "8000", "-n", "3", "--alike"]  # fmt: skip
    assert main(arguments) == 0
    for row in rows_of(tmp_path / "out"):
        one, two = row["objects"]
        assert row["alike"] and (one["code"], one["style"]) == (two["code"], two["style"])


def test_contact_sheets_show_each_film(films):
    sheet = contact_sheet([films[0], films[1]], columns=4)
    assert sheet.shape[1] == 4 * 66 and sheet.dtype == np.uint8
    assert len(sheet) == 2 * len(contact_sheet([films[0]], columns=4))


def test_pictures_are_collected_by_code_point(tmp_path):
    from PIL import Image

    source = tmp_path / "source" / "color" / "svg"
    source.mkdir(parents=True)
    large = np.pad(shape("1f941", (200, 0, 0)).repeat(6, 0).repeat(6, 1), ((40, 0), (0, 90), (0, 0)))
    Image.fromarray(large, "RGBA").save(source / "emoji_u1f941.png")
    Image.fromarray(large, "RGBA").save(source / "1F600.png")  # not in the vocabulary
    Image.fromarray(large, "RGBA").save(tmp_path / "source" / "1F3BB.png")  # of another style
    assert collect(tmp_path / "out", "openmoji", tmp_path / "source") == 1
    with Image.open(tmp_path / "out" / "openmoji" / "1f941.png") as picture:
        assert max(picture.size) == 128 and picture.mode == "RGBA"
        assert picture.getpixel((picture.width // 2, 64)) == (200, 0, 0, 255)
    assert [path.name for path in (tmp_path / "out" / "openmoji").iterdir()] == ["1f941.png"]


def test_vector_pictures_in_an_archive(tmp_path):
    import tarfile

    pytest.importorskip("resvg_py")
    ring = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><path d="M36 10a26 26 0 1 1 -4 .3" '
            'fill="none" stroke="#000" stroke-width="2"/></svg>')  # fmt: skip
    (tmp_path / "1F514.svg").write_text(ring)
    with tarfile.open(tmp_path / "pack.tgz", "w:gz") as archive:
        archive.add(tmp_path / "1F514.svg", "package/black/svg/1F514.svg")
        archive.add(tmp_path / "1F514.svg", "package/color/svg/1F3B8.svg")
    assert collect_main([str(tmp_path / "out"), f"openmoji-black={tmp_path / 'pack.tgz'}"]) == 0
    from PIL import Image

    assert [path.name for path in (tmp_path / "out" / "openmoji-black").iterdir()] == ["1f514.png"]
    with Image.open(tmp_path / "out" / "openmoji-black" / "1f514.png") as picture:
        # The line has a gap; the thing has none.
        assert picture.getpixel((picture.width // 2, picture.height // 2)) == (255, 255, 255, 255)
        assert picture.getpixel((1, 1))[3] == 0


def test_sources_without_pictures_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tgz").write_text("no archive")
    (tmp_path / "1f3b8.png").write_text("no picture")
    for source, message in (("noto", "give STYLE=SOURCE"), (f"noto={tmp_path / 'x.ttf'}", "no such file"),
                            (f"noto={tmp_path / 'empty'}", "no picture named by a code point"),
                            (f"a={tmp_path / 'text.tgz'}", "no archive"),
                            (f"a={tmp_path}", "is no picture")):  # fmt: skip
        assert collect_main([str(tmp_path / "out"), source]) == 2
        assert message in capsys.readouterr().err


def test_the_vocabulary_is_whole():
    for table in (OWN, RELATED):
        assert {thing for things in table.values() for thing in things} <= set(THINGS)
    codes = [code for codes in THINGS.values() for code in codes]
    assert len(codes) == len(set(codes)) and not set(codes) & set(SILENT)
    assert set(CODES) <= set(all_codes())
    assert things_of("cello") == {"violin": ("1f3bb",)} and things_of("flexatone") == {}
    # Its own picture where the style has it, else a relative's.
    assert list(things_of("trombone")) == ["trombone"] and list(things_of("trombone", ["1f3ba"])) == ["trumpet"]


def test_wordings():
    assert listed(["dog barking", "dog barking", "old bell", "rain"]) == "two dogs barking, an old bell and rain"
    assert listed(["double bass"]) == "a double bass" and with_article("sea waves") == "sea waves"
    assert counted("man speaking", 2) == "two men speaking" and counted("rain", 2) == "two kinds of rain"
