"""Files that libsndfile opens: wav, flac, ogg, mp3, aiff and their relatives."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import soundfile

from peav.media.info import AudioInfo, check_complete, check_limits
from peav.media.quiet import quiet_stderr

_SAMPLE_BYTES = {
    "PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1,
    "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
# libsndfile corrects the length of a short file on its own and only mentions the declared one in its log:
# "data : 2646000 (should be 881970)", "SSND : ...", "Data Size : ...".
_DECLARED_BYTES = re.compile(r"^\s*(?:data|SSND|Data [Ss]ize)\s*:\s*(\d+)\b", re.MULTILINE)
# Programs that write to a pipe cannot know the length and put something near 2 or 4 GiB in the header.
_OPEN_ENDED_BYTES = (range(0x7FFF_F000, 0x8000_0001), range(0xFFFF_F000, 0x1_0000_0000))
_TAGS = 16_384  # bytes; song titles and the like after an mp3


class SoundfileInput:
    """One file opened by libsndfile. See `peav.media.info.Input`.

    Raises:
        NotAudio: libsndfile does not know the format.
    """

    def __init__(self, path: Path) -> None:
        self.damage: str | None = None
        self.promised: float | None = None
        self.reached = 0.0
        try:
            # Bytes, because soundfile cannot encode a file name that is not valid UTF-8.
            with quiet_stderr():
                self._file = soundfile.SoundFile(os.fsencode(path))
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a raw format, from the extension
            raise NotAudio(str(error)) from error
        try:
            self._describe(path)
        except BaseException:
            self.close()
            raise

    def _describe(self, path: Path) -> None:
        file = self._file
        self._noisy = file.subtype.startswith("MPEG")
        self.lossy = self._noisy or file.subtype in ("VORBIS", "OPUS")
        if file.format == "RAW":  # libsndfile goes by the extension for .vox and .gsm and accepts any bytes
            raise NotAudio("no header")
        if file.format == "MP3" and not _says_how_long(path):
            raise NotAudio("an mp3 without its length, of which libsndfile would only read what it guesses")
        check_limits(path, file.samplerate, file.channels)
        frames = file.frames
        if file.subtype in _SAMPLE_BYTES and file.format != "FLAC":
            frames = max(frames, self._declared_frames())
        self.info = AudioInfo(
            path=path,
            sample_rate=file.samplerate,
            channels=file.channels,
            frames=frames,
            seconds=frames / file.samplerate,
            container=file.format.lower(),
            codec="mp3" if self._noisy else file.subtype.lower(),
        )
        # Where the header already shows it, a short or empty file is refused before any work is done.
        self.promised = self.info.seconds
        check_complete(self, file.frames)

    def _declared_frames(self) -> int:
        """Samples per channel that the header of an uncompressed file promises, 0 where it leaves it open."""
        declared = max((int(size) for size in _DECLARED_BYTES.findall(self._file.extra_info)), default=0)
        if any(declared in sizes for sizes in _OPEN_ENDED_BYTES):
            return 0
        # Some formats count their own chunk header in (16 to 24 bytes); a promise only counts beyond that.
        frames = declared // (self._file.channels * _SAMPLE_BYTES[self._file.subtype])
        return frames if (frames - self._file.frames) > 24 else 0

    def blocks(self, block_frames: int, start_frame: int) -> Iterator[np.ndarray]:
        file = self._file
        position = start_frame
        if self.lossy:
            # Seeking inside a lossy stream restarts its decoder, and the samples come out slightly different.
            skip, position = start_frame, 0
        else:
            skip = 0
            if start_frame >= file.frames:
                return
        try:
            with self._guard():
                file.seek(position)
            while True:
                with self._guard():
                    block = file.read(block_frames, dtype="float32", always_2d=True)
                if len(block) == 0:
                    return
                position += len(block)
                if skip < len(block):
                    yield np.ascontiguousarray(block[skip:].T)
                skip = max(0, skip - len(block))
        except soundfile.LibsndfileError as error:
            self.damage = error.error_string

    def _guard(self):
        return quiet_stderr() if self._noisy else nullcontext()

    def close(self) -> None:
        with self._guard():
            self._file.close()


class NotAudio(Exception):
    """This decoder does not know the format. Another may."""


def _says_how_long(path: Path) -> bool:
    """Whether the first frame of an mp3 holds its length, and that of the whole file.

    It holds that of a part where mp3 files were joined end to end.
    """
    with path.open("rb") as file:
        head = file.read(10)
        start = 0
        if head[:3] == b"ID3" and len(head) == 10:
            # The tag's length is four bytes of seven bits.
            start = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(start)
        frame = file.read(4096)
    for mark in (b"Xing", b"Info"):
        at = frame.find(mark)
        if at >= 0:
            # "Xing", flags, then the numbers that the flags announce: frames (1), bytes (2).
            flags, first, second = struct.unpack_from(">III", frame[at + 4 :].ljust(12, b"\0"))
            size = second if flags & 1 else first
            present = path.stat().st_size - start
            return bool(flags & 1) and (not flags & 2 or present <= 1.01 * size + _TAGS)
    return b"VBRI" in frame
