"""Audio in and out: what comes back is what was there, and whatever is wrong is said in one line."""

from __future__ import annotations

import errno
import math
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from peav import media
from peav.errors import UserError, shown
from peav.media import partial, writer
from peav.media.quiet import quiet_stderr
from peav.media.wav import wav_header

av = pytest.importorskip("av")

RATE = 44_100


def sound(seconds: float = 2.0, channels: int = 2, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A tone per channel and a little noise, float32 [C, T], within +-0.5."""
    times = np.arange(round(seconds * rate)) / rate
    tones = np.stack([0.3 * np.sin(2 * np.pi * 220 * (c + 1) * times) for c in range(channels)])
    noise = np.random.default_rng(seed).uniform(-0.05, 0.05, tones.shape)
    return (tones + noise).astype(np.float32)


def encode(
    path: Path,
    codec: str,
    samples: np.ndarray,
    rate: int = RATE,
    first: int = 0,
    video: bool = False,
    options: dict | None = None,
) -> Path:
    """Write a file with FFmpeg; the sound starts `first` samples after the file."""
    with av.open(str(path), "w", options=options or {}) as out:
        picture = None
        if video:
            picture = out.add_stream("mpeg4", rate=25)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        sound_stream = None
        if samples.shape[1]:
            layout = {1: "mono", 2: "stereo"}[samples.shape[0]]
            sound_stream = out.add_stream(codec, rate=rate, layout=layout)
        if picture is not None:
            for _ in range(25):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                out.mux(picture.encode(frame))
            out.mux(picture.encode(None))
        if sound_stream is not None:
            context = sound_stream.codec_context
            resampler = av.AudioResampler(context.format, layout, rate, context.frame_size or 1024)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                piece.pts += first
                out.mux(sound_stream.encode(piece))
            out.mux(sound_stream.encode(None))
    return path


def make(folder: Path, kind: str, seconds: float = 2.0) -> Path:
    """One readable file of the kind named."""
    by_soundfile = {
        "wav24.wav": ("WAV", "PCM_24"), "wav16.wav": ("WAV", "PCM_16"), "wav8.wav": ("WAV", "PCM_U8"),
        "float.wav": ("WAV", "FLOAT"), "flac.flac": ("FLAC", "PCM_16"), "vorbis.ogg": ("OGG", "VORBIS"),
        "opus.opus": ("OGG", "OPUS"), "mp3.mp3": ("MP3", "MPEG_LAYER_III"), "aiff.aiff": ("AIFF", "PCM_16"),
        "au.au": ("AU", "PCM_16"), "w64.w64": ("W64", "PCM_16"), "rf64.wav": ("RF64", "FLOAT"),
        "caf.caf": ("CAF", "PCM_16"),
    }  # fmt: skip
    by_pyav = {
        "aac.m4a": "aac", "aac.mp4": "aac", "alac.m4a": "alac", "aac.aac": "aac", "pcm.mov": "pcm_s16le",
        "opus.webm": "libopus", "opus.mkv": "libopus", "flac.mkv": "flac", "ac3.mka": "ac3",
    }  # fmt: skip
    path = folder / kind
    rate = 48_000 if "opus" in kind else RATE
    if kind in by_soundfile:
        form, subtype = by_soundfile[kind]
        soundfile.write(path, sound(seconds, rate=rate).T, rate, format=form, subtype=subtype)
        return path
    return encode(path, by_pyav[kind], sound(seconds, rate=rate), rate, video=kind.endswith(("mp4", "mov")))


LOSSLESS = ["wav24.wav", "wav16.wav", "float.wav", "flac.flac", "aiff.aiff", "au.au", "w64.w64", "rf64.wav",
            "caf.caf", "alac.m4a", "pcm.mov", "flac.mkv"]  # fmt: skip
LOSSY = ["wav8.wav", "vorbis.ogg", "opus.opus", "mp3.mp3", "aac.m4a", "aac.mp4", "aac.aac", "opus.webm",
         "opus.mkv", "ac3.mka"]  # fmt: skip


def refusal(call, *args, **options) -> str:
    """The message of the UserError that the call must raise: one line, not too long."""
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 300
    return message


def partials(folder: Path) -> list[str]:
    return [name for name in names(folder) if ".partial-" in name]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# Reading


@pytest.mark.parametrize("kind", LOSSLESS + LOSSY)
def test_a_file_of_any_format_gives_its_sound_whole_in_blocks_and_from_the_middle(tmp_path, kind):
    path = make(tmp_path, kind)
    info = media.probe(path)
    whole, rate = media.read(path)
    original = torch.from_numpy(sound(rate=rate))
    assert (info.sample_rate, info.channels) == (rate, 2)
    assert whole.dtype == torch.float32
    assert info.seconds == pytest.approx(2.0, abs=0.2)
    if kind in LOSSLESS:
        assert info.frames == (None if kind.endswith("mkv") else whole.shape[1])
        assert whole.shape == original.shape
        torch.testing.assert_close(whole, original, atol=2**-15, rtol=0)
    else:
        # Encoders add and lose a little at the ends; in between it is the same sound.
        assert abs(whole.shape[1] - original.shape[1]) < 0.1 * rate
        if info.frames is not None:
            assert abs(info.frames - whole.shape[1]) < 0.1 * rate

    with media.stream(path, 10_007) as blocks:
        parts = list(blocks)
    assert {part.shape[1] for part in parts[:-1]} == {10_007}
    assert torch.equal(torch.cat(parts, dim=1), whole)

    for start in (1, 30_001):
        with media.stream(path, 4096, start_frame=start) as blocks:
            assert torch.equal(next(blocks), whole[:, start : start + 4096])
    piece, _ = media.read(path, start=0.5, duration=0.25)
    assert torch.equal(piece, whole[:, rate // 2 : rate // 2 + rate // 4])


@pytest.mark.parametrize("kind", ["aac.m4a", "aac.mp4", "opus.webm", "vorbis.ogg", "opus.opus", "mp3.mp3"])
def test_encoder_padding_is_neither_at_the_start_nor_at_the_end(tmp_path, kind):
    whole, rate = media.read(make(tmp_path, kind))
    original = torch.from_numpy(sound(rate=rate))
    assert whole.shape == original.shape
    # The lag at which both agree best is none: the encoder's delay was removed.
    lags = torch.fft.irfft(torch.fft.rfft(whole[0]) * torch.fft.rfft(original[0]).conj())
    assert int(lags.argmax()) in (0, whole.shape[1] - 1, 1)


@pytest.mark.parametrize("kind", ["wav24.wav", "flac.flac", "mp3.mp3", "vorbis.ogg", "aac.m4a", "opus.mkv"])
def test_content_counts_and_not_the_extension(tmp_path, kind):
    path = make(tmp_path, kind)
    whole, _ = media.read(path)
    for suffix in (".wav", ".mp4", ".txt", ".raw", ""):
        other = tmp_path / f"other{suffix}"
        other.write_bytes(path.read_bytes())
        # Not exactly: an mp3 called .raw goes to FFmpeg's decoder, which rounds differently.
        torch.testing.assert_close(media.read(other)[0], whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "kind", ["wav24.wav", "flac.flac", "mp3.mp3", "vorbis.ogg", "aac.m4a", "aac.aac", "opus.mkv"]
)
def test_what_follows_the_sound_is_ignored(tmp_path, kind, capfd):
    path = make(tmp_path, kind)
    whole, _ = media.read(path)
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(range(125)) * 20)
    assert torch.equal(media.read(path)[0], whole)
    assert capfd.readouterr().err == ""


def test_sound_that_starts_after_the_picture_says_when_and_gets_no_silence(tmp_path):
    late = encode(tmp_path / "late.mkv", "flac", sound(1.0), first=RATE // 2, video=True)
    info = media.probe(late)
    assert info.start_seconds == pytest.approx(0.5, abs=0.002)
    torch.testing.assert_close(media.read(late)[0], torch.from_numpy(sound(1.0)), atol=2**-15, rtol=0)
    assert media.probe(make(tmp_path, "aac.mp4")).start_seconds == 0.0


def test_gaps_between_time_stamps_are_not_taken_for_a_truncated_file(tmp_path):
    """Phones send nothing while nobody speaks."""
    path = tmp_path / "call.webm"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        for second in (0, 3):
            for start in range(0, 48_000, 960):
                samples = sound(1.0, 1, 48_000)[:, start : start + 960]
                frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
                frame.sample_rate, frame.pts = 48_000, second * 48_000 + start
                out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert media.probe(path).seconds == pytest.approx(4.0, abs=0.05)
    assert media.read(path)[0].shape[1] == pytest.approx(2 * 48_000, abs=4800)


def test_integers_are_divided_by_the_size_of_their_negative_range(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([-32768, -1, 0, 32767], np.int16), RATE, subtype="PCM_16")
    whole, _ = media.read(tmp_path / "a.wav")
    assert whole.tolist() == [[-1.0, -1 / 32768, 0.0, 32767 / 32768]]


def test_one_sample_is_a_sound(tmp_path):
    soundfile.write(tmp_path / "one.wav", np.array([0.25]), RATE, subtype="FLOAT")
    assert media.read(tmp_path / "one.wav")[0].tolist() == [[0.25]]


def test_an_mp3_that_does_not_say_how_long_it_is_is_read_to_its_end(tmp_path):
    """libsndfile guesses from the first frame's bit rate: loud first, then quiet, loses most of the file."""
    loud = np.random.default_rng(0).uniform(-0.7, 0.7, 3 * RATE).astype(np.float32)
    samples = np.concatenate([loud, np.zeros(5 * RATE, np.float32)])
    path = tmp_path / "vbr.mp3"
    options = {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "VARIABLE",
        "compression_level": 0.3,
    }
    soundfile.write(path, samples, RATE, **options)
    content = path.read_bytes()
    assert media.probe(path).frames == len(samples)

    path.write_bytes(content[content.find(b"\xff\xfb", 4) :])  # without the frame that holds the length
    assert media.probe(path).frames is None
    assert abs(media.read(path)[0].shape[1] - len(samples)) < 0.1 * RATE

    path.write_bytes(content + content)  # two files joined: the first one's length is not the whole
    assert abs(media.read(path)[0].shape[1] - 2 * len(samples)) < 0.1 * RATE


def test_a_wav_from_a_pipe_has_no_true_length_and_is_read_to_its_end(tmp_path):
    path = make(tmp_path, "wav16.wav")
    whole, _ = media.read(path)
    content = bytearray(path.read_bytes())
    at = content.find(b"data") + 4
    for length in (0xFFFF_FFFF, 0x7FFF_F000):
        content[at : at + 4] = struct.pack("<I", length)
        path.write_bytes(content)
        assert torch.equal(media.read(path)[0], whole)


def test_a_stream_of_a_long_file_stays_small(tmp_path):
    """Ten minutes, 200 MB as floats; the largest block alive is 0.2 MB."""
    path = tmp_path / "long.wav"
    path.write_bytes(wav_header(RATE, 2, 2, False, 600 * RATE))
    os.truncate(path, path.stat().st_size + 600 * RATE * 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with media.stream(path, 24_000) as blocks:
        assert sum(block.shape[1] for block in blocks) == 600 * RATE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


# What is refused when reading


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(tmp_path):
    (tmp_path / "empty.wav").touch()
    assert "no such file; check the name" in refusal(media.probe, tmp_path / "none.wav")
    assert "is a folder; name the audio file" in refusal(media.read, tmp_path)
    assert "is empty (0 bytes)" in refusal(media.stream, tmp_path / "empty.wav", 100)
    assert "cannot be opened" in refusal(media.probe, tmp_path / ("x" * 300 + ".wav"))
    assert "cannot be opened" in refusal(media.probe, "a\0b.wav")
    assert "cannot be opened" in refusal(media.probe, tmp_path / "empty.wav" / "inside.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "is not a regular file" in refusal(media.probe, tmp_path / "pipe.wav")


@pytest.fixture
def locked(tmp_path):
    """A folder that cannot be written to, with a file that cannot be read."""
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "locked.wav").write_bytes(b"x")
    (folder / "locked.wav").chmod(0)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.fixture
def nobody():
    """Give up the powers of root, for which no permission counts."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_refused(locked, nobody):
    path = locked / "locked.wav"
    assert "permission denied; make the file readable" in refusal(media.probe, path)


TRUNCATED = ["wav24.wav", "float.wav", "rf64.wav", "aiff.aiff", "au.au", "w64.w64", "flac.flac", "mp3.mp3",
             "opus.mkv", "flac.mkv", "ac3.mka"]  # fmt: skip


@pytest.mark.parametrize("kind", TRUNCATED)
def test_a_truncated_file_is_refused_with_both_lengths(tmp_path, kind, capfd):
    path = make(tmp_path, kind, seconds=10.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    message = refusal(media.read, path)
    assert f"{kind}: is truncated: header promises 10.0" in message
    assert "could be read; re-export or repair it" in message
    read_seconds = float(message.split("only ")[1].split(" s")[0])
    assert 2.3 < read_seconds < 3.7
    assert capfd.readouterr().err == ""


def test_a_truncated_file_whose_index_comes_first_is_read_until_it_ends(tmp_path):
    path = encode(tmp_path / "a.m4a", "aac", sound(4.0), options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "is truncated: header promises 4.00 s, only" in refusal(media.read, path)
    with media.stream(path, 1000) as blocks:  # the part before the cut is good
        assert next(blocks).shape == (2, 1000)


def test_a_truncated_file_whose_index_came_last_is_refused_at_once(tmp_path):
    for kind in ("aac.m4a", "pcm.mov"):
        path = make(tmp_path, kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "truncated: the index of this mp4 file is missing" in refusal(media.probe, path)
    path = make(tmp_path, "caf.caf")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "is damaged or truncated: its header cannot be read" in refusal(media.probe, path)


def test_a_recorder_that_died_within_a_block_is_forgiven(tmp_path):
    path = make(tmp_path, "wav16.wav", seconds=10.0)
    path.write_bytes(path.read_bytes()[:-2000])
    assert media.read(path)[0].shape[1] == 10 * RATE - 500


def test_damage_in_the_middle_is_refused_because_what_follows_would_move(tmp_path):
    path = make(tmp_path, "aac.m4a", seconds=4.0)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    message = refusal(media.read, path)
    assert "is damaged at " in message
    assert "re-export or repair it" in message


def test_what_is_not_audio_is_refused_and_never_followed(tmp_path):
    contents = {
        "text.wav": b"hello world\n" * 50,
        "text.mp3": b"hello world\n" * 500,
        "noise.mp3": np.random.default_rng(0).bytes(20_000),
        "zeros.vox": bytes(5000),
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:1/a.ts\n",
        "list.ffconcat": b"ffconcat version 1.0\nfile 'text.wav'\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert "is not audio, or in an unknown format; convert it" in refusal(media.probe, tmp_path / name)


def test_a_video_without_sound_is_refused(tmp_path):
    path = encode(tmp_path / "silent.mp4", "aac", np.zeros((2, 0), np.float32), video=True)
    assert "has no audio stream; choose a file with sound" in refusal(media.probe, path)


def test_no_samples_are_refused(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE)
    assert "holds no samples; check that the recording was saved" in refusal(
        media.read, tmp_path / "none.wav"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_a_number_is_refused_with_its_time(tmp_path, value):
    samples = sound(2.0)
    samples[1, RATE + 441] = value
    soundfile.write(tmp_path / "bad.wav", samples.T, RATE, subtype="FLOAT")
    assert "is not a number (NaN or infinite) at 1.010 s; repair" in refusal(media.read, tmp_path / "bad.wav")
    with media.stream(tmp_path / "bad.wav", 1000, start_frame=RATE) as blocks:
        assert "at 1.010 s" in refusal(list, blocks)


def test_channels_and_rates_beyond_the_limits_are_refused(tmp_path):
    for channels, rate, words in [
        (9, RATE, "9 channels; at most 8 are supported, so mix it down first"),
        (1, 1, "its sample rate is 1 Hz; 4000 to 384000 Hz are supported, so resample it first"),
        (1, 768_000, "its sample rate is 768000 Hz; 4000 to 384000 Hz are supported"),
    ]:
        soundfile.write(tmp_path / "a.wav", np.zeros((100, channels)), rate)
        assert words in refusal(media.probe, tmp_path / "a.wav")
    for rate in (4_000, 384_000):
        soundfile.write(tmp_path / "a.wav", np.zeros((100, 8)), rate)
        assert media.probe(tmp_path / "a.wav").sample_rate == rate


def test_a_missing_pyav_is_named_with_its_extra(tmp_path, monkeypatch):
    path = make(tmp_path, "aac.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    assert 'pip install "samaudio[media]"' in refusal(media.probe, path)
    media.read(make(tmp_path, "wav16.wav"))


def test_times_outside_of_the_file_are_refused(tmp_path):
    path = make(tmp_path, "wav16.wav")
    assert "nothing at 2.00 s, the file ends before it; start earlier" in refusal(media.read, path, start=2.0)
    assert "start -1.0 is not a time" in refusal(media.read, path, start=-1.0)
    assert "duration 0 is not a length" in refusal(media.read, path, duration=0)
    with pytest.raises(ValueError, match="block_frames is 0"):
        media.stream(path, 0)
    with pytest.raises(ValueError, match="start_frame is -1"):
        media.stream(path, 10, start_frame=-1)


def test_messages_are_short_and_on_one_line(tmp_path):
    assert "\n" not in refusal(media.probe, tmp_path / "a\nb\x1b[31m.wav")
    assert shown("a" * 200, limit=11) == "aaaa...aaaa"
    assert len(str(UserError("x" * 5000))) == 300
    assert isinstance(UserError("x"), ValueError)


def test_native_libraries_are_kept_quiet_and_stderr_comes_back(capfd):
    with quiet_stderr(), quiet_stderr():
        os.write(2, b"noise")
    os.write(2, b"kept")
    assert capfd.readouterr().err == "kept"


# Writing


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize("name", ["wavf", "wav32f"])
def test_a_float_wav_comes_back_exactly_with_all_that_is_over_full_scale(tmp_path, name, channels):
    samples = 3 * torch.from_numpy(sound(0.5, channels))
    out = media.write(tmp_path / "a.wav", samples, RATE, format=name)
    back, rate = media.read(tmp_path / "a.wav")
    assert rate == RATE
    assert torch.equal(back, samples)
    assert out.clipped == 0
    assert out.peak == float(samples.abs().max())


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.integers(-32768, 32767), min_size=1, max_size=50), channels=st.sampled_from([1, 3]))
def test_16_bits_survive_every_integer_format(tmp_path_factory, values, channels):
    folder = tmp_path_factory.mktemp("pcm")
    integers = np.array([values] * channels, np.int16)
    soundfile.write(folder / "a.wav", integers.T, RATE, subtype="PCM_16")
    samples, _ = media.read(folder / "a.wav")
    for format, name in [("wav16", "b.wav"), ("wav24", "c.wav"), ("flac", "d.flac"), ("wavf", "e.wav")]:
        media.write(folder / name, samples, RATE, format=format)
        back, _ = soundfile.read(folder / name, dtype="int32", always_2d=True)
        if format != "wavf":
            assert np.array_equal(back >> 16, integers.T)
        assert torch.equal(media.read(folder / name)[0], samples)


@pytest.mark.parametrize(
    ("format", "name", "codec", "error"),
    [
        (None, "a.wav", "pcm_24", 2**-24),
        ("wav", "a.wav", "pcm_24", 2**-24),
        ("wav16", "a.wave", "pcm_16", 2**-16),
        ("flac", "a.flac", "pcm_24", 2**-24),
        (None, "a.mp3", "mp3", 0.1),
        (None, "a.ogg", "vorbis", 0.1),
    ],
)
def test_each_format_holds_what_it_says(tmp_path, format, name, codec, error):
    samples = torch.from_numpy(sound(1.0))
    with media.Writer(tmp_path / name, RATE, 2, format=format) as out:
        for start in range(0, RATE, 1000):  # blocks need not be of any size
            out.write(samples[:, start : start + 1000])
    assert out.frames == RATE
    assert media.probe(tmp_path / name).codec == codec
    back, _ = media.read(tmp_path / name)
    assert back.shape == samples.shape
    assert float((back - samples).abs().max()) <= error
    assert names(tmp_path) == [name]


def test_subtype_overrides_the_format(tmp_path):
    media.write(tmp_path / "a.flac", torch.zeros(1, 100), RATE, subtype="PCM_16")
    assert media.probe(tmp_path / "a.flac").codec == "pcm_16"
    message = refusal(media.write, tmp_path / "b.flac", torch.zeros(1, 100), RATE, subtype="FLOAT")
    assert message == "subtype 'FLOAT' is not possible in flac; choose one of PCM_16, PCM_24"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_samples_over_full_scale_are_clipped_and_counted_but_nothing_is_rescaled(tmp_path, name):
    samples = torch.from_numpy(sound(1.0))
    samples[0, 100], samples[1, 200], samples[1, 300] = 1.5, -2.0, 1.0
    out = media.write(tmp_path / name, samples, RATE)
    assert (out.clipped, out.peak) == (2, 2.0)
    if name in ("a.wav", "a.flac"):
        back, _ = media.read(tmp_path / name)
        torch.testing.assert_close(back, samples.clamp(-1, 1), atol=2**-23, rtol=0)


def test_the_same_samples_give_the_same_bytes(tmp_path):
    for name in ("wav16", "wav", "wavf"):
        media.write(tmp_path / "a.wav", torch.from_numpy(sound(0.1)), RATE, format=name, overwrite=True)
        first = (tmp_path / "a.wav").read_bytes()
        time.sleep(1.1 if name == "wavf" else 0)  # libsndfile would stamp the second into a float file
        media.write(tmp_path / "a.wav", torch.from_numpy(sound(0.1)), RATE, format=name, overwrite=True)
        assert (tmp_path / "a.wav").read_bytes() == first


@pytest.mark.parametrize(("channels", "is_float"), [(2, True), (2, False), (6, False)])
@pytest.mark.parametrize("gigabytes", [1, 5])
def test_a_wav_header_holds_at_any_length(tmp_path, channels, is_float, gigabytes):
    """On a sparse file, which has the length without the bytes."""
    sample_bytes = 4 if is_float else 3
    frames = gigabytes * 2**30 // (channels * sample_bytes)
    header = wav_header(96_000, channels, sample_bytes, is_float, frames)
    assert header[:4] == (b"RF64" if gigabytes > 4 else b"RIFF")
    assert len(header) == len(wav_header(96_000, channels, sample_bytes, is_float, 0))
    path = tmp_path / "long.wav"
    path.write_bytes(header)
    os.truncate(path, len(header) + frames * channels * sample_bytes)
    info = media.probe(path)
    assert (info.frames, info.channels, info.sample_rate) == (frames, channels, 96_000)
    with media.stream(path, 100, start_frame=frames - 100) as blocks:
        assert next(blocks).shape == (channels, 100)


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"precious")
    assert "exists already; give --force to replace it" in refusal(media.write, path, torch.zeros(1, 9), RATE)
    assert path.read_bytes() == b"precious"
    media.write(path, torch.zeros(1, 9), RATE, overwrite=True)
    assert media.probe(path).frames == 9


@pytest.mark.parametrize("links", [True, False], ids=["with hard links", "without"])
def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch, links):
    if not links:

        def refuse(*_):
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    media.write(tmp_path / "free.wav", torch.zeros(1, 9), RATE)
    assert media.probe(tmp_path / "free.wav").frames == 9

    def late():
        with media.Writer(tmp_path / "a.wav", RATE, 1) as out:
            out.write(torch.zeros(1, 9))
            (tmp_path / "a.wav").write_bytes(b"precious")

    assert "exists already" in refusal(late)
    assert (tmp_path / "a.wav").read_bytes() == b"precious"
    assert not partials(tmp_path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_nothing_behind(tmp_path, name, error):
    with pytest.raises(error), media.Writer(tmp_path / name, RATE, 2) as out:
        out.write(torch.from_numpy(sound(0.5)))
        assert len(partials(tmp_path)) == 1
        assert not (tmp_path / name).exists()
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left on the disk, nothing was written; free some"),
        (errno.EIO, "could not be written (Input/output error), nothing was kept"),
    ],
)
def test_a_disk_that_fails_is_named_and_leaves_nothing_behind(tmp_path, monkeypatch, name, code, words):
    """From the first byte, and only at the very end, where libsndfile writes what it held back."""
    for allowed in (0, 20_000):
        left = allowed

        class Failing(writer.OutputFile):
            def write(self, data):
                nonlocal left
                left -= len(data)
                if left < 0 and self.error is None:
                    self.error = OSError(code, os.strerror(code))
                return super().write(data)

        monkeypatch.setattr(writer, "OutputFile", Failing)
        message = refusal(media.write, tmp_path / name, torch.from_numpy(sound(2.0)), RATE)
        assert words in message
        assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_real_limit_of_the_system_is_named_and_leaves_nothing_behind(tmp_path, name, capfd):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        message = refusal(media.write, tmp_path / name, torch.from_numpy(sound(2.0)), RATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the file grew too large for this disk, nothing was written" in message
    assert names(tmp_path) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "problem", [OSError(errno.ENOSPC, "full"), soundfile.LibsndfileError(2), AssertionError()]
)
def test_an_encoder_that_fails_is_named(tmp_path, monkeypatch, problem):
    def fail(*_):
        raise problem

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    message = refusal(media.write, tmp_path / "a.flac", torch.zeros(1, 100), RATE)
    assert "no space left" in message or "could not be written" in message
    assert names(tmp_path) == []


def test_a_file_that_lost_its_end_is_not_published(tmp_path, monkeypatch):
    class Forgetful(writer.OutputFile):
        def sync(self):
            os.truncate(self._raw.fileno(), self.seek(0, os.SEEK_END) // 2)

    monkeypatch.setattr(writer, "OutputFile", Forgetful)
    for name in ("a.wav", "a.ogg"):
        message = refusal(media.write, tmp_path / name, torch.from_numpy(sound(2.0)), RATE)
        assert "did not reach the disk, nothing was kept" in message
        assert names(tmp_path) == []


def test_folders_that_cannot_hold_the_file_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    assert "is not a folder; choose another" in refusal(media.Writer, tmp_path / "file" / "a.wav", RATE, 1)
    assert "is a folder; give the name of a file" in refusal(media.Writer, tmp_path / "folder.wav", RATE, 1)
    long = tmp_path / ("x" * 300 + ".wav")
    assert "the name is too long for the disk; shorten it" in refusal(media.Writer, long, RATE, 1)
    media.write(tmp_path / "new" / "deep" / ("x" * 251 + ".wav"), torch.zeros(1, 9), RATE)  # made as needed


def test_a_folder_without_permission_is_refused(locked, nobody):
    assert "its folder cannot be written to" in refusal(media.Writer, locked / "a.wav", RATE, 1)


def test_what_a_format_cannot_hold_is_refused_with_the_way_out(tmp_path):
    for name, rate, channels, words in [
        ("a.mp3", 96_000, 2, "mp3 cannot hold 96000 Hz, only 8000, 11025, 12000, 16000, 22050, 24000, 32000, "
                             "44100, 48000 Hz; use wav or flac"),
        ("a.mp3", 44_100, 3, "mp3 cannot hold 3 channels, only 1 to 2; use wav or flac"),
        ("a.ogg", 384_000, 2, "ogg cannot hold 384000 Hz, only 8000 to 192000 Hz; use wav or flac"),
        ("a.wav", 44_100, 9, "wav cannot hold 9 channels, only 1 to 8; mix it down"),
        ("a.flac", 44_100, 0, "flac cannot hold 0 channels"),
        ("a.wav", 1, 1, "wav cannot hold 1 Hz, only 4000 to 384000 Hz; resample it"),
        ("a.m4a", 44_100, 1, "no format for the ending '.m4a'; use .wav, .flac, .mp3 or .ogg"),
    ]:  # fmt: skip
        assert words in refusal(media.Writer, tmp_path / name, rate, channels)
    assert "format 'midi' is unknown; choose one of wav, " in refusal(
        media.Writer, tmp_path / "a.wav", RATE, 1, format="midi"
    )
    assert "the extension does not fit the format flac; name it a.flac" in refusal(
        media.Writer, tmp_path / "a.wav", RATE, 1, format="flac"
    )
    for name, rate in [("a.ogg", 192_000), ("b.ogg", 8_000), ("a.flac", 384_000), ("b.flac", 4_000)]:
        media.write(tmp_path / name, torch.from_numpy(sound(0.2, 8, rate)), rate)


def test_our_own_mistakes_are_not_blamed_on_the_user(tmp_path):
    bad = torch.zeros(1, 100)
    bad[0, 3] = math.nan
    with pytest.raises(RuntimeError, match="NaN or infinite samples"):
        media.write(tmp_path / "a.wav", bad, RATE)
    with pytest.raises(RuntimeError, match="no samples were written"):
        media.write(tmp_path / "a.wav", torch.zeros(1, 0), RATE)
    with (
        pytest.raises(ValueError, match=r"shape \[2, 9\]; give \[1, T\]"),
        media.Writer(tmp_path / "a.wav", RATE, 1) as out,
    ):
        out.write(torch.zeros(2, 9))
    with pytest.raises(RuntimeError, match="outside of its `with` block"):
        media.Writer(tmp_path / "a.wav", RATE, 1).write(torch.zeros(1, 9))
    assert names(tmp_path) == []


# Temporary files


def test_only_partial_files_of_dead_runs_are_cleaned_up(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    mine = media.temporary_sibling(tmp_path / "mine.wav")
    dead = Path(str(mine).replace(f"-{os.getpid()}-", f"-{int(child.stdout)}-"))
    elsewhere = Path(str(dead).replace(partial._host(), "0123abcd"))
    forgotten = Path(str(elsewhere).replace("mine", "forgotten"))
    others = [tmp_path / "song.wav", tmp_path / ".hidden.wav", tmp_path / ".a.partial-notes.txt"]
    for path in (mine, dead, elsewhere, forgotten, *others):
        path.touch()
    os.utime(forgotten, (0, time.time() - 100_000))
    assert sorted(media.cleanup_stale(tmp_path)) == sorted([dead, forgotten])
    assert all(path.exists() for path in (mine, elsewhere, *others))


def test_a_temporary_sibling_keeps_folder_and_extension(tmp_path):
    path = media.temporary_sibling(tmp_path / "guitar.residual.wav")
    assert path.parent == tmp_path
    assert path.suffix == ".wav"
    assert path.name.startswith(".guitar.residual.partial-")
    assert path != media.temporary_sibling(tmp_path / "guitar.residual.wav")


# Resampling

RATIOS = [
    (44_100, 24_000),
    (48_000, 16_000),
    (16_000, 44_100),
    (44_100, 48_000),
    (44_101, 24_000),
    (8_000, 44_101),
]


@pytest.mark.parametrize(("rate_from", "rate_to"), RATIOS)
def test_a_tone_stays_a_tone_and_what_does_not_fit_vanishes(rate_from, rate_to):
    def tone(frequency, rate):
        return torch.sin(
            2 * torch.pi * frequency * torch.arange(rate // 2, dtype=torch.float64) / rate
        ).float()

    low = 0.3 * min(rate_from, rate_to)
    out = media.resample(tone(low, rate_from)[None], rate_from, rate_to)
    assert out.shape == (1, math.ceil(rate_from // 2 * rate_to / rate_from))
    middle = slice(rate_to // 8, rate_to // 4)
    torch.testing.assert_close(out[0, middle], tone(low, rate_to)[middle], atol=2e-4, rtol=0)
    if rate_to < rate_from:
        high = media.resample(tone(0.52 * rate_to, rate_from)[None], rate_from, rate_to)
        assert float(high[0, middle].abs().max()) < 0.01


@pytest.mark.parametrize(("rate_from", "rate_to"), [pair for pair in RATIOS if 44_101 not in pair])
def test_the_table_is_torchaudio_s(rate_from, rate_to):
    noise = torch.randn(2, 3, 3000, generator=torch.Generator().manual_seed(0))
    expected = torchaudio.functional.resample(
        noise, rate_from, rate_to, 32, 0.945, resampling_method="sinc_interp_kaiser", beta=8.6
    )
    # By default torchaudio computes the fractions of a sample in single precision.
    torch.testing.assert_close(media.resample(noise, rate_from, rate_to), expected, atol=1e-4, rtol=0)


def test_both_ways_to_resample_agree(monkeypatch):
    noise = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    by_table = media.resample(noise, 44_100, 24_000)
    monkeypatch.setitem(media.resample.__globals__, "_LARGEST_TABLE", 0)
    torch.testing.assert_close(media.resample(noise, 44_100, 24_000), by_table, atol=3e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(
    ratio=st.sampled_from([*RATIOS, (3, 2), (1, 4), (384_000, 4_000), (16_000, 16_000)]),
    sizes=st.lists(st.integers(0, 2000), min_size=1, max_size=12),
)
def test_a_stream_resamples_as_the_whole_does(ratio, sizes):
    whole = torch.randn(2, sum(sizes), generator=torch.Generator().manual_seed(sum(sizes)))
    resampler = media.StreamResampler(*ratio)
    out = [resampler.push(block) for block in whole.split(sizes, dim=-1)] + [resampler.flush()]
    expected = media.resample(whole, *ratio)
    assert expected.shape == (2, math.ceil(sum(sizes) * ratio[1] / ratio[0]))
    torch.testing.assert_close(torch.cat(out, dim=-1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ratio", [(44_100, 24_000), (44_101, 24_000)])
def test_a_resampler_holds_little_and_can_be_used_again(ratio):
    resampler = media.StreamResampler(*ratio)
    block = torch.ones(1, 1000)
    first = [resampler.push(block) for _ in range(20)]
    assert resampler._pending.shape[-1] < 3000
    resampler.flush()
    assert all(torch.equal(resampler.push(block), out) for out in first)


def test_rates_that_are_none_are_refused():
    for rate in (0, -1, 44_100.5):
        with pytest.raises(ValueError, match="give a whole number of Hz above 0"):
            media.StreamResampler(rate, 48_000)
