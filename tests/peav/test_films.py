"""Films and their captions: the manifest, looks at files whose sound and pictures tell the time, and batches."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from peav.errors import UserError
from peav.films import Cut, FilmBatches, FilmFiles, as_images, collate, embeddings_of, read_films
from peav.losses import matches
from peav.pairs import FINE_TUNING
from peav.toy_films import KINDS, TIMBRES, ToyFilms

EVERYTHING = frozenset({"audio", "video", "audio_video", "text_audio", "text_video", "text_audio_video",
                        "audio_plus_text", "video_plus_text"})  # fmt: skip
CUT = Cut(8_000, (16, 16), seconds=0.5, num_frames=3)


# --- the manifest ----------------------------------------------------------------------------------


def written(folder: Path, *rows: dict | str) -> Path:
    path = folder / "films.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_manifest_is_read(tmp_path):
    path = written(
        tmp_path, {"audio": "a.wav", "captions": {"audio": ["rain", " "], "video": []}, "seconds": 3, "id": 7}, "",
        {"video": "sub/b.mp4", "split": "valid", "start": 1.5, "group": "b"})  # fmt: skip
    first, second = read_films(path)
    assert first.audio == tmp_path / "a.wav" and first.video is None and first.captions == {"audio": ("rain",)}
    assert second.video == tmp_path / "sub/b.mp4" and (second.start, second.seconds) == (1.5, None)
    assert read_films(path, "valid") == [second]


@pytest.mark.parametrize(
    ("row", "message"),
    [("{", ":1 is not JSON"), ("[]", ":1 is no object"), ({"captions": {}}, ":1 has neither audio nor video"),
     ({"audio": 3}, ":1 field 'audio' is '3'"), ({"audio": "a", "captions": {"sound": []}}, ":1 captions 'sound'"),
     ({"audio": "a", "captions": {"audio": "rain"}}, ":1 captions 'audio'"),
     ({"audio": "a", "split": "test"}, ":1 split 'test'; expected 'train' or 'valid'"),
     ({"audio": "a", "seconds": 0}, ":1 start 0.0, seconds 0")])  # fmt: skip
def test_what_is_wrong_with_a_manifest_is_named(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read_films(written(tmp_path, row))


def test_a_group_in_both_splits_is_refused(tmp_path):
    path = written(tmp_path, {"audio": "a", "group": "x"}, {"audio": "b", "group": "x", "split": "valid"})
    with pytest.raises(UserError, match=":2 group 'x' is in both splits"):
        read_films(path)
    with pytest.raises(UserError, match=r"manifest .*nowhere.jsonl does not exist"):
        read_films(tmp_path / "nowhere.jsonl")


# --- files -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clock(tmp_path_factory) -> Path:
    """Four seconds in which loudness and brightness tell the time: t/4 of full scale."""
    folder = tmp_path_factory.mktemp("clock")
    soundfile.write(folder / "clock.wav", np.arange(32_000) / 32_000, 8_000, subtype="FLOAT")
    with av.open(str(folder / "clock.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "qp": "4"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(100):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), round(2.55 * i), np.uint8))))
        out.mux(stream.encode())
    return folder


@pytest.mark.parametrize("part", [{}, {"start": 1.0, "seconds": 2.0}], ids=["whole", "part"])
def test_sound_and_pictures_of_a_look_are_of_the_same_time(clock, part):
    rows = [{"audio": "clock.wav", "video": "clock.mp4", "captions": {"video": ["a", "b"]}} | part]
    source = FilmFiles(read_films(written(clock, *rows)), CUT)
    starts = set()
    for seed in range(6):
        item = source.item(0, np.random.default_rng(seed))
        heard = 4 * item["audio"][[0, -1]]  # seconds
        seen = 4 * item["video"].float().mean((1, 2, 3)) / 255
        assert item["audio"].shape == (4_000,) and item["video"].shape == (3, 3, 16, 16)
        assert float(heard[1] - heard[0]) == pytest.approx(0.5, abs=0.01)
        assert seen[[0, -1]].tolist() == pytest.approx(heard.tolist(), abs=0.12)  # two images and their grey levels
        assert item["captions"]["video"] in ("a", "b")
        assert heard[0] >= part.get("start", 0) - 0.01 and heard[1] <= (3.0 if part else 4.0) + 0.01
        starts.add(round(float(heard[0]), 2))
    assert len(starts) > 3


def test_a_look_depends_on_its_random_numbers_alone(clock):
    source = FilmFiles(read_films(written(clock, {"audio": "clock.wav"})), CUT)
    one, two = (source.item(0, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one["audio"], two["audio"]) and "video" not in one


def test_short_films_are_taken_whole(clock):
    cut = Cut(8_000, (16, 16), seconds=60.0, fps=5.0)
    source = FilmFiles(read_films(written(clock, {"audio": "clock.wav", "video": "clock.mp4"})), cut)
    item = source.item(0, np.random.default_rng(0))
    assert item["audio"].shape == (32_000,) and item["video"].shape[0] == 20


def test_silent_films_are_cut_by_their_pictures(clock):
    source = FilmFiles(read_films(written(clock, {"video": "clock.mp4", "start": 3.0})), CUT)
    seen = source.item(0, np.random.default_rng(0))["video"].float().mean((1, 2, 3)) / 255 * 4
    assert seen[0] >= 2.95 and float(seen[-1] - seen[0]) == pytest.approx(0.46, abs=0.06)


def test_damaged_files_are_left_out_until_there_are_too_many(clock, capsys):
    rows = [{"audio": f"{name}.wav", "captions": {"audio": [name]}} for name in ("clock", "gone")]
    make = FilmBatches(FilmFiles(read_films(written(clock, *rows)), CUT), 2, ["text_audio"], EVERYTHING)
    assert make(0)["caption_audio"] == ["clock", "clock"] and "left out: " in capsys.readouterr().out
    make = FilmBatches(FilmFiles(read_films(written(clock, rows[1])), CUT), 2, ["text_audio"], EVERYTHING)
    with pytest.raises(UserError, match="5 clips in a row cannot be read; the last: .*gone.wav"):
        make(0)


@pytest.mark.parametrize(
    ("more", "message"), [({}, "not both"), ({"fps": 1.0, "num_frames": 2}, "not both"),
                          ({"fps": 1.0, "seconds": 0.0}, "data.seconds 0.0")])  # fmt: skip
def test_impossible_looks_are_refused(more, message):
    with pytest.raises(UserError, match=message):
        Cut(8_000, (16, 16), **more)


# --- batches ---------------------------------------------------------------------------------------


class Described:
    """Films that are nothing but their inputs and their number."""

    def __init__(self, *inputs: set[str]) -> None:
        self.all = [frozenset(there) for there in inputs]

    def __len__(self) -> int:
        return len(self.all)

    def inputs(self, i: int) -> frozenset[str]:
        return self.all[i]

    def item(self, i: int, rng: np.random.Generator) -> dict:
        captions = {n.removeprefix("caption_"): f"{i}" for n in sorted(self.all[i]) if n.startswith("caption_")}
        item = {"id": str(i), "captions": captions}
        if "audio" in self.all[i]:
            item["audio"] = torch.full((4 + i % 2,), float(i))
        if "video" in self.all[i]:
            item["video"] = torch.full((2, 3, 4, 4), i, dtype=torch.uint8)
        return item


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [({"audio", "caption_audio"}, {"audio", "text_audio"}),
     ({"audio", "video"}, {"audio", "video", "audio_video"}),
     ({"audio", "caption_video"}, {"audio", "text_video", "audio_plus_text"}),
     ({"video", "caption_audio_video"}, {"video", "text_audio_video"}),
     ({"audio", "video", "caption_audio", "caption_video", "caption_audio_video"}, EVERYTHING)],
    ids=["sound", "film", "other_caption", "silent", "everything"])  # fmt: skip
def test_what_can_be_embedded(inputs, wanted):
    assert embeddings_of(frozenset(inputs)) == wanted


SOUND, FILM, SILENT = {"audio", "caption_audio"}, {"audio", "video", "caption_video"}, {"video", "caption_video"}


def test_films_of_a_batch_are_alike_and_all_get_their_turn():
    films = Described(*[SOUND] * 30, *[FILM] * 60, {"audio"}, *[SILENT] * 10)
    make = FilmBatches(films, 4, FINE_TUNING, EVERYTHING)
    assert make.used == 100  # a sound without a caption teaches nothing
    kinds = [frozenset(make(number)) & {"waveform", "video"} for number in range(200)]
    assert kinds.count({"waveform"}) == pytest.approx(60, abs=25)
    assert kinds.count({"waveform", "video"}) == pytest.approx(120, abs=30)
    assert kinds.count({"video"}) == pytest.approx(20, abs=15)


def test_processes_share_what_was_drawn():
    films = Described(*[SOUND] * 20, *[FILM] * 20)
    make = FilmBatches(films, 3, FINE_TUNING, EVERYTHING, world=2)
    alone = FilmBatches(films, 6, FINE_TUNING, EVERYTHING)
    for step in range(10):
        one, two = make(2 * step), make(2 * step + 1)
        assert set(one) == set(two)
        clips = torch.cat((one["clip"], two["clip"]))
        assert len(clips.unique()) == 6 and torch.equal(clips, alone(step)["clip"])


def test_a_batch_depends_on_its_number_and_seed_alone():
    films = Described(*[SOUND] * 50)
    make = FilmBatches(films, 8, FINE_TUNING, EVERYTHING, seed=1)
    assert torch.equal(make(3)["clip"], make(3)["clip"]) and not torch.equal(make(3)["clip"], make(4)["clip"])
    assert not torch.equal(make(3)["clip"], FilmBatches(films, 8, FINE_TUNING, EVERYTHING, seed=2)(3)["clip"])


def test_a_film_drawn_twice_is_known():
    clips = FilmBatches(Described(SOUND, SOUND), 4, FINE_TUNING, EVERYTHING)(0)["clip"]
    assert matches(clips, clips).sum() > 4


def test_films_that_no_pair_needs_are_refused():
    with pytest.raises(UserError, match=r"none of 2 clips has both ends of a pair \(audio_video, \.\.\.\)"):
        FilmBatches(Described(SOUND, SILENT), 1, ["audio_video"], EVERYTHING)
    with pytest.raises(UserError, match="none of 1 clips"):  # the model has no towers for pictures
        FilmBatches(Described(FILM), 1, FINE_TUNING, frozenset({"audio", "text_audio"}))


def test_batches_are_padded_with_masks():
    films = Described(*[FILM] * 4)
    batch = collate([films.item(i, np.random.default_rng(0)) for i in range(4)])
    assert batch["waveform"].shape == (4, 1, 5) and batch["waveform_mask"].sum(1).tolist() == [4, 5, 4, 5]
    assert batch["video"].dtype == torch.uint8 and batch["video_mask"].all() and batch["caption_video"] == list("0123")
    assert as_images(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


# --- toys ------------------------------------------------------------------------------------------


def test_toys_are_what_their_captions_say():
    films = ToyFilms(2 * len(KINDS), Cut(8_000, (32, 32), seconds=0.5, fps=20.0))
    for i in range(0, len(films), 5):
        item = films.item(i, np.random.default_rng(0))
        colour = item["captions"]["video"].split()[1]
        assert TIMBRES[colour] in item["captions"]["audio"] and colour in item["captions"]["audio_video"]
        # The brightest pixels have the colour; the loudest frequency is the pitch.
        image = item["video"][5].float().permute(1, 2, 0).flatten(0, 1)
        found = image[(image.max(1).values - image.min(1).values).topk(5).indices].mean(0).argmax()
        assert ("red", "green", "blue")[int(found)] == colour
        spectrum = torch.fft.rfft(item["audio"]).abs()
        hertz = float(spectrum.argmax()) / 0.5
        assert (hertz > 440) == ("high" in item["captions"]["audio"])


def test_toys_pulse_with_their_sound():
    films = ToyFilms(12, Cut(8_000, (32, 32), seconds=1.0, fps=20.0))
    for i in range(12):
        item = films.item(i, np.random.default_rng(0))
        loudness = item["audio"].view(20, 400).square().mean(1).sqrt()
        image = item["video"].float()
        size = ((image - image[..., :2, :2].mean((2, 3), keepdim=True)).abs().amax(1) > 60).float().mean((1, 2))
        assert float(torch.corrcoef(torch.stack((loudness, size)))[0, 1]) > 0.5


def test_toys_are_the_same_every_time_and_others_with_another_seed():
    cut = Cut(8_000, (16, 16), seconds=0.2, num_frames=2)
    one, same, other = (ToyFilms(3, cut, seed).item(1, np.random.default_rng(0)) for seed in (0, 0, 1))
    assert torch.equal(one["audio"], same["audio"]) and torch.equal(one["video"], same["video"])
    assert not torch.equal(one["audio"], other["audio"]) and one["captions"] == other["captions"]
