"""A film with another sound track: pictures untouched, sound in its place, refusals in one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from seeing import sounding_film

from peav import media
from peav.errors import UserError
from peav.media.video import VideoFile
from samaudio.metrics import si_sdr
from samaudio.remux import ending_for, has_pictures, remux

RATE = 44_100


def tone(seconds: float, channels: int = 2, rate: int = RATE) -> torch.Tensor:
    """A chirp per channel: one place in it is like no other."""
    t = torch.arange(round(seconds * rate)) / rate
    return torch.stack([0.3 * torch.sin(2 * torch.pi * (200 + 150 * (k + 1) * t) * t) for k in range(channels)])


def packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """Time of each picture and what is stored of it, in order of decoding."""
    with av.open(str(path)) as film:
        start = Fraction(film.start_time or 0, 1_000_000)
        return [(p.pts * p.time_base - start, bytes(p)) for p in film.demux(video=0) if p.size]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return sounding_film(tmp_path_factory.mktemp("films") / "film.mkv")


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_pictures_stay_and_the_sound_is_in_its_place(tmp_path, ending, delay):
    film = sounding_film(tmp_path / "film.mkv", delay=delay)
    info = media.probe(film)
    sound = tone(2.0 - delay)
    out = remux(film, sound, tmp_path / f"out{ending}", sample_rate=RATE)
    before, after = packets(film), packets(out)
    assert [float(t) for t, _ in after] == pytest.approx([float(t) for t, _ in before], abs=2e-3)
    if ending == ".mkv":
        assert [data for _, data in after] == [data for _, data in before]
    made, rate = media.read(out)
    again = media.probe(out)
    assert rate == RATE and made.shape[0] == 2 and again.codec == ("flac" if ending == ".mkv" else "aac")
    assert again.start_seconds == pytest.approx(info.start_seconds, abs=0.03)
    # Containers round where a track begins to milliseconds, and AAC may begin a block early, with silence.
    late = round((info.start_seconds - again.start_seconds) * RATE)
    made = torch.nn.functional.pad(made, (max(0, -late), 0))[:, max(0, late) :]
    part = slice(RATE // 10, RATE)
    lags = range(-RATE // 900, RATE // 900 + 1)
    best = max(float(si_sdr(made[:, part], sound[:, part.start + lag : part.stop + lag]).min()) for lag in lags)
    assert best > (60 if ending == ".mkv" else 20)


def test_pictures_decode_to_the_same(film, tmp_path):
    out = remux(film, tone(2.0), tmp_path / "out.mp4", sample_rate=RATE)
    with VideoFile(film) as a, VideoFile(out) as b:
        assert (a.info.width, a.info.height) == (b.info.width, b.info.height)
        assert a.info.seconds == pytest.approx(b.info.seconds, abs=0.01)
        for (_, one), (_, other) in zip(a.frames([0.0, 0.7, 1.5]), b.frames([0.0, 0.7, 1.5]), strict=True):
            assert torch.equal(one, other)


def test_a_stem_on_disk(film, tmp_path):
    soundfile.write(tmp_path / "stem.flac", tone(2.0).T.numpy(), RATE)
    out = remux(film, tmp_path / "stem.flac", tmp_path / "out.mkv")
    assert float(si_sdr(media.read(out)[0], tone(2.0)).min()) > 60


def test_rotation_is_kept(tmp_path):
    film = tmp_path / "turned.mp4"
    with av.open(str(film), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_rotation(90)
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 64, 3), 20 * i, np.uint8), format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    made = remux(film, tone(1.0), tmp_path / "out.mp4", sample_rate=RATE)
    with VideoFile(film) as a, VideoFile(made) as b:
        assert (a.info.width, a.info.height) == (b.info.width, b.info.height) == (32, 64)


def test_uneven_time_stamps_are_kept(tmp_path):
    film, stamps = tmp_path / "uneven.mkv", [0, 3, 4, 11, 30, 31]
    with av.open(str(film), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(np.full((32, 64, 3), 40 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    made = remux(film, tone(3.2), tmp_path / "out.mp4", sample_rate=RATE)
    assert sorted(round(float(t), 2) for t, _ in packets(made)) == [stamp / 10 for stamp in stamps]


def test_many_channels_and_high_rates(film, tmp_path):
    out = remux(film, tone(2.0, channels=6, rate=192_000), tmp_path / "out.mp4", sample_rate=192_000)
    info = media.probe(out)
    assert (info.channels, info.sample_rate) == (6, 96_000)
    with pytest.raises(UserError, match="7 channels cannot be written"):
        remux(film, torch.zeros(7, 800), tmp_path / "other.mp4", sample_rate=8_000)


@pytest.mark.parametrize(
    ("out", "message"),
    [("film.wav", "films are written as"), ("there.mp4", "exists already"), ("film.webm", "cannot hold h264")],
)
def test_what_cannot_be_written_is_said_before(film, tmp_path, out, message):
    (tmp_path / "there.mp4").write_text("precious")
    with pytest.raises(UserError, match=message):
        remux(film, tone(2.0), tmp_path / out, sample_rate=RATE)
    assert [p.name for p in tmp_path.iterdir()] == ["there.mp4"] and (tmp_path / "there.mp4").read_text() == "precious"


def test_force_replaces_but_never_the_film(film, tmp_path):
    (tmp_path / "there.mkv").write_text("old")
    assert has_pictures(remux(film, tone(2.0), tmp_path / "there.mkv", sample_rate=RATE, force=True))
    with pytest.raises(UserError, match="is the film itself"):
        remux(film, tone(2.0), film, sample_rate=RATE, force=True)


def test_what_is_no_film_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8_000)
    (tmp_path / "b.mp4").write_bytes(b"no film at all" * 50)
    assert not has_pictures(tmp_path / "a.wav") and not has_pictures(tmp_path / "b.mp4")
    for name, message in (("a.wav", "has no pictures"), ("b.mp4", "is no film"), ("c.mp4", "c.mp4")):
        with pytest.raises(UserError, match=message):
            remux(tmp_path / name, tone(1.0), tmp_path / "out.mkv", sample_rate=RATE)
    assert not (tmp_path / "out.mkv").exists()


def test_nothing_is_left_when_the_sound_breaks_off(film, tmp_path, monkeypatch):
    def broken(*_):
        yield tone(0.2)
        raise UserError("the sound broke off")

    monkeypatch.setattr("samaudio.remux._blocks", broken)
    with pytest.raises(UserError, match="broke off"):
        remux(film, tone(2.0), tmp_path / "out.mkv", sample_rate=RATE)
    assert not list(tmp_path.iterdir())


def test_endings():
    assert [ending_for(name) for name in ("a.MP4", "b.avi", "c.mkv")] == [".mp4", ".mkv", ".mkv"]
