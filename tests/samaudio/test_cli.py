"""The ``separate`` command: what it refuses, what it prints, and that nothing is written on a mistake."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from fake import FakeModel

import samaudio
from peav import media
from samaudio import cli
from samaudio.files import safe_name, stem_files, stem_paths
from samaudio.prompts import Click, Example, Span, Text, describe
from samaudio.result import FileResult, Quality, Scores

RATE = 16_000
NAN = float("nan")


def sound(seconds: float = 1.0, channels: int = 1, rate: int = RATE) -> np.ndarray:
    """A 200 Hz and a 3 kHz tone, [T, C] as soundfile takes them."""
    times = np.arange(round(seconds * rate)) / rate
    tones = 0.3 * np.sin(2 * np.pi * 200 * times) + 0.3 * np.sin(2 * np.pi * 3_000 * times)
    return np.repeat(tones[:, None], channels, axis=1).astype(np.float32)


class StubSeparator:
    """Takes what lies below 1 kHz, hears no whales, and remembers how it was called."""

    name, device, sample_rate = "stub", torch.device("cpu"), RATE

    def __init__(self) -> None:
        self.calls: list[SimpleNamespace] = []

    def separate_file(self, path, prompts, out, *, exclude=(), candidates=1, seed=0, format="wav", force=False,
                      progress=None, skip_existing=False, track=None):  # fmt: skip
        self.calls.append(
            SimpleNamespace(path=path, prompts=prompts, exclude=exclude, candidates=candidates, seed=seed)
        )
        mixture, rate = media.read(path)
        spectrum = torch.fft.rfft(mixture)
        spectrum[:, round(1_000 * mixture.shape[1] / rate) :] = 0
        low = torch.fft.irfft(spectrum, n=mixture.shape[1])
        names = [describe(items) for items in prompts]
        results = []
        for name, paths in zip(names, stem_paths(Path(out) / safe_name(track), names, format), strict=True):
            present = name != "whale"
            facts = name, present, Scores(0.41 if present else NAN, 0.97 if present else 0.03, 0.8)
            length = mixture.shape[1] / rate, rate, len(mixture)
            if skip_existing and paths.target.exists():
                results.append(FileResult(*paths, name, present, Scores(NAN, NAN, NAN), [], *length, skipped=True))
                continue
            paths.target.parent.mkdir(parents=True, exist_ok=True)
            with stem_files(paths, rate, len(mixture), format, force or skip_existing) as files:
                files.write(mixture, low if present else 0 * low)
            spans = [(0.2, 0.7, 0.9)] if present else []
            warnings = ["guitar.wav: 3 samples were clipped"] if name == "loud" else []
            results.append(FileResult(*paths, *facts, spans, *length, warnings=warnings))
        if progress is not None:
            progress(length[0], length[0])
        return results


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """The command in an empty folder, with a stub for the model."""
    separator = StubSeparator()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(samaudio, "load", lambda model=None, device="auto", judge=True, segmenter=None: separator)
    return separator


@pytest.fixture
def real(monkeypatch, stub):
    """The command with everything that is real but the model, which knows "low" and "high"."""
    separator = samaudio.Separator(FakeModel(), "fake")
    monkeypatch.setattr(samaudio, "load", lambda model=None, device="auto", judge=True, segmenter=None: separator)
    return separator


@pytest.fixture
def mix(stub) -> Path:
    soundfile.write("mix.wav", sound(), RATE)
    return Path("mix.wav")


def tree() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def refused(arguments: list[str], capfd, expected: str) -> str:
    """Run a command line that must fail: exit 2, one line that says why, nothing written."""
    before = tree()
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert len(err.splitlines()) == 1, err
    assert re.search(expected, err), err
    assert tree() == before
    return out


def truncated(path: Path) -> None:
    soundfile.write(path, sound(2.0), RATE)
    path.write_bytes(path.read_bytes()[:20_000])


def not_a_number(path: Path) -> None:
    samples = sound()
    samples[5_000] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


BAD_FILES = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "truncated": (truncated, "truncated"),
    "text": (lambda path: path.write_text("dear diary\n" * 50), "not audio"),
    "no samples": (lambda path: soundfile.write(path, sound(0.0), RATE), "no samples"),
    "NaN": (not_a_number, "not a number"),
    "9 channels": (lambda path: soundfile.write(path, sound(0.1, 9), RATE), "9 channels"),
    "1 Hz": (lambda path: soundfile.write(path, sound(0.1), 1), "sample rate is 1 Hz"),
    "768 kHz": (lambda path: soundfile.write(path, sound(0.1), 768_000), "sample rate is 768000 Hz"),
    "folder named .wav": (lambda path: path.mkdir(), "no audio or video files"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_nothing_written(real, capfd, kind):
    make, expected = BAD_FILES[kind]
    make(Path("bad.wav"))
    refused(["bad.wav", "-p", "guitar"], capfd, expected)


@pytest.mark.parametrize(("arguments", "judge"), [([], True), (["--no-judge"], False)], ids=["by default", "left out"])
def test_the_judge_scores_unless_it_is_left_out(monkeypatch, stub, mix, arguments, judge):
    asked = []
    monkeypatch.setattr(samaudio, "load", lambda *_, judge=True, **__: asked.append(judge) or stub)
    assert cli.main([str(mix), "-p", "guitar", *arguments]) == 0
    assert asked == [judge]


def test_what_the_judge_says_is_printed():
    quality = Quality(overall=3.04, recall=4.0)
    scores = Scores(float("nan"), 0.9, 0.5, quality)
    result = FileResult(Path("a.wav"), Path("b.wav"), "dog", True, scores, [], 1.0, RATE, 1)
    assert "presence 0.90  judged 3.0 of 5" in cli._lines(Path("mix.wav"), result, {})[0]


BAD_REQUESTS = {
    "empty prompt": (["-p", "  "], "prompt is empty"),
    "long prompt": (["-p", "x" * 10_000], "10000 characters"),
    "no prompt": ([], "no prompt"),
    "empty not": (["-p", "a", "--not", ""], "--not is empty"),
    "unknown device": (["-p", "a", "--device", "quantum"], "device 'quantum' is unknown"),
    "span reversed": (["-p", "a", "--span", "3.2-2.9"], "span 3.2-2.9 ends before it starts"),
    "span no times": (["-p", "a", "--span", "abc"], "span 'abc' is not START-END"),
    "span negative": (["-p", "a", "--span=-1-2"], "is not START-END"),
    "span after the end": (["-p", "a", "--span", "7-8"], "span 7-8 is not inside"),
    "unknown format": (["-p", "a", "--format", "aiff"], "format 'aiff' is unknown; choose one of wav"),
    "no candidates": (["-p", "a", "--candidates", "0"], "candidates"),
    "negative seed": (["-p", "a", "--seed", "-1"], "seed"),
    "unknown option": (["-p", "a", "--frobnicate"], "No such option: --frobnicate"),
    "missing example": (["--example", "none.wav"], "none.wav: no such file"),
    "example of two": (["--example", "mix.wav", "-p", "a", "-p", "b"], "--example shows one sound"),
    "out is a file": (["-p", "a", "-o", "mix.wav"], "is not a folder"),
    "out below a file": (["-p", "a", "-o", "mix.wav/deep/er"], "is not a folder"),
    "out is read-only": (["-p", "a", "-o", "/proc/separated"], "cannot be written to"),
    "glob without match": (["nothing-*.flac", "-p", "a"], "matches no file"),
    "two ways with outputs": (["-p", "a", "--force", "--skip-existing"], "give one of the two"),
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
def test_a_bad_request_is_refused_before_the_model_is_loaded(mix, monkeypatch, capfd, kind):
    monkeypatch.setattr(samaudio, "load", lambda *_, **__: pytest.fail("loaded"))
    options, expected = BAD_REQUESTS[kind]
    refused(["mix.wav", *options], capfd, expected)


def test_a_device_that_is_not_there_is_refused(mix, capfd):
    if torch.cuda.is_available():
        pytest.skip("it is there")
    refused(["mix.wav", "-p", "a", "--device", "cuda"], capfd, "device 'cuda' is not available")


def test_existing_outputs_need_force(mix, stub, monkeypatch, capfd):
    assert cli.main(["mix.wav", "-p", "guitar", "-q"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(samaudio, "load", lambda *_, **__: pytest.fail("loaded"))
        refused(["mix.wav", "-p", "guitar"], capfd, "exists already; give --force")
    assert cli.main(["mix.wav", "-p", "guitar", "-q", "--force"]) == 0


def test_skip_existing_leaves_finished_outputs_alone(mix, stub, capfd):
    cli.main(["mix.wav", "-p", "guitar", "-q"])
    written = Path("separated/mix/guitar.wav").stat().st_mtime_ns
    assert cli.main(["mix.wav", "-p", "guitar", "-p", "drums", "--skip-existing"]) == 0
    assert Path("separated/mix/guitar.wav").stat().st_mtime_ns == written
    assert Path("separated/mix/drums.wav").exists()
    assert '"guitar"  was there already' in capfd.readouterr().out


def test_two_prompts_are_one_pass_and_four_files(mix, stub, capfd):
    arguments = ["mix.wav", "-p", "Guitar ", "-p", "man speaking", "-p", "guitar", "--not", "wind", "--candidates", "4"]
    assert cli.main([*arguments, "--seed", "7"]) == 0
    (call,) = stub.calls
    assert call.prompts == [(Text("Guitar"),), (Text("man speaking"),)]
    assert (list(call.exclude), call.candidates, call.seed) == (["wind"], 4, 7)
    assert len(list(Path("separated/mix").iterdir())) == 4
    out, err = capfd.readouterr()
    assert err == ""
    assert "model stub on cpu" in out
    assert "separated/mix/man speaking.residual.wav" in out
    assert "presence 0.97  similarity 0.41  heard at 0.2-0.7 s" in out


def test_spans_and_examples_belong_to_their_prompts(mix, stub):
    assert cli.main(["mix.wav", "-p", "a", "-p", "b", "--span", "0.1-0.3", "--span", "0:00.5 - .7", "-q"]) == 0
    spans = (Span(0.1, 0.3), Span(0.5, 0.7))
    assert stub.calls[-1].prompts == [(Text("a"), *spans), (Text("b"), *spans)]
    assert cli.main(["mix.wav", "--span", "0.1-0.3", "-q"]) == 0
    assert stub.calls[-1].prompts == [(Span(0.1, 0.3),)]
    assert cli.main(["mix.wav", "--example", "mix.wav", "-q"]) == 0
    assert stub.calls[-1].prompts == [(Example(Path("mix.wav")),)]


def test_times_can_be_minutes_and_hours():
    assert cli._span("1:02.5-1:00:10") == Span(62.5, 3_610.0)


def test_folders_and_globs_are_expanded_sorted_and_once(stub):
    names = ["band/b.wav", "band/deep/a.FLAC", "band/.hidden/c.wav", "band/.d.wav", "single [live].wav"]
    ours = ["band/guitar.wav", "band/guitar.residual.wav", "band/stems/x/x.wav"]
    for name in [*names, *ours]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, sound(0.1), RATE)
    Path("band/notes.txt").write_text("not a sound")
    inputs = ["single [live].wav", "band", "band/*.wav", "**/a.FLAC"]
    assert cli.main([*inputs[:2], "-p", "a", "-o", "band/stems", "-q"]) == 0
    done = [str(call.path) for call in stub.calls]
    assert done == ["single [live].wav", "band/b.wav", "band/deep/a.FLAC"]
    found = cli._expand(inputs, Path("band/stems"))
    assert [str(path) for path in found[:3]] == done
    assert {str(path) for path in found[3:]} == {"band/guitar.wav", "band/guitar.residual.wav"}  # named, so meant


def test_inputs_of_one_name_get_folders_of_their_own(stub):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        soundfile.write(f"{folder}/mix.wav", sound(0.1), RATE)
    assert cli.main(["a/mix.wav", "b/mix.wav", "-p", "x", "-q"]) == 0
    assert {path.name for path in Path("separated").iterdir()} == {"mix", "mix-2"}


def test_a_bad_file_does_not_stop_the_others(mix, real, capfd):
    not_a_number(Path("nan.wav"))
    assert cli.main(["missing.wav", "nan.wav", "mix.wav", "-p", "low"]) == 2
    out, err = capfd.readouterr()
    assert [line.split(":")[0] for line in err.splitlines()] == ["missing.wav", "nan.wav"]
    assert Path("separated/mix/low.wav").exists()
    assert not Path("separated/nan").exists()
    assert "separated/mix/low.wav" in out


@pytest.mark.parametrize("format", list(media.FORMATS))
def test_every_format_is_written(mix, real, format):
    assert cli.main(["mix.wav", "-p", "low", "--format", format, "-q"]) == 0
    ending = media.FORMATS[format].suffixes[0]
    assert {path.name for path in Path("separated/mix").iterdir()} == {f"low{ending}", f"low.residual{ending}"}
    assert media.probe(f"separated/mix/low{ending}").seconds == pytest.approx(1.0, abs=0.1)


def test_the_real_pipeline_end_to_end(mix, real, capfd):
    assert cli.main(["mix.wav", "-p", "low", "-p", "whale", "--not", "high", "--plot", "--json"]) == 0
    out, err = capfd.readouterr()
    low, whale = json.loads(out)
    assert err == "" and (low["present"], whale["present"]) == (True, False)
    (mixture, _), (target, _), (residual, _) = (media.read(p) for p in ("mix.wav", low["target"], low["residual"]))
    assert (mixture - target - residual).abs().max() < 1e-6
    assert float(target.square().mean() / mixture.square().mean()) == pytest.approx(0.5, abs=0.1)
    assert Path(low["picture"]).exists() and Path(whale["picture"]).exists()
    assert float(media.read(whale["target"])[0].abs().max()) == 0.0


def test_json_is_the_only_thing_on_stdout(mix, capfd):
    assert cli.main(["mix.wav", "missing.wav", "-p", "guitar", "-p", "whale", "--json"]) == 2
    out, err = capfd.readouterr()
    error, guitar, whale = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert guitar["target"] == "separated/mix/guitar.wav"
    assert (guitar["input"], guitar["prompt"], guitar["present"]) == ("mix.wav", "guitar", True)
    assert (guitar["model"], guitar["device"]) == ("stub", "cpu")
    assert (whale["present"], whale["scores"]["similarity"]) == (False, None)
    assert error["input"] == "missing.wav"
    assert err.strip() == error["error"]


def test_json_lists_errors_when_nothing_could_be_done(stub, capfd):
    assert [*json.loads(refused(["none.wav", "-p", "a", "--json"], capfd, "no such file"))[0]] == ["input", "error"]


def test_quiet_prints_nothing(mix, capfd):
    assert cli.main(["mix.wav", "-p", "guitar", "-p", "whale", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_an_absent_sound_is_an_answer(mix, capfd):
    assert cli.main(["mix.wav", "-p", "whale"]) == 0
    out, err = capfd.readouterr()
    assert '"whale": not heard in mix.wav (presence 0.03); the target is silent' in out.splitlines()
    assert err == ""


def test_warnings_are_shown(mix, capfd):
    assert cli.main(["mix.wav", "-p", "loud"]) == 0
    assert "    warning: guitar.wav: 3 samples were clipped" in capfd.readouterr().out.splitlines()


def test_ctrl_c_is_one_line_and_130(mix, stub, monkeypatch, capfd):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stub, "separate_file", interrupted)
    assert cli.main(["mix.wav", "-p", "a"]) == 130
    err = capfd.readouterr().err
    assert err.startswith("stopped") and len(err.splitlines()) == 1


def test_our_own_bugs_keep_their_traceback(mix, stub, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(stub, "separate_file", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["mix.wav", "-p", "a"])


def test_plot_draws_beside_the_outputs(mix, capfd):
    assert cli.main(["mix.wav", "-p", "guitar", "--plot"]) == 0
    assert Path("separated/mix/guitar.png").stat().st_size > 10_000
    assert "separated/mix/guitar.png" in capfd.readouterr().out


def test_skip_existing_keeps_pictures_too(mix, stub):
    arguments = ["mix.wav", "-p", "guitar", "--plot", "-q"]
    cli.main(arguments)
    Path("separated/mix/guitar.png").write_text("mine")
    assert cli.main([*arguments, "--skip-existing"]) == 0
    assert Path("separated/mix/guitar.png").read_text() == "mine"


def test_what_is_wrong_with_all_files_is_said_once(mix, real, capfd):
    soundfile.write("other.wav", sound(), RATE)
    assert cli.main(["mix.wav", "other.wav", "-p", "low", "--candidates", "9", "--json"]) == 2
    out, err = capfd.readouterr()
    assert len(err.splitlines()) == 1 and "candidates 9" in err
    assert [entry["input"] for entry in json.loads(out)] == ["mix.wav", "other.wav"]
    assert not Path("separated").exists()


def test_the_help_lists_every_format():
    listed = set(re.findall(r"\b(?:wav\w*|flac|mp3|ogg)\b", cli.FORMAT_HELP))
    assert listed == set(media.FORMATS) - {"wav32f"}  # another name of wavf


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    root = Path(cli.__file__).parents[1]
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(root)}, **options,
    )  # fmt: skip


def test_help_is_fast_and_does_not_import_torch():
    code = (
        "import sys; from samaudio.cli import main; code = main(['--help']); "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules; sys.exit(code)"
    )
    start = time.monotonic()
    done = run("-c", code)
    assert time.monotonic() - start < 1.5
    assert (done.returncode, done.stderr) == (0, "")
    assert "--prompt" in done.stdout and "Exit codes" in done.stdout


def test_as_a_program_a_mistake_is_one_line_and_two(tmp_path):
    done = run("-m", "samaudio.cli", "none.wav", "-p", "guitar", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["none.wav: no such file; check the name and the folder"]
    assert not list(tmp_path.iterdir())


def test_as_a_program_it_stops_on_ctrl_c(tmp_path):
    soundfile.write(tmp_path / "mix.wav", sound(), RATE)
    code = (
        "import sys, time, samaudio\n"
        "class Slow:\n"
        "    name = device = 'slow'\n"
        "    def separate_file(self, *_, **__): time.sleep(30)\n"
        "samaudio.load = lambda *_, **__: Slow()\n"
        "from samaudio.cli import main\n"
        "sys.exit(main(['mix.wav', '-p', 'a']))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "model slow on slow\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.startswith("stopped") and len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mix.wav"]


# --- films ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--click", "1,2"], "click '1,2' is not understood"),
        (["--box", "1,2,3@0"], "box '1,2,3@0' is not understood"),
        (["--not-click", "1,2@0"], "points at nothing"),
        (["--mask", "a.png"], "a.png: no such file"),
        (["--mask", "mix.wav", "--background-mask", "mix.wav"], "one of the two"),
        (["--whole-picture", "--click", "1,2@0"], "contradict"),
        (["--click", "1,2@0", "-p", "a", "-p", "b"], "point at one sound"),
    ],
)
def test_pointing_that_makes_no_sense_is_refused(stub, mix, capfd, arguments, message):
    refused([str(mix), *arguments], capfd, message)


def test_what_is_pointed_at_arrives(stub, tmp_path, monkeypatch):
    from seeing import sounding_film

    monkeypatch.chdir(tmp_path)
    film = sounding_film(tmp_path / "clip.mkv")
    assert cli.main([str(film), "-p", "guitar", "--click", "4,2@1.5", "--not-click", "1,1@0", "--span", "0-1"]) == 0
    (asked,) = stub.calls[-1].prompts
    assert asked == (Text("guitar"), Span(0.0, 1.0), Click(4, 2, 1.5), Click(1, 1, 0, positive=False))


def test_remux_writes_the_film_with_and_without_the_sound(real, capfd):
    from seeing import sounding_film

    film = sounding_film(Path("clip.mkv"))
    assert cli.main([str(film), "-p", "low", "--remux", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    assert Path(entry["film"]).name == "low.mkv" and Path(entry["film_without"]).name == "low.residual.mkv"
    low, rest = (media.read(entry[name])[0] for name in ("film", "film_without"))
    mixture = media.read(film)[0]
    assert float((low + rest - mixture).abs().max()) < 1e-4 and float(low.abs().max()) > 0.01
    refused([str(film), "-p", "low", "--remux"], capfd, "exists already")
    assert cli.main([str(film), "-p", "low", "--remux", "--skip-existing"]) == 0
    assert "film without" in capfd.readouterr().out


def test_remux_leaves_recordings_without_pictures_alone(real, mix, capfd):
    assert cli.main([str(mix), "-p", "low", "--remux", "--json"]) == 0
    assert "film" not in json.loads(capfd.readouterr().out)[0]
