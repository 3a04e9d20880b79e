"""One gate out for audio files: whole files, or none.

Samples go to a hidden file beside the target, which takes the target's name only after it was written, synced
and counted. Whatever happens before that (full disk, exception, Ctrl-C) leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media.info import MAX_CHANNELS, MAX_RATE, MIN_RATE
from peav.media.partial import temporary_sibling
from peav.media.quiet import quiet_stderr
from peav.media.wav import wav_header


@dataclass(frozen=True)
class _Format:
    container: str  # libsndfile's name
    subtype: str
    suffixes: tuple[str, ...]
    subtypes: tuple[str, ...] = ()  # what `subtype` may choose instead
    rates: tuple[int, ...] | range = range(MIN_RATE, MAX_RATE + 1)  # Hz
    max_channels: int = MAX_CHANNELS
    quality: float | None = None  # libsndfile's compression level, 0 is best


_WAV = ("PCM_16", "PCM_24", "FLOAT")
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
FORMATS = {
    "wav": _Format("WAV", "PCM_24", (".wav", ".wave"), _WAV),
    "wav24": _Format("WAV", "PCM_24", (".wav", ".wave"), _WAV),
    "wav16": _Format("WAV", "PCM_16", (".wav", ".wave"), _WAV),
    "wavf": _Format("WAV", "FLOAT", (".wav", ".wave"), _WAV),
    "wav32f": _Format("WAV", "FLOAT", (".wav", ".wave"), _WAV),
    "flac": _Format("FLAC", "PCM_24", (".flac",), ("PCM_16", "PCM_24")),
    "mp3": _Format("MP3", "MPEG_LAYER_III", (".mp3",), rates=_MP3_RATES, max_channels=2, quality=0.0),
    # libvorbis takes the whole process down at rates much above 192 kHz.
    "ogg": _Format("OGG", "VORBIS", (".ogg", ".oga"), rates=range(8_000, 192_001), quality=0.2),
}
_BYTES = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}
_WRITE_BLOCK = 16_384  # samples per channel; libvorbis overflows its stack on very long blocks


class Writer:
    """Writes one audio file, block by block.

    >>> with Writer("guitar.wav", 48_000, channels=2) as out:    # doctest: +SKIP
    ...     out.write(block)                                    # float32 [C, T]
    >>> out.clipped, out.peak                                   # doctest: +SKIP

    Formats: "wav" (24 bit; the same as "wav24"), "wav16", "wavf" (32-bit float, the same as "wav32f"), "flac"
    (24 bit), "mp3" (the highest constant bit rate), "ogg" (Vorbis, quality 8). Without one, the extension
    decides. A wav that grows beyond 4 GiB becomes RF64, which keeps the extension.

    Samples beyond full scale are clipped to +-1.0 and counted in `clipped`, except in float formats, which
    keep them; nothing is ever rescaled, so stems still add up. Integers are `sample * 2**(bits - 1)` rounded,
    the inverse of what `peav.media.read` does: a 16-bit file survives reading and writing bit by bit.

    Attributes:
        frames: samples per channel written so far.
        clipped: samples (of all channels) that were beyond full scale and clipped.
        peak: the largest absolute sample seen, before clipping.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        sample_rate: int,
        channels: int,
        format: str | None = None,
        subtype: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Checks all it can before any work is done: format, rate, channels, target and folder.

        Args:
            sample_rate: Hz.
            subtype: "PCM_16", "PCM_24" or "FLOAT", to override the format's own.
            overwrite: replace an existing file.

        Raises:
            UserError: for each of these, with the way out.
        """
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.channels = channels
        self.overwrite = overwrite
        self.frames = 0
        self.clipped = 0
        self.peak = 0.0
        name = format if format is not None else _format_of(self.path)
        self._format, self.subtype = _choose(name, subtype, self.path)
        _check_encodable(self.path, name, self._format, sample_rate, channels)
        _check_target(self.path, overwrite)
        self._sink: _WavSink | _SoundfileSink | None = None
        self._file: _File | None = None
        self._temporary: Path | None = None

    def __enter__(self) -> Writer:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = temporary_sibling(self.path)
            self._file = _File(self._temporary)
        except OSError as error:
            raise _user_error(self.path, error) from error
        try:
            kind = _WavSink if self._format.container == "WAV" else _SoundfileSink
            self._sink = kind(self._file, self.sample_rate, self.channels, self._format, self.subtype)
        except BaseException as error:
            self._discard()
            raise self._explained(error) from error
        return self

    def write(self, waveform: Tensor) -> None:
        """Append samples.

        Args:
            waveform: float ``[C, T]``, full scale 1.0.

        Raises:
            UserError: the disk is full or refuses to be written.
            RuntimeError: NaN or infinite samples; no input leads to them, so that is a bug.
        """
        if self._sink is None:
            raise RuntimeError("Writer.write outside of its `with` block")
        samples = torch.as_tensor(waveform).detach().to("cpu", torch.float32).numpy()
        if samples.ndim != 2 or samples.shape[0] != self.channels:
            raise ValueError(f"waveform has shape {list(samples.shape)}; give [{self.channels}, T]")
        for start in range(0, samples.shape[1], _WRITE_BLOCK):
            self._write_block(samples[:, start : start + _WRITE_BLOCK])

    def _write_block(self, samples: np.ndarray) -> None:
        peak = float(np.abs(samples).max())
        if not np.isfinite(peak):
            raise RuntimeError(f"{shown(self.path)}: NaN or infinite samples after sample {self.frames}")
        self.peak = max(self.peak, peak)
        if peak > 1.0 and self.subtype != "FLOAT":
            self.clipped += int((np.abs(samples) > 1.0).sum())
            samples = samples.clip(-1.0, 1.0)
        try:
            self._sink.write(np.ascontiguousarray(samples.T))
            self._file.check()
        except (OSError, soundfile.LibsndfileError, AssertionError) as error:
            raise self._explained(error) from error
        self.frames += samples.shape[1]

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._discard()
            return
        try:
            if self.frames == 0:
                raise RuntimeError(f"{shown(self.path)}: no samples were written to it")
            self._finish()
        except BaseException as problem:
            self._discard()
            raise self._explained(problem) from problem

    def _finish(self) -> None:
        self._sink.close(self.frames)
        self._file.check()
        self._file.sync()
        self._file.close()
        _check_written(self.path, self._temporary, self.frames, exact=self._format.quality is None)
        _publish(self._temporary, self.path, self.overwrite)

    def _discard(self) -> None:
        # libsndfile writes its last bytes into the file when it is closed, so the order matters.
        if self._sink is not None:
            with contextlib.suppress(Exception):
                self._sink.abandon()
        self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _explained(self, error: BaseException) -> BaseException:
        """The error as a user should see it, if it is one that a user can act on."""
        if self._file.error is not None:
            error = self._file.error  # why libsndfile failed, which it cannot tell itself
        if isinstance(error, OSError):
            return _user_error(self.path, error)
        if isinstance(error, (soundfile.LibsndfileError, AssertionError)):
            why = shown(error) or "its encoder failed"
            return UserError(f"{shown(self.path)}: could not be written ({why}), nothing was kept; try wav")
        return error


def write(path: str | os.PathLike, waveform: Tensor, sample_rate: int, **options) -> Writer:
    """Write a float ``[C, T]`` waveform as one file; `options` are those of `Writer`.

    Returns:
        The finished writer, for its `clipped` and `peak`.
    """
    with Writer(path, sample_rate, waveform.shape[0], **options) as out:
        out.write(waveform)
    return out


class _File(io.RawIOBase):
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


class _WavSink:
    """Wav and RF64, see `peav.media.wav`."""

    def __init__(self, file: _File, sample_rate: int, channels: int, format: _Format, subtype: str) -> None:
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


class _SoundfileSink:
    """Flac, mp3 and ogg, encoded by libsndfile."""

    def __init__(self, file: _File, sample_rate: int, channels: int, format: _Format, subtype: str) -> None:
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


def _format_of(path: Path) -> str:
    for name, format in FORMATS.items():
        if path.suffix.lower() in format.suffixes:
            return name
    raise UserError(
        f"{shown(path)}: no format for the ending '{shown(path.suffix, 20)}'; use .wav, .flac, .mp3 or .ogg"
    )


def _choose(name: str, subtype: str | None, path: Path) -> tuple[_Format, str]:
    format = FORMATS.get(name)
    if format is None:
        raise UserError(f"format '{shown(name, 40)}' is unknown; choose one of {', '.join(FORMATS)}")
    if path.suffix.lower() not in format.suffixes:
        raise UserError(
            f"{shown(path)}: the extension does not fit the format {name}; name it {shown(path.stem, 60)}"
            f"{format.suffixes[0]}"
        )
    if subtype is None or subtype == format.subtype:
        return format, format.subtype
    if subtype not in format.subtypes:
        choices = ", ".join(format.subtypes or (format.subtype,))
        raise UserError(f"subtype '{shown(subtype, 40)}' is not possible in {name}; choose one of {choices}")
    return format, subtype


def _check_encodable(path: Path, name: str, format: _Format, sample_rate: int, channels: int) -> None:
    if sample_rate not in format.rates:
        if isinstance(format.rates, range):
            allowed = f"{format.rates[0]} to {format.rates[-1]} Hz"
        else:
            allowed = ", ".join(str(rate) for rate in format.rates) + " Hz"
        instead = "; use wav or flac, or resample" if name in ("mp3", "ogg") else "; resample it"
        raise UserError(f"{shown(path)}: {name} cannot hold {sample_rate} Hz, only {allowed}{instead}")
    if not 1 <= channels <= format.max_channels:
        instead = "use wav or flac, or mix it down" if name == "mp3" else "mix it down"
        raise UserError(
            f"{shown(path)}: {name} cannot hold {channels} channels, only 1 to {format.max_channels}; "
            f"{instead}"
        )


def _check_target(path: Path, overwrite: bool) -> None:
    try:
        if path.is_dir():
            raise UserError(f"{shown(path)}: is a folder; give the name of a file")
        if not overwrite and os.path.lexists(path):
            raise _exists(path)
        folder = path.parent
        while not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise UserError(f"{shown(path)}: {shown(folder, 60)} is not a folder; choose another place")
        # The permissions that will count are those of the effective user.
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _user_error(path, error) from error


def _exists(path: Path) -> UserError:
    return UserError(f"{shown(path)}: exists already; give --force to replace it, or another name")


def _user_error(path: Path, error: OSError) -> UserError:
    where = shown(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"{where}: no space left on the disk, nothing was written; free some, or choose another folder"
        )
    if error.errno == errno.EFBIG:
        return UserError(
            f"{where}: the file grew too large for this disk, nothing was written; use flac or shorten it"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{where}: its folder cannot be written to ({error.strerror}); choose another one")
    if error.errno == errno.ENAMETOOLONG:
        return UserError(f"{where}: the name is too long for the disk; shorten it")
    why = error.strerror or str(error)
    return UserError(f"{where}: could not be written ({why}), nothing was kept; choose another place")


def _check_written(path: Path, temporary: Path, frames: int, exact: bool) -> None:
    """Read the length back: encoders may lose the end without a word. Lossy lengths are exact to 0.1 s."""
    try:
        with quiet_stderr():
            info = soundfile.info(os.fsencode(temporary))
        missing = frames - info.frames
        complete = missing == 0 if exact else abs(missing) <= 0.1 * info.samplerate
    except (soundfile.LibsndfileError, OSError):
        missing, complete = frames, False
    if not complete:
        raise UserError(
            f"{shown(path)}: {missing} of {frames} samples did not reach the disk, nothing was kept; "
            "check the disk and try again"
        )


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give the finished file its name in one step, never on top of a file that must be kept."""
    if overwrite:
        temporary.replace(path)
    else:
        try:
            os.link(temporary, path)
            temporary.unlink()
        except FileExistsError:
            raise _exists(path) from None
        except OSError:
            # No hard links here (FAT, some network drives): claim the name, then replace our own claim.
            try:
                path.open("xb").close()
            except FileExistsError:
                raise _exists(path) from None
            temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The new name is on disk only after its folder is. Where that is impossible the file is still whole.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
