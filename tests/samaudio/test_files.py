"""Separation into files: names, round trips, and nothing half-done whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import unicodedata
from pathlib import Path

import pytest
import soundfile
import torch
from fake import FakeModel, snr, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from peav import media
from peav.errors import UserError
from samaudio import files, rank
from samaudio.files import plan_outputs, prompt_filename, prompt_filenames, safe_name, track_name
from samaudio.pipeline import Separator

ROOT = Path(__file__).parents[2]
RATE = 16_000


@pytest.fixture
def separator() -> Separator:
    return Separator(FakeModel(), "fake")


@pytest.fixture
def mix(tmp_path) -> Path:
    """30 seconds of a low and a high tone: three chunks."""
    path = tmp_path / "mix.wav"
    both = tone(300, 30, RATE) + tone(3_000, 30, RATE)
    media.write(path, torch.stack((both, 0.5 * both)), RATE, format="wav16")
    return path


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Names


@pytest.mark.parametrize(
    "text, name",
    [
        ("guitar", "guitar"),
        ("man speaking", "man speaking"),
        ("AC/DC: live?", "AC_DC_ live_"),
        ("..\\..\\evil", "_.._evil"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".hidden", "hidden"),
        ("...", "sound"),
        ("a\tb\nc", "a b c"),
        ("bell\x07", "bell_"),
        ("ends with dots. . .", "ends with dots"),
        ("CON", "_CON"),
        ("nul.wav", "_nul.wav"),
        ("console", "console"),
        ("con." + "x" * 90, "_con." + "x" * 75),
        ("mr. smith", "mr. smith"),
        ("e\u0301", "é"),
        ("x" * 200, "x" * 80),
    ],
)
def test_names_are_safe(text, name):
    assert safe_name(text) == name


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1, max_size=300))
def test_any_prompt_makes_a_name(text):
    name = prompt_filename(text)
    assert 1 <= len(name) <= 80 and len(name.encode()) <= 160 and safe_name(name) == name
    assert not set(name) & set('/\\:*?"<>|\0\n') and name[0] != "." and name[-1] not in ". "
    assert name == unicodedata.normalize("NFC", name) or len(text) > 80


def test_prompts_that_collide_are_numbered():
    assert prompt_filenames(["dog", "Dog", "dog!", "dog"]) == ["dog", "Dog-2", "dog!", "dog-3"]
    assert prompt_filenames(["dog", "dog-2", "dog"]) == ["dog", "dog-2", "dog-3"]
    assert prompt_filenames(["a", "a.residual"]) == ["a", "a.residual-2"]
    long = prompt_filenames(["x" * 100, "x" * 90])
    assert long == ["x" * 80, "x" * 78 + "-2"]


def test_inputs_of_one_name_get_their_own_tracks():
    inputs = [Path(p) for p in ("a/mix.wav", "b/mix.wav", "b/mix.flac", "mix-2.wav", "a/mix.wav", "c/MIX.ogg")]
    assert plan_outputs(inputs) == {
        Path("a/mix.wav"): "mix",
        Path("b/mix.wav"): "mix-3",
        Path("b/mix.flac"): "mix-4",
        Path("mix-2.wav"): "mix-2",
        Path("c/MIX.ogg"): "MIX-5",
    }


def test_tracks_are_named_after_their_files():
    assert track_name("some/folder/My Song.final.wav") == "My Song.final"
    assert track_name(os.fsdecode(b"caf\xe9.wav")) == "caf\ufffd"


# Round trips


def test_stems_land_where_they_are_expected(separator, mix, tmp_path):
    low, high = separator.separate_file(mix, ["low", "high"], tmp_path / "out")
    assert everything_in(tmp_path / "out") == [
        "mix", "mix/high.residual.wav", "mix/high.wav", "mix/low.residual.wav", "mix/low.wav",
    ]  # fmt: skip
    assert (low.target, low.residual) == (tmp_path / "out/mix/low.wav", tmp_path / "out/mix/low.residual.wav")
    assert low.present and low.prompt == "low" and high.prompt == "high" and low.warnings == []
    assert (low.seconds, low.sample_rate, low.channels) == (30.0, RATE, 2)
    assert low.spans == [(0.0, 30.0, pytest.approx(0.95))]
    target, rate = media.read(low.target)
    assert rate == RATE and snr(target[0], tone(300, 30, RATE)) > 20
    assert low.to_dict()["target"] == str(low.target)


@pytest.mark.parametrize(
    "format, ending, half_a_bit",
    [("wav", ".wav", 2**-24), ("wav16", ".wav", 2**-16), ("wavf", ".wav", 1e-7), ("flac", ".flac", 2**-24)],
)
def test_exact_formats_add_up(separator, tmp_path, format, ending, half_a_bit):
    source = tmp_path / "mix.wav"
    sound = 0.2 * torch.randn(2, 44_101, generator=torch.Generator().manual_seed(0))
    media.write(source, sound, 44_100, format="wavf")
    (made,) = separator.separate_file(source, ["low"], tmp_path / "out", format=format)
    assert made.target.suffix == ending
    mixture, target, residual = (media.read(p)[0].double() for p in (source, made.target, made.residual))
    assert target.shape == residual.shape == mixture.shape
    assert target.abs().max() > 0.05
    assert (target + residual - mixture).abs().max() <= half_a_bit


@pytest.mark.parametrize("format", ["ogg", "mp3"])
def test_lossy_formats_are_written(separator, mix, tmp_path, format):
    (made,) = separator.separate_file(mix, ["low"], tmp_path / "out", format=format)
    target, rate = media.read(made.target)
    assert made.target.name == f"low.{format}" and rate == RATE
    assert target.shape[1] == pytest.approx(30 * RATE, abs=3_000)
    assert target.abs().max() == pytest.approx(0.3, abs=0.05)


def test_files_hold_what_memory_holds(separator, mix, tmp_path, monkeypatch):
    monkeypatch.setattr(rank, "ALONE", {"similarity": 1.0, "confidence": 1.0})  # without the order of hypotheses
    (made,) = separator.separate_file(mix, ["low"], tmp_path / "out", format="wavf", candidates=2)
    result = separator.separate(mix, "low", candidates=2)
    assert media.read(made.target)[0].equal(result.target)
    assert made.chosen == result.chosen == 1 and made.scores == result.scores and made.spans == result.spans


def test_an_absent_sound_is_a_silent_file(separator, mix, tmp_path):
    (made,) = separator.separate_file(mix, ["cat"], tmp_path / "out", format="wav16")
    assert not made.present and made.spans == []
    assert media.read(made.target)[0].eq(0).all()
    assert media.read(made.residual)[0].equal(media.read(mix)[0])


def test_one_sample_is_enough(separator, tmp_path):
    media.write(tmp_path / "dot.wav", torch.full((1, 1), 0.5), 48_000, format="wav16")
    (made,) = separator.separate_file(tmp_path / "dot.wav", ["low"], tmp_path / "out", format="wav16")
    assert soundfile.info(made.target).frames == soundfile.info(made.residual).frames == 1


def test_clipping_is_told(separator, tmp_path):
    media.write(tmp_path / "loud.wav", 2 * tone(300, 1, RATE, 1.0)[None], RATE, format="wavf")
    (made,) = separator.separate_file(tmp_path / "loud.wav", ["low"], tmp_path / "out")
    assert any("low.wav" in line and "clipped" in line for line in made.warnings)
    (kept,) = separator.separate_file(tmp_path / "loud.wav", ["low"], tmp_path / "float", format="wavf")
    assert kept.warnings == []


def test_results_in_memory_are_saved_alike(separator, mix, tmp_path):
    result = separator.separate(mix, "low")
    paths = result.save(tmp_path / "out", track="take: 1", format="flac")
    assert paths == [tmp_path / "out/take_ 1/low.flac", tmp_path / "out/take_ 1/low.residual.flac"]
    assert all(p.is_file() for p in paths)
    with pytest.raises(UserError, match="--force"):
        result.save(tmp_path / "out", track="take: 1", format="flac")
    result.save(tmp_path / "out", track="take: 1", format="flac", force=True)


# Refused before any work


class Untouchable(FakeModel):
    def encode(self, mixture):
        raise AssertionError("work began")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"format": "mp4"}, "format 'mp4' is unknown"),
        ({"candidates": 9}, "candidates 9"),
        ({"chunk_seconds": 0.1}, "at least 1 s"),
        ({"prompts": []}, "no prompt"),
        ({"prompts": [["low", files.__class__]]}, "no prompt"),
    ],
    ids=["format", "candidates", "chunks", "no prompts", "odd prompt"],
)
def test_options_are_checked_first(mix, tmp_path, options, says):
    prompts = options.pop("prompts", ["low"])
    with pytest.raises(UserError, match=says):
        Separator(Untouchable(), "fake").separate_file(mix, prompts, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_existing_files_are_kept(mix, tmp_path):
    kept = tmp_path / "out/mix/low.residual.wav"
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    with pytest.raises(UserError, match="exists already; give --force"):
        Separator(Untouchable(), "fake").separate_file(mix, ["low"], tmp_path / "out")
    assert everything_in(tmp_path / "out") == ["mix", "mix/low.residual.wav"]
    assert kept.read_text() == "precious"


def test_force_replaces_them(separator, mix, tmp_path):
    kept = tmp_path / "out/mix/low.wav"
    kept.parent.mkdir(parents=True)
    kept.write_text("old")
    separator.separate_file(mix, ["low"], tmp_path / "out", force=True)
    assert soundfile.info(kept).frames == 30 * RATE


def test_the_recording_itself_is_never_replaced(tmp_path):
    source = tmp_path / "mix" / "mix.wav"
    source.parent.mkdir()
    media.write(source, torch.zeros(1, 100), RATE)
    with pytest.raises(UserError, match="is the recording itself"):
        Separator(Untouchable(), "fake").separate_file(source, ["mix"], tmp_path, force=True)


def test_what_the_format_cannot_hold_is_refused_at_once(tmp_path):
    media.write(tmp_path / "six.wav", torch.zeros(6, 100), RATE)
    with pytest.raises(UserError, match="mp3 cannot hold 6 channels"):
        Separator(Untouchable(), "fake").separate_file(tmp_path / "six.wav", ["low"], tmp_path / "o", format="mp3")
    assert not (tmp_path / "o").exists()


def test_a_span_behind_the_end_is_refused_at_once(mix, tmp_path):
    from samaudio.prompts import Span

    with pytest.raises(UserError, match=r"30\.00 s long"):
        Separator(Untouchable(), "fake").separate_file(mix, [["low", Span(40, 41)]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_complete_tracks_are_skipped_and_the_rest_is_done(separator, mix, tmp_path):
    separator.separate_file(mix, ["low", "cat"], tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out/mix").iterdir()}
    model = FakeModel()
    results = Separator(model, "").separate_file(mix, ["low", "high", "cat"], tmp_path / "out", skip_existing=True)
    assert [r.skipped for r in results] == [True, False, True]
    assert [r.present for r in results] == [True, True, False]
    assert all(p.stat().st_mtime_ns == at for p, at in before.items())
    assert results[0].seconds == 30.0 and results[0].to_dict()["scores"]["presence"] is None
    Separator(Untouchable(), "").separate_file(mix, ["low", "high", "cat"], tmp_path / "out", skip_existing=True)
    (tmp_path / "out/mix/high.wav").unlink()
    (again,) = separator.separate_file(mix, ["high"], tmp_path / "out", skip_existing=True)
    assert not again.skipped and again.target.is_file()


# Whatever happens, nothing half-done stays


def test_nan_in_the_middle_of_a_file_leaves_nothing(separator, tmp_path):
    sound = tone(300, 30, RATE)
    sound[25 * RATE] = torch.nan
    soundfile.write(tmp_path / "bad.wav", sound.numpy(), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="not a number .* at 25.000 s"):
        separator.separate_file(tmp_path / "bad.wav", ["low"], tmp_path / "deep/out")
    assert everything_in(tmp_path) == ["bad.wav"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_exception_leaves_nothing(separator, mix, tmp_path, error):
    def stop(done, total):
        raise error

    with pytest.raises(error):
        separator.separate_file(mix, ["low"], tmp_path / "deep/out", progress=stop)
    assert everything_in(tmp_path) == ["mix.wav"]


def test_what_was_in_the_folder_stays(separator, mix, tmp_path):
    notes = tmp_path / "out/mix/notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separator.separate_file(mix, ["low"], tmp_path / "out", progress=stop)
    assert everything_in(tmp_path / "out") == ["mix", "mix/notes.txt"]


def test_when_the_second_file_cannot_be_published_the_first_goes(separator, mix, tmp_path, monkeypatch):
    publish = files._publish

    def fail_for_target(staged, path, force):
        if path.name == "low.wav":
            raise UserError(f"{path}: no space left")
        publish(staged, path, force)

    monkeypatch.setattr(files, "_publish", fail_for_target)
    with pytest.raises(UserError, match="no space left"):
        separator.separate_file(mix, ["low"], tmp_path / "out")
    assert everything_in(tmp_path) == ["mix.wav"]


def test_somebody_elses_file_is_not_replaced_at_the_last_moment(separator, mix, tmp_path):
    def intrude(done, total):
        (tmp_path / "out/mix/low.wav").write_text("theirs")

    with pytest.raises(UserError, match="exists already"):
        separator.separate_file(mix, ["low"], tmp_path / "out", progress=intrude)
    assert everything_in(tmp_path / "out") == ["mix", "mix/low.wav"]
    assert (tmp_path / "out/mix/low.wav").read_text() == "theirs"


def test_a_file_that_grows_meanwhile_is_noticed(separator, mix, tmp_path):
    def grow(done, total):
        if done == total:
            media.write(mix, torch.zeros(2, 40 * RATE), RATE, overwrite=True)

    with pytest.raises(UserError, match="changed while it was being read"):
        separator.separate_file(mix, ["low"], tmp_path / "out", progress=grow)
    assert everything_in(tmp_path) == ["mix.wav"]


PROGRAM = """
    import resource, sys, time
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads(1)
    from fake import FakeModel
    from peav.errors import UserError
    from samaudio.pipeline import Separator

    def progress(done, total):
        print("chunk", flush=True)
        time.sleep({pause})

    if {limit}:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    try:
        Separator(FakeModel(), "").separate_file({mix!r}, ["low"], {out!r}, progress=progress, format="wavf")
    except UserError as error:
        sys.exit(f"error: {{error}}")
