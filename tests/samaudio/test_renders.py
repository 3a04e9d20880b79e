"""Composed phrases stay in range, their MIDI parses, manifest rows are whole, and renders sound."""

import json
import shutil
import struct
from random import Random

import numpy as np
import pytest
import soundfile

from samaudio import render_sound, renders
from samaudio.render_examples import drum_part, flute_part, guitar_part, rain
from samaudio.render_players import DRUMS, INSTRUMENTS, VALID_VOICES, VOICES, Voice
from samaudio.render_score import SCALES, STYLES, Note, Phrase, compose, midi_bytes, pitches_in
from samaudio.render_sentences import SENTENCES

missing = [program for program in ("fluidsynth", "flite") if shutil.which(program) is None]
if not render_sound.SOUNDFONT.is_file():
    missing.append("fluid-soundfont-gm")
needs_programs = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def read_midi(data: bytes) -> list[tuple[int, bytes]]:
    """An independent reader of format 0 files without running status: (tick, message)."""
    kind, length, form, tracks, division = struct.unpack(">4sIHHH", data[:14])
    assert (kind, length, form, tracks, division) == (b"MThd", 6, 0, 1, 500)
    assert data[14:18] == b"MTrk"
    assert struct.unpack(">I", data[18:22])[0] == len(data) - 22
    sizes = {0x80: 2, 0x90: 2, 0xB0: 2, 0xC0: 1, 0xE0: 2}
    events, tick, at = [], 0, 22
    while True:
        delta = 0
        while True:
            byte, at = data[at], at + 1
            delta = delta << 7 | byte & 0x7F
            if byte < 0x80:
                break
        tick += delta
        if data[at] == 0xFF:
            assert data[at:] == b"\xff\x2f\x00"
            return events
        size = sizes[data[at] & 0xF0]
        assert all(byte < 0x80 for byte in data[at + 1 : at + 1 + size])
        events.append((tick, data[at : at + 1 + size]))
        at += 1 + size


def test_midi_says_the_notes_at_their_milliseconds():
    phrase = Phrase([Note(0.0, 0.5, 60, 90), Note(0.5, 20.0, 60, 80)], program=25, channel=2)
    assert read_midi(midi_bytes(phrase)) == [
        (0, bytes([0xC2, 25])),
        (0, bytes([0x92, 60, 90])),
        (500, bytes([0x82, 60, 0])),  # the first ends before the second of the same pitch begins
        (500, bytes([0x92, 60, 80])),
        (20_500, bytes([0x82, 60, 0])),
    ]


@pytest.mark.parametrize("bend, low7, high7", [(-8192, 0, 0), (0, 0, 64), (8191, 127, 127)])
def test_pitch_bend_is_centred_on_8192(bend, low7, high7):
    assert read_midi(midi_bytes(Phrase([], bends=[(0.0, bend)])))[1][1] == bytes([0xE0, low7, high7])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("scale", SCALES)
def test_phrases_keep_to_the_range_and_the_time(style, scale):
    for seed in range(5):
        phrase = compose(Random(seed), style, 40, 76, 6.0, 0.5, seed, scale)
        assert phrase.notes
        assert all(40 <= note.pitch <= 76 and 1 <= note.velocity <= 127 for note in phrase.notes)
        assert all(0 <= note.start < 6.0 and note.length > 0 for note in phrase.notes)
        assert compose(Random(seed), style, 40, 76, 6.0, 0.5, seed, scale).notes == phrase.notes


def test_a_melody_has_only_pitches_of_its_scale():
    phrase = compose(Random(3), "melody", 55, 91, 8.0, 0.4, 7, "major")  # G major
    assert {note.pitch for note in phrase.notes} <= set(pitches_in(55, 91, 7, "major"))
    assert pitches_in(60, 72, 0, "major") == [60, 62, 64, 65, 67, 69, 71, 72]


def test_an_unknown_style_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown style 'waltz'; choose from melody, notes"):
        compose(Random(0), "waltz", 40, 76, 6.0, 0.5, 0, "major")


def test_plan_is_deterministic_and_fills_the_time():
    clips = renders.plan(10, seed=1)
    assert clips == renders.plan(10, seed=1) != renders.plan(10, seed=2)
    assert len({clip.path for clip in clips}) == len(clips)
    assert 600 <= sum(clip.seconds for clip in clips) < 640
    speech = sum(clip.seconds for clip in clips if isinstance(clip.player, Voice))
    assert speech == pytest.approx(150, abs=15)


@pytest.mark.parametrize("only, voices", [("music", {False}), ("speech", {True})])
def test_only_leaves_the_other_kind_out(only, voices):
    assert {isinstance(clip.player, Voice) for clip in renders.plan(3, only=only)} == voices


