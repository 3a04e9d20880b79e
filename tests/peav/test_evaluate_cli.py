"""`peav evaluate` from manifest to tables, with a model that hears pitch, sees grey and reads numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import peav
from peav import cli, console
from peav.evaluation.embeddings import Embeddings
from peav.evaluation.manifest import Item
from peav.evaluation.store import Store

RATE = 8_000
WORDS = ("zero", "one", "two", "three", "four", "five")


class Senses:
    """Tone of 300 (i + 1) Hz, picture of grey 40 i and the i-th word all embed as the i-th axis."""

    sample_rate = RATE
    device = torch.device("cpu")
    modalities = frozenset({"audio", "text", "video"})
    has_clips, has_frames, frame_seconds = True, False, 0.04
    identity = "senses"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.texts_for: set[str] = set()
        self.shapes: set[tuple[int, ...]] = set()

    def embed(self, *, text=None, audio=None, video=None, text_for="audio", **_) -> Tensor:
        parts = {"text": (text, self._read), "audio": (audio, self._hear), "video": (video, self._see)}
        self.texts_for |= {text_for} if audio is None and video is None else set()
        given = [(things, sense) for things, sense in parts.values() if things is not None]
        self.calls += ["+".join(name for name, (things, _) in parts.items() if things is not None)] * len(given[0][0])
        vectors = [torch.stack([torch.eye(7)[sense(thing)] for thing in things]) for things, sense in given]
        return torch.nn.functional.normalize(sum(vectors, torch.zeros_like(vectors[0])), dim=-1)

    def logits(self, name: str, rows: Tensor, columns: Tensor) -> Tensor:
        return 10 * rows @ columns.T - 5

    def frame_logits(self, audio, text) -> list[Tensor]:
        frames = [clip.unfold(0, 320, 320) for clip in audio]
        loud = [(frame.abs().mean(1) - 0.05) * 100 for frame in frames]
        return [torch.stack([one if "one" in words else -one for words in text]) for one in loud]

    def _read(self, text: str) -> int:
        return next((i for i, word in enumerate(WORDS) if word in text.split()), 6)

    def _hear(self, clip: Tensor) -> int:
        if not clip.abs().max() > 0:
            return 6
        return round(float(torch.fft.rfft(clip).abs().argmax()) * self.sample_rate / len(clip) / 300) - 1

    def _see(self, pictures: Tensor) -> int:
        assert pictures.dtype == torch.uint8 and pictures.shape[1] == 3
        self.shapes.add(tuple(pictures.shape))
        return round(float(pictures.float().mean()) / 40)


def tone(path: Path, i: int, seconds: float = 0.5, before: float = 0.0) -> None:
    times = np.arange(round((before + seconds) * RATE)) / RATE
    other, own = (np.sin(2 * np.pi * hz * times) for hz in (1800, 300 * (i + 1)))
    soundfile.write(path, np.where(times < before, 0.3 * other, 0.4 * own).astype(np.float32), RATE)


def film(
    path: Path, i: int, sound: bool = True, seconds: float = 0.5, then: tuple[int, float] = (0, 0.0), late: float = 0.0
) -> None:
    """Grey, with its tone from ``late`` seconds on; ``then`` another grey for some seconds, without sound."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        voice = container.add_stream("pcm_s16le", rate=RATE, layout="mono") if sound else None
        for level in [i] * round(10 * seconds) + [then[0]] * round(10 * then[1]):
            grey = np.full((64, 64, 3), 40 * level, dtype=np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(pictures.encode())
        if voice is not None:
            wave = 13_000 * np.sin(2 * np.pi * 300 * (i + 1) * np.arange(round(seconds * RATE)) / RATE)
            frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            frame.rate, frame.pts, frame.time_base = RATE, round(late * RATE), Fraction(1, RATE)
            container.mux(voice.encode(frame))
            container.mux(voice.encode())


@pytest.fixture
def senses(monkeypatch, tmp_path) -> Senses:
    model = Senses()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peav, "load", lambda model_name=None, *, device="auto": model)
    return model


def jsonl(*rows: dict) -> str:
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "m.jsonl"


def tones(*numbers: int, **more) -> str:
    for i in numbers:
        tone(Path(f"{i}.wav"), i)
    return jsonl(*({"path": f"{i}.wav", "captions": [f"number {WORDS[i]}"], **more} for i in numbers))