"""


def start(mix: Path, out: Path, pause: float = 0.0, limit: int = 0) -> subprocess.Popen:
    program = PROGRAM.format(tests=str(Path(__file__).parent), mix=str(mix), out=str(out), pause=pause, limit=limit)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(mix, tmp_path, number):
    run = start(mix, tmp_path / "out", pause=60)
    assert run.stdout is not None and run.stdout.readline() == "chunk\n"
    assert len(everything_in(tmp_path / "out")) == 2  # the folder and what is being written
    run.send_signal(number)
    run.communicate(timeout=30)
    assert run.returncode in (128 + number, -number)
    assert everything_in(tmp_path) == ["mix.wav"]


def test_a_killed_run_is_cleaned_up_by_the_next(separator, mix, tmp_path):
    run = start(mix, tmp_path / "out", pause=60)
    assert run.stdout is not None and run.stdout.readline() == "chunk\n"
    run.kill()
    run.communicate(timeout=30)
    left = [path.name for path in (tmp_path / "out/mix").iterdir()]
    assert left and all(name.startswith(".") and ".partial-" in name for name in left)
    separator.separate_file(mix, ["low"], tmp_path / "out")
    assert everything_in(tmp_path / "out/mix") == ["low.residual.wav", "low.wav"]


# What the first pass keeps is as long as a wavf without its header: 3.84 MB.
@pytest.mark.parametrize("limit", [500_000, 3_840_000], ids=["first pass", "second pass"])
def test_a_full_disk_leaves_nothing(mix, tmp_path, limit):
    run = start(mix, tmp_path / "out", limit=limit)
    _, complaint = run.communicate(timeout=60)
    assert run.returncode == 1 and complaint.startswith("error: ") and "nothing was" in complaint
    assert len(complaint.strip().splitlines()) == 1 and ".partial-" not in complaint
    assert everything_in(tmp_path) == ["mix.wav"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording():
    command = [sys.executable, "benchmarks/memory.py", "--model", "none", "--minutes", "1", "10"]
    table = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    short, long = (int(line.split("|")[2].split()[0]) for line in table.splitlines()[-2:])
    assert long < short + 50  # MiB