def test_every_player_comes_and_no_group_is_in_both_splits():
    clips = renders.plan(120)
    assert {clip.player for clip in clips} >= {*INSTRUMENTS, *DRUMS}
    split_of = {}
    for clip in clips:
        assert split_of.setdefault(clip.group, clip.split) == clip.split
    share = sum(clip.split == "valid" for clip in clips) / len(clips)
    assert 0.05 < share < 0.12
    assert {voice.group for voice in VOICES} > VALID_VOICES


def test_every_clip_of_a_plan_can_be_played_and_described():
    for clip in renders.plan(30):
        row = renders.manifest_row(clip, 5.0)
        assert list(row) == ["path", "label", "captions", "group", "split", "source", "license", "seconds"]
        assert 3 <= len(row["captions"]) <= 6
        assert len(set(row["captions"])) == len(row["captions"])
        assert row["label"] not in row["captions"]
        assert not any("  " in caption or caption != caption.strip() for caption in row["captions"])
        if isinstance(clip.player, Voice):
            assert len(renders.speech_of(clip).text.split()) > 8
            assert clip.player.language in SENTENCES
        else:
            phrase = renders.phrase_of(clip)
            assert read_midi(midi_bytes(phrase))
            pitches = [note.pitch for note in phrase.notes]
            if clip.player in INSTRUMENTS:
                assert clip.player.low <= min(pitches) and max(pitches) <= clip.player.high


def test_another_soundfont_is_named_and_its_licence_left_to_its_maker(tmp_path):
    row = renders.manifest_row(renders.plan(1, only="music")[0], 5.0, tmp_path / "Mine.sf2")
    assert "Mine" in row["source"] and "MIT" not in row["license"]


def test_a_missing_program_names_its_package_and_exits_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert renders.main([str(tmp_path / "out"), "--minutes", "1"]) == 2
    error = capsys.readouterr().err
    assert error == "fluidsynth is not installed; on Debian: apt-get install fluidsynth\n"


def test_a_missing_soundfont_names_its_package_and_exits_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(render_sound.shutil, "which", lambda program: program)
    out, soundfont = tmp_path / "out", tmp_path / "none.sf2"
    assert renders.main([str(out), "--only", "music", "--soundfont", str(soundfont)]) == 2
    assert capsys.readouterr().err.endswith("apt-get install fluid-soundfont-gm\n")
    assert not out.exists()


def test_resampling_keeps_a_tone():
    time = np.arange(16_000) / 16_000
    new_time = np.arange(48_000) / 48_000
    tone = render_sound.resample(np.sin(2 * np.pi * 440 * time), 16_000, 48_000)
    assert np.allclose(tone, np.sin(2 * np.pi * 440 * new_time), atol=1e-9)


def test_trimming_cuts_silence_and_refuses_nothing_else():
    wave = np.concatenate([np.zeros(48_000), np.full(48_000, 0.5), np.zeros(48_000)])
    assert len(render_sound.trim(wave, 8.0)) == 48_000
    assert len(render_sound.trim(wave, 0.5)) == 24_000
    with pytest.raises(RuntimeError, match="silent"):
        render_sound.trim(np.zeros(48_000), 8.0)


def test_the_parts_of_the_example_share_key_and_beat():
    g_major = {7, 9, 11, 0, 2, 4, 6}
    for part in (guitar_part(), flute_part()):
        assert {note.pitch % 12 for note in part.notes} <= g_major
    assert all(read_midi(midi_bytes(part)) for part in (guitar_part(), flute_part(), drum_part()))
    assert np.array_equal(rain(0.2), rain(0.2))


@needs_programs
def test_a_phrase_of_a_second_sounds_at_its_pitch():
    phrase = Phrase([Note(0.0, 1.0, 69, 100)], program=73)  # a flute's A, 440 Hz
    wave = render_sound.render_phrase(phrase, reverb=False)[:48_000].mean(axis=1)
    loudest = np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))))  # 1 Hz a bin
    assert loudest == pytest.approx(440, abs=4)


@needs_programs
def test_clips_are_rendered_once_and_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(renders, "VOICES", [v for v in VOICES if v.engine == "flite"])
    rows = renders.render_all(tmp_path, minutes=0.2)
    assert rows == [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        wave, rate = soundfile.read(tmp_path / row["path"])
        assert wave.ndim == 1 and rate == 48_000 and row["seconds"] == round(len(wave) / rate, 3)
        assert 0.3 < np.abs(wave).max() < 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")}
    assert renders.render_all(tmp_path, minutes=0.2) == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")} == before
