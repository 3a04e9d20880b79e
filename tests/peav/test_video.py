"""Frames by time, of tiny films whose every frame shows its own number as a grey level."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from peav.errors import UserError
from peav.inputs import frame_indices, prepare_video
from peav.media.video import VideoFile, frame_times, probe_video, read_frames

FPS = 10
STEP = 4  # grey levels from one frame to the next


def write_film(path: Path, frames: int = 40, fps: int = FPS, codec: str = "libx264", size=(48, 64), gop: int = 5,
               stamps=None, sound: float = 0.0, b_frames: int = 0) -> Path:  # fmt: skip
    """A film whose frame i is evenly grey, ``STEP * i``; `stamps` are in hundredths of a second."""
    with av.open(str(path), "w") as out:
        options = {"preset": "ultrafast", "qp": "10", "bf": str(b_frames)} if codec == "libx264" else {}
        stream = out.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 4_000_000
        if codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, 100)
        voice = out.add_stream("pcm_s16le" if path.suffix == ".mkv" else "aac", rate=16_000) if sound else None
        for i, stamp in zip(range(frames), stamps or range(0, 100 * frames, 100 // fps), strict=False):
            image = np.full((*size, 3), STEP * i, np.uint8)
            image[: size[0] // 2, : size[1] // 2] //= 2  # the upper left corner is darker, so turns can be seen
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if voice is not None:
            samples = (0.1 * np.sin(np.arange(round(sound * 16_000)) / 5) * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            block.sample_rate, block.pts = 16_000, 0
            out.mux(voice.encode(block))
            out.mux(voice.encode())
    return path


def numbers(frames: torch.Tensor) -> list[int]:
    """Which frame each of ``[N, 3, H, W]`` is."""
    corner = frames[:, :, -8:, -8:].float().mean((1, 2, 3))
    return [round(float(level) / STEP) for level in corner]


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4")


def test_facts(film):
    info = probe_video(film)
    assert (info.fps, info.width, info.height, info.codec) == (FPS, 64, 48, "h264")
    assert info.seconds == pytest.approx(4.0, abs=0.01)


def test_a_time_shows_the_last_frame_that_began(film):
    frames, stamps = read_frames(film, [0.0, 0.09, 0.1, 0.25, 3.9, 3.99, 9.0])
    assert frames.dtype == torch.uint8 and frames.shape == (7, 3, 48, 64)
    assert numbers(frames) == [0, 0, 1, 2, 39, 39, 39]
    assert stamps == pytest.approx([0, 0, 0.1, 0.2, 3.9, 3.9, 3.9])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"b_frames": 2}),
        ("a.mkv", "libx264", {"b_frames": 2, "gop": 30}),
        ("a.webm", "libvpx", {}),
        ("a.avi", "mpeg4", {}),
        ("a.ts", "libx264", {"gop": 10}),
        ("a.mov", "mjpeg", {}),
    ],
)
def test_any_order_of_times_in_any_container(tmp_path, name, codec, options):
    path = write_film(tmp_path / name, frames=60, codec=codec, **options)
    asked = [5.0, 0.3, 5.9, 2.7, 0.0, 5.5, 5.6]
    straight, _ = read_frames(path, sorted(asked))
    frames, stamps = read_frames(path, asked)
    assert numbers(frames) == [50, 3, 59, 27, 0, 55, 56]
    assert numbers(straight) == [0, 3, 27, 50, 55, 56, 59]
    assert stamps == pytest.approx(asked, abs=2e-3)


def test_far_times_are_reached_by_seeking_not_by_decoding_all(tmp_path):
    path = write_film(tmp_path / "long.mp4", frames=60, stamps=range(0, 60 * 100, 100), gop=5)  # one frame a second
    with VideoFile(path) as film:
        decoded = []
        original = film._decode

        def counted():
            for item in original():
                decoded.append(item[0])
                yield item

        film._decode = counted
        (stamp, picture), = film.frames([57.0])  # fmt: skip
        assert stamp == pytest.approx(57.0) and numbers(picture[None]) == [57]
        assert len(decoded) < 10


def test_uneven_time_stamps_are_respected(tmp_path):
    path = write_film(tmp_path / "uneven.mkv", frames=5, stamps=[0, 100, 110, 120, 400])
    frames, stamps = read_frames(path, fps=2, end=4.5)
    # Frames 2 and 3 pass between two looks, frame 3 stays for almost three seconds.
    assert numbers(frames) == [0, 0, 1, 3, 3, 3, 3, 3, 4]
    assert stamps == pytest.approx([0, 0, 1.0, 1.2, 1.2, 1.2, 1.2, 1.2, 4.0], abs=2e-3)


def test_so_many_frames_are_those_that_the_published_models_take(film):
    frames, _ = read_frames(film, num_frames=16)
    assert numbers(frames) == frame_indices(40, 16)
    short, _ = read_frames(film, num_frames=4, start=1.0, end=1.2)
    assert numbers(short) == [10, 10, 10, 11]  # repeats, like index int(i * (2 - 1) / 3)


def test_frames_per_second_never_more_than_there_are(film):
    assert len(read_frames(film, fps=1000.0)[1]) == 40
    assert numbers(read_frames(film, fps=2.0, start=1.0)[0]) == [10, 15, 20, 25, 30, 35]
    assert frame_times(1.0, 1.01, 10.0, fps=2.0) == [1.0]


def test_resized_on_load(film):
    assert read_frames(film, [0.0], max_side=32)[0].shape == (1, 3, 24, 32)
    assert read_frames(film, [0.0], max_side=500)[0].shape == (1, 3, 48, 64)
    whole, _ = read_frames(film, num_frames=4)
    small, _ = read_frames(film, num_frames=4, size=(20, 20))
    torch.testing.assert_close(prepare_video(small, (20, 20)), prepare_video(whole, (20, 20)))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_turned_films_come_upright(film, tmp_path, turn):
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    data = bytearray(film.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix stands 40 bytes into the box
    data[at : at + 36] = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    frames, _ = read_frames(path, [3.5])
    info = probe_video(path)
    upright = (48, 64) if turn == 180 else (64, 48)
    assert frames.shape[2:] == upright and (info.height, info.width) == upright
    height, width = upright
    corners = {(y, x): int(frames[0, 1, y * (height - 1), x * (width - 1)]) for y in (0, 1) for x in (0, 1)}
    # The mp4 matrix turns clockwise by `turn`: the upper left goes to the upper right, and so on round.
    assert min(corners, key=corners.__getitem__) == {90: (0, 1), 180: (1, 1), 270: (1, 0)}[turn]


def test_pictures_and_sound_of_one_file(tmp_path):
    path = write_film(tmp_path / "both.mkv", sound=4.0)
    assert numbers(read_frames(path, [1.0])[0]) == [10]


def test_a_truncated_film_is_told(tmp_path, film):
    fast = str(tmp_path / "fast.mp4")
    with av.open(str(film)) as source, av.open(fast, "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = Path(fast).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3])
    assert numbers(read_frames(cut, [0.2])[0]) == [2]
    with pytest.raises(UserError, match="is truncated: promises 4.00 s of pictures, only"):
        read_frames(cut, [3.5])


def test_what_is_no_film_is_told(tmp_path, film):
    sound = tmp_path / "a.wav"
    soundfile.write(sound, np.zeros(800), 8_000)
    text = tmp_path / "a.txt"
    text.write_text("words")
    for path, told in ((sound, "has no pictures"), (text, "is not a film"), (tmp_path / "no.mp4", "no such file")):
        with pytest.raises(UserError, match=told):
            VideoFile(path)
    with pytest.raises(UserError, match="no pictures from 5 s"):
        read_frames(film, fps=1.0, start=5.0)
    with pytest.raises(ValueError, match="one of times, fps"):
        read_frames(film)
    with pytest.raises(UserError, match="ask for fewer"):
        read_frames(film, [0.0] * 500_000)


def test_a_cover_picture_is_no_film(tmp_path):
    path = tmp_path / "cover.mp4"
    write_film(path, frames=1, codec="mjpeg", sound=1.0)
    with av.open(str(path)) as source, av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as out:
        pairs = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        pairs[0].disposition = av.stream.Disposition.attached_pic
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = pairs[packet.stream.index]
                out.mux(packet)
    with pytest.raises(UserError, match="has no pictures, only sound"):
        VideoFile(tmp_path / "song.m4a")
