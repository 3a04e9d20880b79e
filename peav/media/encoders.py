"""Encoders behind `Writer`, and the file they write to."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import soundfile

from peav.media.formats import Format
from peav.media.quiet import quiet_stderr
from peav.media.wav import wav_header

_BYTES = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}


class OutputFile(io.RawIOBase):
    """The temporary file. Remembers why a write failed, because libsndfile only learns that it did."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._raw = path.open("xb+", buffering=0)

    def write(self, data) -> int:
        view = memoryview(data)
        done = 0
        try:
            while done < len(view) and self.error is None:
                done += self._raw.write(view[done:])
        except OSError as error:
            self.error = error
        return done

    def readinto(self, buffer) -> int:
        return self._raw.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def sync(self) -> None:
        os.fsync(self._raw.fileno())

    def close(self) -> None:
        self._raw.close()
        super().close()


class WavSink:
    """Wav and RF64, see `peav.media.wav`."""

    def __init__(
        self, file: OutputFile, sample_rate: int, channels: int, format: Format, subtype: str
    ) -> None:
        self._file = file
        self._subtype = subtype
        self._layout = (sample_rate, channels, _BYTES[subtype], subtype == "FLOAT")
        self._file.write(wav_header(*self._layout, frames=0))

    def write(self, samples: np.ndarray) -> None:
        if self._subtype == "FLOAT":
            data = samples.astype("<f4")
        elif self._subtype == "PCM_16":
            data = _to_integers(samples, 16).astype("<i2")
        else:
            # The three low bytes of each little-endian 32-bit integer.
            data = _to_integers(samples, 24).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
        self._file.write(data.tobytes())

    def close(self, frames: int) -> None:
        sample_rate, channels, sample_bytes, is_float = self._layout
        if frames * channels * sample_bytes % 2:
            self._file.write(b"\0")  # chunks have an even length
        self._file.seek(0)
        self._file.write(wav_header(*self._layout, frames=frames))

    def abandon(self) -> None:
        pass


class SoundfileSink:
    """Flac, mp3 and ogg, encoded by libsndfile."""

    def __init__(
        self, file: OutputFile, sample_rate: int, channels: int, format: Format, subtype: str
    ) -> None:
        self._subtype = subtype
        self._out = soundfile.SoundFile(
            file,
            "w",
            samplerate=sample_rate,
            channels=channels,
            format=format.container,
            subtype=subtype,
            compression_level=format.quality,
            bitrate_mode="CONSTANT" if format.container == "MP3" else None,
        )

    def write(self, samples: np.ndarray) -> None:
        if self._subtype == "PCM_16":
            samples = _to_integers(samples, 16).astype(np.int16)
        elif self._subtype == "PCM_24":
            samples = _to_integers(samples, 24) << 8  # libsndfile takes the upper bits of 32
        with quiet_stderr():
            self._out.write(samples)

    def close(self, frames: int) -> None:
        with quiet_stderr():
            self._out.close()

    def abandon(self) -> None:
        self.close(0)


def _to_integers(samples: np.ndarray, bits: int) -> np.ndarray:
    # libsndfile would scale floats by 2**15 - 1 but divides by 2**15 when reading; this is the exact inverse.
    # The scale is a power of two, so nothing is rounded before `rint`.
    scale = np.float32(2 ** (bits - 1))
    return np.clip(np.rint(samples * scale), -scale, scale - 1).astype(np.int32)
