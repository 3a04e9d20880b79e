"""A film with another sound track: its pictures packet by packet as they are, nothing encoded twice.

The sound begins where the film's own did, so a stem, which is exactly as long, stays in step with the pictures.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from peav import media
from peav.errors import UserError, shown
from peav.media.probe import _check_readable
from peav.media.pyav_input import _open, _pyav
from peav.media.soundfile_input import NotAudio

from .files import clean_termination, disk_error

# Sound codec by ending, and the rates in Hz that it is limited to.
CODECS = {".mp4": "aac", ".m4v": "aac", ".mov": "aac", ".mkv": "flac", ".webm": "libopus"}
_OPUS_RATE = 48_000
_AAC_MOST = 96_000
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 8: "7.1"}
_KBPS = 128  # per channel of what is lossy, above what can be told apart
_BLOCK = 4_096  # samples

Container = Any  # PyAV comes without types


def ending_for(film: str | os.PathLike) -> str:
    """In what to write a new film: the film's own kind if that is one of `CODECS`, else ``.mkv``, which holds all."""
    own = Path(film).suffix.lower()
    return own if own in CODECS else ".mkv"


def has_pictures(film: str | os.PathLike) -> bool:
    """Whether there are moving pictures in a file, a cover not counted."""
    with suppress(UserError, OSError), _opened(Path(film)) as container:
        return _pictures(container) is not None
    return False


def check(film: str | os.PathLike, out: str | os.PathLike, force: bool = False) -> None:
    """Everything that can be known beforehand.

    Raises:
        UserError: ``out`` exists or is the film itself, has an ending that is not in `CODECS`, or the film has no
            pictures or some that this container cannot hold.
    """
    film, out = Path(film), Path(out)
    if out.suffix.lower() not in CODECS:
        raise UserError(f"{shown(out)}: films are written as {', '.join(CODECS)}; choose one of these endings")
    if os.path.realpath(film) == os.path.realpath(out):
        raise UserError(f"{shown(out)}: is the film itself; choose another name")
    if os.path.lexists(out) and not force:
        raise UserError(f"{shown(out)}: exists already; choose another name, or --force to replace it")
    with _opened(film) as container:
        stream = _pictures(container)
        if stream is None:
            raise UserError(f"{shown(film)}: has no pictures to put sound to; give a film")
        try:
            # Nothing is written before the first packet.
            _pyav(film).open(io.BytesIO(), "w", format=_format(out)).add_stream_from_template(stream)
        except ValueError:
            name = stream.codec_context.name
            raise UserError(f"{shown(out)}: cannot hold {shown(name, 20)} pictures; choose the ending .mkv") from None