def run(*arguments: str) -> dict:
    """The JSON of a run."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["evaluate", *arguments, "--json"]) == console.DONE
    return json.loads(out.getvalue())


def named(document: dict, task: str = "retrieval") -> dict[str, dict]:
    return {figure["name"]: figure for figure in document["figures"] if figure["task"] == task}


def complaint(capsys, *arguments: str) -> str:
    assert cli.main(["evaluate", *arguments]) == console.MISTAKE
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and not captured.out
    return captured.err


def test_captions_find_their_sounds(senses, capsys):
    path = tones(0, 1, 2, 3)
    assert cli.main(["evaluate", path]) == console.DONE
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "m.jsonl, 4 items, senses on cpu"
    table = [line.split() for line in out.splitlines() if "->" in line]
    assert table == [
        ["text->audio", "100.0", "100.0", "100.0", "1.0", "4", "4"],
        ["audio->text", "100.0", "100.0", "100.0", "1.0", "4", "4"],
    ]
    assert "right answers: the query's own item; ties count as drawn by lot" in out


def test_sounds_that_embed_alike_are_drawn_by_lot(senses):
    for name in "abcd":
        tone(Path(f"{name}.wav"), 1)
    path = jsonl(*({"path": f"{name}.wav", "caption": "number one"} for name in "abcd"))
    figures = named(run(path))
    assert figures["text->audio"]["R@1"] == figures["audio->text"]["R@1"] == 0.25
    assert figures["text->audio"]["median rank"] == 2.5
    worded = named(run(path, "--match", "text"))
    assert worded["text->audio"]["R@1"] == 1 and worded["text->audio"]["queries"] == 1


def test_films_are_found_in_every_direction(senses):
    for i in range(3):
        film(Path(f"{i}.mkv"), i)
    path = jsonl(*({"path": f"{i}.mkv", "caption": WORDS[i]} for i in range(3)))
    figures = named(run(path))
    from peav.evaluation.sets import DIRECTIONS

    assert set(figures) == set(DIRECTIONS)
    assert {figure["R@1"] for figure in figures.values()} == {1.0}
    assert {"text", "audio", "video", "audio+video", "text+audio", "text+video"} == set(senses.calls)
    assert senses.texts_for == {"audio", "video", "audio_video"} and senses.shapes == {(5, 3, 64, 64)}
    alone = run(path, "--direction", "video->audio", "--direction", "text->audio+video")
    assert list(named(alone)) == ["video->audio", "text->audio+video"]


def test_captions_of_sound_and_sight_are_used_for_what_they_describe(senses):
    for i in range(3):
        film(Path(f"{i}.mkv"), i)
    # What the captions say of the sights is right, what they say of the sounds is turned around.
    captions = [{"video": [WORDS[i]], "audio": [WORDS[2 - i]]} for i in range(3)]
    figures = named(run(jsonl(*({"path": f"{i}.mkv", "captions": own} for i, own in enumerate(captions)))))
    assert "text->audio+video" not in figures and figures["text->video"]["R@1"] == 1
    assert figures["text->audio"]["R@1"] == pytest.approx(1 / 3)
    # Sound with the right words of the sight finds it; sight with the wrong words of the sound only draws.
    assert figures["audio+text->video"]["R@1"] == 1 and figures["video+text->audio"]["R@1"] == pytest.approx(2 / 3)


def test_a_model_of_few_pictures_sees_these_of_the_whole_film(senses):
    for i in range(2):
        film(Path(f"{i}.mkv"), i, seconds=12.0)
    senses.config = SimpleNamespace(video_frames=4, vision=SimpleNamespace(image_size=(32, 48)))
    figures = named(run(jsonl(*({"path": f"{i}.mkv", "caption": WORDS[i]} for i in range(2)))))
    assert senses.shapes == {(4, 3, 32, 48)}
    # Each film once by itself, and together with its sound in windows of 10 and 2 s.
    assert senses.calls.count("video") == 2 and senses.calls.count("audio+video") == 4
    assert {figure["R@1"] for figure in figures.values()} == {1.0}


def test_a_long_film_is_seen_in_windows_at_no_more_than_so_many_pictures_a_second(senses):
    film(Path("0.mkv"), 0, seconds=25.0)
    run(jsonl({"path": "0.mkv", "caption": "zero"}), "--direction", "text->video", "--fps", "2")
    assert senses.calls.count("video") == 3 and senses.shapes == {(20, 3, 64, 64), (10, 3, 64, 64)}


def test_sound_that_begins_late_is_seen_with_the_pictures_of_its_time(senses):
    film(Path("0.mkv"), 1, seconds=1.0, then=(3, 1.0), late=1.0)
    item = Item("0", audio=Path("0.mkv"), video=Path("0.mkv"))
    (vector,) = Embeddings(senses, Store()).media("audio+video", [item])
    half = 0.5**0.5
    torch.testing.assert_close(vector, torch.tensor([0, half, 0, half, 0, 0, 0]))  # tone 1 with grey 3


def test_windows_count_by_their_length(senses):
    film(Path("0.mkv"), 1, sound=False, seconds=10.0, then=(3, 4.0))
    embeddings = Embeddings(senses, Store(), fps=1.0)
    (vector,) = embeddings.media("video", [Item("0", video=Path("0.mkv"))])
    torch.testing.assert_close(vector, torch.nn.functional.normalize(torch.tensor([0, 10.0, 0, 4, 0, 0, 0]), dim=0))


def test_a_cache_tells_how_often_a_film_was_looked_at(senses):
    film(Path("0.mkv"), 0)
    path = jsonl({"path": "0.mkv", "caption": "zero"})
    for fps, calls in (("2", 1), ("2", 1), ("5", 2)):
        run(path, "--direction", "text->video", "--cache", "kept", "--fps", fps)
        assert senses.calls.count("video") == calls


def test_dual_softmax_says_so(senses):
    document = run(tones(0, 1, 2), "--dsl", "--temperature", "5", "--cosine")
    assert document["dual softmax"] and document["similarity"] == "cosine"
    assert named(document)["text->audio"]["R@1"] == 1
    assert any("dual softmax" in note for note in document["notes"])  # notes stand below the tables, too
    assert not any("dual softmax" in note for note in run(tones(0, 1, 2))["notes"])


def test_a_film_without_sound_is_left_out_where_sound_is_needed(senses):
    for i in range(3):
        film(Path(f"{i}.mkv"), i, sound=i < 2)
    document = run(jsonl(*({"path": f"{i}.mkv", "caption": WORDS[i]} for i in range(3))))
    figures = named(document)
    assert figures["text->video"]["candidates"] == 3 and figures["text->audio"]["candidates"] == 2
    assert document["left_out"] == {"have no sound": 1}
    assert "1 items have no sound and are left out" in document["notes"]


def test_classes_of_a_training_manifest(senses):
    for i, name in enumerate("abcdef"):
        tone(Path(f"{name}.wav"), i % 3)
    rows = [{"path": f"{name}.wav", "label": WORDS[i % 3], "captions": [f"a {WORDS[i % 3]}"], "split": "valid",
             "group": name, "seconds": 0.5} for i, name in enumerate("abcdef")]  # fmt: skip
    document = run(jsonl(*rows, {**rows[0], "split": "train"}), "--split", "valid")
    assert document["match"] == "label" and document["items"] == 6
    assert named(document)["text->audio"]["R@1"] == 1 and named(document)["text->audio"]["queries"] == 6
    assert named(document, "classification")["audio"] | {"published": None} == {
        "task": "classification", "name": "audio", "top-1": 1.0, "top-5": 1.0, "items": 6, "classes": 3,
        "published": None,
    }  # fmt: skip
    assert [f["task"] for f in run("m.jsonl", "--task", "classification")["figures"]] == ["classification"]


def test_frames_where_the_model_has_them(senses):
    senses.has_frames = True
    tone(Path("a.wav"), 1, seconds=1.0)
    samples, _ = soundfile.read("a.wav")
    samples[: RATE // 2] = 0
    soundfile.write("a.wav", samples, RATE)
    document = run(jsonl({"path": "a.wav", "events": [{"label": "one", "start": 0.52, "end": 1.0}]}))
    (everything, one) = document["figures"]
    assert everything["name"] == "all classes" and one["name"] == "one"
    assert everything["AUROC"] == 1 and everything["event F1"] == 1 and everything["frames"] == 25


def test_the_cache_saves_the_second_run_and_is_kept_apart_by_model(senses):
    path = tones(0, 1)
    first = run(path, "--cache", "kept/here")
    assert sorted(senses.calls) == ["audio"] * 2 + ["text"] * 2
    senses.calls.clear()
    assert run(path, "--cache", "kept/here") == first and senses.calls == []
    tone(Path("1.wav"), 1, seconds=0.6)  # another file under the same name
    run(path, "--cache", "kept/here")
    assert senses.calls == ["audio"]
    senses.identity = "other"
    senses.calls.clear()
    run(path, "--cache", "kept/here")
    assert sorted(senses.calls) == ["audio"] * 2 + ["text"] * 2
    assert {file.name for file in Path("kept/here").iterdir()} == {"senses.sqlite", "other.sqlite"}


def test_an_interrupted_run_keeps_what_it_has(senses):
    path = tones(0, 1, 2)
    Path("2.wav").write_bytes(b"RIFF")
    assert cli.main(["evaluate", path, "--cache", "kept"]) == console.MISTAKE
    senses.calls.clear()
    tone(Path("2.wav"), 2)
    run(path, "--cache", "kept")
    assert senses.calls.count("audio") == 1


def test_a_damaged_cache_is_named(senses, capsys):
    path = tones(0, 1)
    Path("kept").mkdir()
    Path("kept/senses.sqlite").write_bytes(b"no database" * 100)
    assert "senses.sqlite: the cache cannot be used" in complaint(capsys, path, "--cache", "kept")


def test_an_excerpt_of_a_longer_file_and_a_file_longer_than_a_window(senses):
    tone(Path("0.wav"), 0, before=2.0)  # first another tone, then its own
    tone(Path("1.wav"), 1, seconds=25.0)
    document = run(jsonl({"path": "0.wav", "caption": "zero", "start": 2.0}, {"path": "1.wav", "caption": "one"}))
    assert named(document)["text->audio"]["R@1"] == 1
    assert senses.calls.count("audio") == 4  # one, and three windows
    whole = run(jsonl({"path": "0.wav", "caption": "zero"}, {"path": "1.wav", "caption": "one"}))
    assert named(whole)["text->audio"]["R@1"] < 1


def test_silence_is_an_item_like_any_other(senses):
    tone(Path("0.wav"), 0)
    soundfile.write("s.wav", np.zeros(RATE), RATE)
    document = run(jsonl({"path": "0.wav", "caption": "zero"}, {"path": "s.wav", "caption": "silence"}))
    assert named(document)["text->audio"]["R@1"] == 1 and named(document)["text->audio"]["candidates"] == 2


def test_results_are_written_as_json_and_markdown(senses, capsys):
    path = tones(0, 1)
    assert cli.main(["evaluate", path, "-o", "out.json", "--limit", "1"]) == console.DONE
    assert capsys.readouterr().out.splitlines()[-2:] == ["out.json", "out.md"]
    kept = json.loads(Path("out.json").read_text())
    assert kept["limit"] == 1 and kept["identity"] == "senses" and kept["figures"][0]["R@1"] == 1
    text = Path("out.md").read_text()
    assert "| retrieval | R@1 | R@5 | R@10 | median rank | queries | candidates |" in text
    assert "| text->audio | 100.0 | 100.0 | 100.0 | 1.0 | 1 | 1 |" in text
    assert "out.json: exists already" in complaint(capsys, path, "-o", "out.json")
    assert cli.main(["evaluate", path, "-o", "out.json", "--force"]) == console.DONE
    assert json.loads(Path("out.json").read_text())["items"] == 2


def test_a_public_set_stands_beside_its_published_figures(senses, capsys):
    Path("set").mkdir()
    rows = ["audiocap_id,youtube_id,start_time,caption"]
    for i in range(2):
        tone(Path(f"set/clip{i}_30.wav"), i)
        rows += [f"{i}0,clip{i},30,a {WORDS[i]}", f"{i}1,clip{i},30,{WORDS[i]} again"]
    Path("set/test.csv").write_text("\n".join(rows))
    assert cli.main(["evaluate", "--set", "audiocaps", "--data", "set"]) == console.DONE
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("text->audio")]
    assert line.split()[1] == "100.0" and "41.8 small / 42.7 base / 45.8 large" in line
    assert "2 items; the published figures are of 975, and with fewer retrieval is easier" in out
    document = run("--set", "audiocaps", "--data", "set", "--model", "facebook/pe-av-base-16-frame")
    figure = named(document)["text->audio"]
    assert figure["queries"] == 4 and [(one["model"], one["value"]) for one in figure["published"]] == [
        ("pe-av-base-16-frame", 0.431)
    ]
    assert "perception_models" in figure["published"][0]["source"]
    assert named(document)["audio->text"]["published"] == []


def test_a_set_becomes_a_manifest(senses, capsys):
    Path("set/audio").mkdir(parents=True)
    tone(Path("set/audio/x_1.000_2.000.wav"), 1)
    Path("set/validation.tsv").write_text("filename\tonset\toffset\tevent_label\nx_1.000_2.000.wav\t0\t0.2\tDog\n")
    arguments = ["evaluate", "--set", "desed", "--data", "set", "--write-manifest", "m.jsonl"]
    assert cli.main(arguments) == console.DONE and capsys.readouterr().out == "m.jsonl: 1 items\n"
    assert json.loads(Path("m.jsonl").read_text()) == {
        "id": "x_1.000_2.000.wav", "path": "set/audio/x_1.000_2.000.wav", "labels": ["Dog"], "split": "validation",
        "events": [{"label": "Dog", "start": 0.0, "end": 0.2}],
    }  # fmt: skip
    assert cli.main(arguments) == console.MISTAKE and "exists already" in capsys.readouterr().err


def test_the_sets_are_listed(capsys):
    assert cli.main(["evaluate", "--list"]) == console.DONE
    assert "audiocaps    AudioCaps: retrieval." in capsys.readouterr().out
    assert {one["name"] for one in run("--list")} >= {"desed", "vctk"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a manifest, or --set NAME"),
        (["none.jsonl"], "none.jsonl: no such manifest"),
        (["m.jsonl", "--set", "clotho"], "give either a manifest, or --set NAME"),
        (["m.jsonl", "--data", "."], "--data belongs to --set"),
        (["--set", "esc50", "--data", "."], "no set called 'esc50' is known; choose activitynet, audiocaps"),
        (["--set", "clotho"], "--set clotho needs --data FOLDER with Clotho. Zenodo"),
        (["--set", "clotho", "--data", "."], "holds no clotho_captions_evaluation.csv"),
        (["m.jsonl", "--task", "retreival"], "--task retreival is unknown; choose retrieval, classification, frames"),
        (["m.jsonl", "--direction", "a->b"], "--direction a->b is unknown; choose text->audio"),
        (["m.jsonl", "--direction", "text->video"], "text->video is not possible"),
        (["m.jsonl", "--task", "frames"], "frames is not possible here; it needs events"),
        (["m.jsonl", "--match", "class"], "--match class is unknown"),
        (["m.jsonl", "--temperature", "3"], "belongs to --dsl"),
        (["m.jsonl", "--threshold", "30"], "is a probability"),
        (["m.jsonl", "--fps", "0"], "give more than 0 pictures"),
        (["m.jsonl", "--limit", "0"], "--limit 0"),
        (["m.jsonl", "-o", "out.txt"], "name it out.json"),
        (["m.jsonl", "-o", "none/out.json"], "there is no folder none"),
        (["m.jsonl", "--split", "test"], "no item of split 'test'"),
        (["gone.jsonl"], "1 of 1 items have no file, such as gone.wav"),
        (["bare.jsonl"], "nothing can be evaluated with this manifest and model"),
    ],
)
def test_mistakes_are_one_line(senses, capsys, arguments, message):
    tones(0, 1)
    Path("gone.jsonl").write_text('{"path": "gone.wav", "caption": "x"}\n')
    Path("bare.jsonl").write_text('{"path": "0.wav"}\n')
    assert message in complaint(capsys, *arguments)
    assert {path.name for path in Path().iterdir()} == {"0.wav", "1.wav", "m.jsonl", "gone.jsonl", "bare.jsonl"}


def test_what_is_missing_or_broken_may_be_left_out(senses, capsys):
    tones(0, 1)
    Path("2.wav").write_bytes(b"RIFF, but no more")
    rows = [{"path": f"{i}.wav", "caption": WORDS[i]} for i in range(4)]
    assert "1 of 4 items have no file, such as 3.wav" in complaint(capsys, jsonl(*rows))
    assert "2.wav" in complaint(capsys, jsonl(*rows[:3]))
    document = run(jsonl(*rows), "--allow-missing")
    assert document["items"] == 3 and document["left_out"] == {"cannot be read": 1}
    assert named(document)["text->audio"]["queries"] == 2


def test_a_model_without_clips_has_frames_alone(senses, capsys):
    senses.has_clips = False
    assert "nothing can be evaluated" in complaint(capsys, tones(0, 1))


def test_an_embedding_that_is_no_number_is_no_figure(senses, capsys, monkeypatch):
    embed = senses.embed
    monkeypatch.setattr(senses, "embed", lambda **given: embed(**given) / (0 if "audio" in given else 1))
    assert "0.wav: its embedding holds NaN or infinity" in complaint(capsys, tones(0, 1))


def test_help_does_not_import_torch():
    code = "import sys; from peav import cli; cli.main(['evaluate', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--write-manifest" in done.stdout
