"""Pictures of a film, asked for by time: decoded as needed, resized as they come, never the whole film in memory.

What a time shows is what a player shows: the last frame whose time stamp is not after it. Before the first frame
that is the first, after the last frame the last. Times count from the start of the file, as sound's do
(`AudioInfo.start_seconds`), so pictures and sound of one file can be put side by side.

Axes: ``N`` frames, ``H`` height, ``W`` width in pixels, upright as displayed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media.probe import _check_readable
from peav.media.pyav_input import _open, _pyav
from peav.media.soundfile_input import NotAudio

FASTEST = 240.0  # frames per second; beyond it a header is wrong
_STAMP = 1e-3  # seconds; many containers round time stamps to milliseconds
_SEEK_AFTER = 2.0  # seconds; decoding that much on is cheaper than looking for a key frame
_MOST_BYTES = 2**32  # of `read_frames`, which holds them all


@dataclass(frozen=True)
class VideoInfo:
    """Facts about the pictures of one file."""

    path: Path
    seconds: float  # time at which the last frame ends, from the start of the file
    fps: float  # frames per second, on average
    width: int  # pixels, as displayed
    height: int
    codec: str


class VideoFile:
    """The pictures of one file. Close it, or use it in a `with` block.

    >>> with VideoFile("film.mp4") as film:                                   # doctest: +SKIP
    ...     for time, picture in film.frames([0.0, 2.5, 60.0], max_side=336):
    ...         use(picture)                                                 # uint8 [3, H, W]

    Raises:
        UserError: the file is missing, unreadable, not a film, or has no pictures that can be decoded.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = Path(path)
        _check_readable(self._path)
        self._av = _pyav(self._path)
        self._raw = self._path.open("rb")
        self._container: Any = None  # PyAV comes without types
        self._shown: tuple[float, Any] | None = None  # time and frame
        self._next: tuple[float, Any] | None = None
        self._seekable = True
        self._patience = _SEEK_AFTER
        self._damage: str | None = None
        self._promised: float | None = None  # seconds at which the pictures should end
        try:
            self._restart()
            if self._next is None:
                why = f" ({shown(self._damage)})" if self._damage else ""
                raise UserError(
                    f"{shown(path)}: holds no picture that can be decoded{why}; re-export or repair it"
                )
            self.info: VideoInfo = self._describe()
        except BaseException:
            self.close()
            raise

    def _restart(self) -> None:
        """Decode from the first frame. Opened anew, because not every stream can be wound back."""
        path = shown(self._path)
        if self._container is not None:
            self._container.close()
        self._raw.seek(0)
        try:
            self._container = _open(self._av, self._raw)
        except NotAudio:
            raise UserError(f"{path}: is not a film, or in an unknown format; convert it to mp4") from None
        cover = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            raise UserError(f"{path}: has no pictures, only sound; choose a film")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            raise UserError(f"{path}: its pictures are in a codec that cannot be decoded; convert it to mp4")
        if torch.get_num_threads() > 1:  # one of many processes keeps to its own core
            self._stream.thread_type = "AUTO"
        self._start = (self._container.start_time or 0) / 1e6
        self._begin()

    def _describe(self) -> VideoInfo:
        assert self._next is not None
        stream, frame = self._stream, self._next[1]
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if not 0 < fps <= FASTEST:
            fps = 25.0
        if stream.duration:
            self._promised = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - self._start
        seconds = self._promised or (self._container.duration or 0) / 1e6 or self._measured(1 / fps)
        width, height = frame.width, frame.height
        if _quarter_turns(frame) % 2:
            width, height = height, width
        name = stream.codec_context.name
        return VideoInfo(self._path, max(seconds, 1 / fps), fps, width, height, name)

    def _measured(self, frame_seconds: float) -> float:
        """The end of the last packet, for a file that does not say how long it is."""
        last = 0.0
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None:
                    last = max(last, float(packet.pts * packet.time_base) - self._start + frame_seconds)
        except self._av.error.FFmpegError:
            pass  # what comes after cannot be shown either
        self._restart()
        return last

    def frames(
        self, times: Sequence[float], *, max_side: int | None = None, size: tuple[int, int] | None = None
    ) -> Iterator[tuple[float, Tensor]]:
        """What is shown at each time: the frame's own time stamp in seconds, and uint8 ``[3, H, W]``.

        Args:
            times: seconds from the start of the file, in any order; ascending ones cost least.
            max_side: scale larger pictures down so that neither side is longer, in pixels.
            size: height and width to squeeze every picture to instead, as the published models want theirs.

        Raises:
            ValueError: a time is negative or no number.
            UserError: the file ends or breaks off before a time that it promises to have.
        """
        made: tuple[float, Tensor] | None = None
        for time in times:
            if not 0 <= time < math.inf:
                raise ValueError(f"time {time} is not in a film; give seconds from 0 on")
            stamp, frame = self._at(time)
            if made is None or made[0] != stamp:  # a slow film shows the same frame at several times
                made = stamp, _picture(frame, max_side, size)
            yield made

    def _at(self, time: float) -> tuple[float, Any]:
        position = self._shown[0] if self._shown is not None else 0.0
        back = time < position - _STAMP
        ahead = time - position > self._patience and self._next is not None
        if self._seekable and (back or ahead):
            self._seek(time, position)
        elif back:
            self._restart()
        while self._next is not None and (self._shown is None or self._next[0] <= time + _STAMP):
            self._shown, self._next = self._next, next(self._decoded, None)
        assert self._shown is not None
        if self._next is None and self._promised is not None:
            ends, promised = self._shown[0] + 1 / self.info.fps, self._promised
            if min(time, promised) - ends > max(1.0, 0.02 * promised):
                raise UserError(
                    f"{shown(self._path)}: is truncated: promises {promised:.2f} s of pictures, only {ends:.2f} s "
                    "could be read; re-export or repair it"
                )
        return self._shown

    def _seek(self, time: float, position: float) -> None:
        """Go to the key frame before ``time``."""
        target = round((time + self._start) / self._stream.time_base)
        try:
            self._container.seek(max(0, target), stream=self._stream, backward=True)
            self._begin()
        except self._av.error.FFmpegError:
            self._next = None
        if self._next is None or self._next[0] > time + _STAMP:
            # Some containers land behind what was asked for. What is decoded from the start is right.
            self._seekable = False
            self._restart()
        elif self._next[0] <= position < time:
            self._patience *= 2  # key frames are rare, so jumping costs more than it saves

    def _begin(self) -> None:
        self._decoded = self._decode()
        self._shown, self._next = None, next(self._decoded, None)

    def _decode(self) -> Iterator[tuple[float, Any]]:
        """Frames with their times; packets that cannot be decoded are left out, the picture before stays."""
        last = None
        packets = self._container.demux(self._stream)
        while True:
            try:
                frames = next(packets).decode()
            except (StopIteration, EOFError):
                return
            except self._av.error.FFmpegError as error:
                self._damage = error.strerror or str(error)
                if isinstance(error, OSError) and not isinstance(error, ValueError):
                    return
                continue
            for frame in frames:
                time = frame.time
                if time is None:  # avi without time stamps
                    rate = float(self._stream.average_rate or 25)
                    time = self._start if last is None else last + 1 / rate
                if last is None or time > last:
                    last = time
                    yield time - self._start, frame

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._shown = self._next = None
        if self._container is not None:
            self._container.close()
        self._raw.close()