def remux(
    film: str | os.PathLike,
    sound: str | os.PathLike | Tensor,
    out: str | os.PathLike,
    *,
    sample_rate: int | None = None,
    force: bool = False,
) -> Path:
    """Write ``film`` with ``sound`` as its only sound track, and return the path.

    Time stamps, rotation, subtitles that the container can hold, and what is written about the film are kept. The
    sound is AAC in mp4, m4v and mov, FLAC in mkv and Opus in webm, and begins where the film's own began.

    Args:
        sound: an audio file, or samples ``[C, T]`` with their ``sample_rate`` in Hz.
        out: its ending says in what; see `CODECS`.
        force: replace a file that exists.

    Raises:
        UserError: see :func:`check`; or the sound cannot be read, or has more channels than can be written.
    """
    film, out = Path(film), Path(out)
    check(film, out, force)
    if isinstance(sound, Tensor):
        if sample_rate is None:
            raise UserError("samples need their sample_rate in Hz")
        rate, channels = sample_rate, sound.shape[0]
    else:
        info = media.probe(sound)
        rate, channels = info.sample_rate, info.channels
    if channels not in _LAYOUTS:
        raise UserError(f"{shown(out)}: {channels} channels cannot be written to a film; mix them down to two")
    try:
        start = media.probe(film).start_seconds
    except UserError:  # a silent film
        start = 0.0
    partial = media.temporary_sibling(out)
    try:
        with clean_termination(), _opened(film) as source:
            with _pyav(film).open(str(partial), "w", format=_format(out)) as target:
                copies = _streams(source, target, _rotation(film))
                track = _Track(target, out, rate, channels, start)
                _copy(source, target, copies, track, _blocks(sound, rate))
            partial.replace(out)
    except OSError as error:
        raise disk_error(out, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return out


def _streams(source: Container, target: Container, turned: float) -> dict[int, Container]:
    """The new film's pictures and subtitles, by their number in the old one."""
    target.metadata.update(source.metadata)
    pictures = _pictures(source)
    assert pictures is not None  # `check` has looked
    copies = {pictures.index: target.add_stream_from_template(pictures)}
    copies[pictures.index].metadata.update(pictures.metadata)
    if turned:
        copies[pictures.index].set_display_rotation(turned)
    for stream in source.streams.subtitles:
        with suppress(ValueError, OSError):  # of another kind than this container holds
            copies[stream.index] = target.add_stream_from_template(stream)
    return copies


def _copy(
    source: Container, target: Container, copies: dict[int, Container], track: _Track, blocks: Iterator[Tensor]
) -> None:
    begun = (source.start_time or 0) / 1e6
    for packet in _timed(source.demux([source.streams[i] for i in copies])):
        track.until(float(packet.dts * packet.time_base) - begun, blocks)
        shift = round(begun / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = copies[packet.stream_index]
        target.mux(packet)
    track.until(float("inf"), blocks)
    track.close()


def _timed(packets: Iterator[Any]) -> Iterator[Any]:
    """Packets with all their time stamps. Where pictures are stored out of order, Matroska does not say when the first
    of them are to be decoded: one after the other, before the first of which it does."""
    waiting: dict[int, list[Any]] = {}
    known: set[int] = set()
    for packet in packets:
        index = packet.stream_index
        if not packet.size:  # the empty one at the end
            continue
        if packet.dts is None and index not in known:
            waiting.setdefault(index, []).append(packet)
            continue
        for back, early in enumerate(reversed(waiting.get(index, ())), 1):
            early.dts = packet.dts - back
        yield from waiting.pop(index, ())
        known.add(index)
        if packet.dts is None or packet.pts is None:
            packet.dts = packet.pts = packet.pts if packet.dts is None else packet.dts
        yield packet
    for rest in waiting.values():
        for packet in rest:
            packet.dts = packet.pts
            yield packet


class _Track:
    """The sound track, encoded as far as the pictures are."""

    def __init__(self, target: Container, out: Path, rate: int, channels: int, start: float) -> None:
        codec = CODECS[out.suffix.lower()]
        self.given = rate
        self.rate = _OPUS_RATE if codec == "libopus" else min(rate, _AAC_MOST) if codec == "aac" else rate
        self.target, self.start, self.samples = target, start, 0
        self.stream = target.add_stream(codec, rate=self.rate, layout=_LAYOUTS[channels])
        if codec != "flac":
            self.stream.bit_rate = _KBPS * 1000 * channels
        self.layout = _LAYOUTS[channels]
        self.whole = codec == "flac"
        self.resampler = media.StreamResampler(rate, self.rate) if rate != self.rate else None
        self.ended = False

    def until(self, time: float, blocks: Iterator[Tensor]) -> None:
        """Encode what sounds up to ``time``, seconds."""
        while not self.ended and self.start + self.samples / self.rate <= time:
            block = next(blocks, None)
            if block is None:
                self.ended = True
                if self.resampler is not None:
                    self._encode(self.resampler.flush())
                return
            self._encode(block if self.resampler is None else self.resampler.push(block))

    def _encode(self, block: Tensor) -> None:
        import av

        if not block.shape[-1]:
            return
        samples = block.clamp(-1, 1).numpy()
        if self.whole:  # 24 bits, in the upper part of 32
            whole = np.round(samples.astype(np.float64) * 2**23).clip(-(2**23), 2**23 - 1).astype(np.int32) * 256
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(whole.T.reshape(1, -1)), "s32", self.layout)
        else:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), "fltp", self.layout)
        frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
        frame.pts = round(self.start * self.rate) + self.samples
        self.samples += block.shape[-1]
        self.target.mux(self.stream.encode(frame))

    def close(self) -> None:
        self.target.mux(self.stream.encode())


def _blocks(sound: str | os.PathLike | Tensor, rate: int) -> Iterator[Tensor]:
    if isinstance(sound, Tensor):
        yield from sound.detach().float().cpu().split(_BLOCK, dim=-1)
        return
    with media.stream(sound, _BLOCK) as blocks:
        yield from blocks


@contextmanager
def _opened(film: Path) -> Iterator[Container]:
    """The film's streams.

    Raises:
        UserError: it is missing, or no film.
    """
    _check_readable(film)
    with film.open("rb") as raw:
        try:
            container = _open(_pyav(film), raw)
        except NotAudio as error:
            raise UserError(f"{shown(film)}: is no film that can be read ({shown(error, 80)}); re-export it") from None
        with container:
            yield container


def _pictures(container: Container) -> Container | None:
    """The film's pictures: the first stream of them that is no cover."""
    moving = [s for s in container.streams.video if "attached_pic" not in str(getattr(s, "disposition", "")).lower()]
    return moving[0] if moving else None


def _rotation(film: Path) -> float:
    """Degrees by which the pictures are to be turned when shown, as the first of them says."""
    with _opened(film) as container:
        for frame in container.decode(_pictures(container)):
            return float(frame.rotation)
    return 0.0


def _format(out: Path) -> str:
    return {".mkv": "matroska", ".m4v": "mp4"}.get(out.suffix.lower(), out.suffix.lower().lstrip("."))


__all__ = ["CODECS", "check", "ending_for", "has_pictures", "remux"]
