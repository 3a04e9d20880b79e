"""Files that FFmpeg opens, through PyAV: m4a, aac, mp4, mov, mkv, webm and many more."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from peav.errors import UserError, shown
from peav.media.info import AudioInfo, check_limits
from peav.media.soundfile_input import NotAudio

# Only containers that hold their own sound. FFmpeg also opens playlists, which make it read other files and
# addresses, and plain text, which it draws as video.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,latm,loas,matroska,mov,mp3,mpeg,mpegts,mxf,"
    "ogg,rm,tak,truehd,tta,voc,w64,wav,webm,wv"
)
# Encoders pad the last packet. A longer excess means that the promised length was wrong.
_LONGEST_PADDING = 4096  # samples
# Containers other than mp4 that count samples.
_EXACT = ("flac", "wav", "w64", "aiff", "caf", "tta", "wv", "ape")
_LOSSLESS = ("alac", "flac", "tta", "wavpack", "ape", "tak", "truehd", "mlp")


def _pyav(path: Path):
    """The module `av`, imported only when a file needs it."""
    try:
        import av
    except ImportError as error:
        raise UserError(
            f'{shown(path)}: this format needs PyAV: pip install "samaudio[media]" (or convert it to wav)'
        ) from error
    return av


class PyavInput:
    """The first audio stream of one file opened by FFmpeg. See `peav.media.info.Input`.

    Raises:
        NotAudio: FFmpeg does not know the format.
        UserError: it does, but there is no sound in it that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        av = _pyav(path)
        av.logging.set_level(None)  # other packages turn it on; what matters is raised below
        self.damage: str | None = None
        self.promised: float | None = None
        self.reached = 0.0
        self._raw = path.open("rb")
        self._container: Any = None  # PyAV comes without types
        try:
            self._container = _open(av, self._raw)
            self._describe(av, path)
        except BaseException:
            self.close()
            raise

    def _describe(self, av, path: Path) -> None:
        container = self._container
        if not container.streams.audio:
            raise UserError(f"{shown(path)}: has no audio stream; choose a file with sound in it")
        stream = container.streams.audio[0]
        codec = stream.codec_context.name if stream.codec_context is not None else None
        if codec is None:
            raise UserError(
                f"{shown(path)}: its audio is in a codec that cannot be decoded; convert it to wav or flac"
            )
        self.lossy = not codec.startswith("pcm_") and codec not in _LOSSLESS
        self._path = path
        self._av = av
        self._frames = self._decode(stream)
        first = next(self._frames, None)
        if first is None:
            why = f" ({shown(self.damage)})" if self.damage else ""
            raise UserError(
                f"{shown(path)}: holds no samples that can be decoded{why}; re-export or repair it"
            )
        # The decoder knows better than the header, which for HE-AAC gives half of the rate.
        rate, channels = first.sample_rate, first.layout.nb_channels
        check_limits(path, rate, channels)
        self._frames = chain([first], self._frames)
        names = container.format.name.split(",")
        suffix = path.suffix.lower().lstrip(".")
        start = _start(container, stream, first)
        self.promised, exact = _promise(container, stream, names, start)
        self._padded = exact and "mov" in names
        self.info = AudioInfo(
            path=path,
            sample_rate=rate,
            channels=channels,
            frames=round(self.promised * rate) if self.promised is not None and exact else None,
            seconds=self.promised if self.promised is not None else _estimate(container, stream),
            container=suffix if suffix in names else names[0],
            codec=codec.removesuffix("float"),
            start_seconds=start,
        )

    def _decode(self, stream) -> Iterator:
        """Frames in order. A packet that fails is forgiven at the end of a file only (tags, a cut packet)."""
        position = 0
        first_pts = None
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except (StopIteration, EOFError):
                return
            except self._av.error.FFmpegError as error:
                if self.damage is None:
                    self.damage = error.strerror or str(error)
                if isinstance(error, OSError) and not isinstance(error, ValueError):
                    return  # the file itself cannot be read further
                continue
            for frame in frames:
                if frame.samples == 0:
                    continue
                if self.damage is not None and position:
                    # Going on would shift all that follows against the video, or against other stems.
                    raise UserError(
                        f"{shown(self._path)}: is damaged at {position / frame.sample_rate:.2f} s "
                        f"({shown(self.damage)}); re-export or repair it"
                    )
                self.damage = None  # garbage before the first sound is harmless
                position += frame.samples
                if frame.pts is not None and frame.time_base:
                    first_pts = frame.pts if first_pts is None else first_pts
                    since = float((frame.pts - first_pts) * frame.time_base)
                    self.reached = since + frame.samples / frame.sample_rate
                yield frame

    def blocks(self, block_frames: int, start_frame: int) -> Iterator[np.ndarray]:
        # Always decoded from the start: decoders carry state, and many containers round their time stamps to
        # milliseconds, so a seek would land on other samples than the ones a whole read gives.
        skip = start_frame
        for block in self._trimmed():
            if skip < block.shape[1]:
                yield block[:, skip:]
            skip = max(0, skip - block.shape[1])

    def _trimmed(self) -> Iterator[np.ndarray]:
        """Samples without the encoder's padding after the promised end, where the container tells it."""
        limit = self.info.frames if self._padded else None
        held: list[np.ndarray] = []
        position = 0
        for frame in self._frames:
            block = self._samples(frame, position)
            start, position = position, position + block.shape[1]
            if limit is not None and position > limit:
                if position - limit <= _LONGEST_PADDING:
                    keep = max(0, limit - start)
                    if keep:
                        yield block[:, :keep]
                    held.append(block[:, keep:])
                    continue
                limit = None
                yield from held
                held = []
            yield block

    def _samples(self, frame, position: int) -> np.ndarray:
        info = self.info
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if (rate, channels) != (info.sample_rate, info.channels):
            raise UserError(
                f"{shown(info.path)}: changes from {info.sample_rate} Hz and {info.channels} channels to "
                f"{rate} Hz and {channels} at {position / info.sample_rate:.2f} s; re-export it"
            )
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, channels).T
        return np.ascontiguousarray(_to_float(samples))

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._raw.close()