def probe_video(path: str | os.PathLike) -> VideoInfo:
    """What the pictures of a file are and how long, decoding no more than the first.

    Raises:
        UserError: as `VideoFile`.
    """
    with VideoFile(path) as film:
        return film.info


def read_frames(
    path: str | os.PathLike,
    times: Sequence[float] | None = None,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    max_side: int | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[Tensor, list[float]]:
    """Frames of a film, at given times, so many a second, or so many in all.

    Args:
        times: seconds from the start of the file.
        fps: instead of `times`, at ``start``, ``start + 1 / fps`` and so on.
        num_frames: instead of both, evenly from the first frame between `start` and `end` to the last.
        start, end: seconds; the whole film by default.
        max_side, size: see `VideoFile.frames`.

    Returns:
        uint8 ``[N, 3, H, W]`` and the time stamp of each in seconds.

    Raises:
        UserError: as `VideoFile`; there is nothing between `start` and `end`, or it would take over 4 GiB.
        ValueError: not exactly one of `times`, `fps` and `num_frames` was given, or it makes no sense.
    """
    if sum(given is not None for given in (times, fps, num_frames)) != 1:
        raise ValueError("give one of times, fps and num_frames")
    with VideoFile(path) as film:
        if times is None:
            stop = film.info.seconds if end is None else min(end, film.info.seconds)
            if not 0 <= start < stop:
                raise UserError(
                    f"{shown(path)}: has no pictures from {start:g} s to {stop:g} s; it lasts {film.info.seconds:.2f} s"
                )
            times = frame_times(start, stop, film.info.fps, fps=fps, num_frames=num_frames)
        if not len(times):
            raise ValueError("times is empty; give at least one")
        height, width = size or _fitting(film.info.height, film.info.width, max_side)
        if (needed := 3 * len(times) * height * width) > _MOST_BYTES:
            raise UserError(
                f"{shown(path)}: {len(times)} pictures of {width} x {height} take {needed / 2**30:.0f} GiB; "
                "ask for fewer, or smaller ones with max_side"
            )
        found = list(film.frames(times, max_side=max_side, size=size))
    return torch.stack([picture for _, picture in found]), [stamp for stamp, _ in found]


def frame_times(
    start: float, end: float, native: float, *, fps: float | None = None, num_frames: int | None = None
) -> list[float]:
    """Times in seconds at which to look at ``start`` to ``end`` of a film of ``native`` frames per second.

    With neither of the two, every frame; with `fps`, that many a second, never more than there are; with
    `num_frames`, evenly from the first frame to the last, where short films repeat some.

    >>> frame_times(0.0, 1.0, 10.0, num_frames=4)
    [0.0, 0.3, 0.6, 0.9]
    """
    length = end - start
    if num_frames is not None:
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}; give at least 1")
        last = max(0.0, length - 1 / native)
        return [start + last * i / max(1, num_frames - 1) for i in range(num_frames)]
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps is {fps}; give more than 0 frames per second")
    rate = native if fps is None else min(fps, native)
    return [start + i / rate for i in range(max(1, math.ceil(length * rate - 1e-3)))]


def _picture(frame, max_side: int | None, size: tuple[int, int] | None) -> Tensor:
    """uint8 ``[3, H, W]``, upright and resized."""
    pixels = np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame))
    picture = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    wanted = size or _fitting(picture.shape[1], picture.shape[2], max_side)
    if tuple(picture.shape[1:]) == tuple(wanted):
        return picture.contiguous()
    # As `peav.inputs.prepare_video`, so that a picture that was made small here needs no second look there.
    small = torch.nn.functional.interpolate(
        picture[None].float(), size=wanted, mode="bilinear", antialias=True, align_corners=False
    )
    return small[0].round().clamp(0, 255).to(torch.uint8)


def _fitting(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    if max_side is None or max(height, width) <= max_side:
        return height, width
    scale = max_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _quarter_turns(frame) -> int:
    """How often to turn the stored picture by 90 degrees to the left, for phones that film on their side."""
    return round(frame.rotation / 90) % 4