def _open(av, raw):
    try:
        return av.open(raw, metadata_errors="ignore", options={"format_whitelist": _CONTAINERS})
    except (av.error.FFmpegError, ValueError) as error:
        raise NotAudio(str(error)) from error


def _to_float(samples: np.ndarray) -> np.ndarray:
    """Full scale to 1.0, as libsndfile does: integers are divided by the size of their negative range."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    bits = samples.dtype.itemsize * 8
    offset = 128 if samples.dtype == np.uint8 else 0
    # Through double, because 32-bit integers do not fit into a float32 before the division.
    return ((samples.astype(np.float64) - offset) / 2.0 ** (bits - 1)).astype(np.float32)


def _promise(container, stream, names: list[str], start: float) -> tuple[float | None, bool]:
    """Seconds of sound that the file promises, None if it does not, and whether that is to the sample."""
    if stream.duration and ("mov" in names or names[0] in _EXACT):
        return float(stream.duration * stream.time_base), True
    if "matroska" in names:
        # Muxers put each track's end in a tag, in milliseconds; the container's own may be the picture's.
        tag = stream.metadata.get("DURATION")
        end = _clock(tag) if tag is not None else None
        if end is None and len(container.streams) == 1 and container.duration:
            end = container.duration / 1e6
        if end is not None and end > start:
            return end - start, False
    return None, False


def _clock(text: str) -> float | None:
    """Seconds in "00:00:04.021000000", None for anything else."""
    try:
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


def _estimate(container, stream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _start(container, stream, first) -> float:
    """Seconds from the start of the file to its first sample."""
    if first.pts is not None and first.time_base:
        start = float(first.pts * first.time_base)
    elif stream.start_time is not None:
        start = float(stream.start_time * stream.time_base)
    else:
        return 0.0
    return max(0.0, start - (container.start_time or 0) / 1e6)
