"""One gate out for audio files: whole files, or none.

Samples go to a hidden file beside the target, which takes the target's name only after it was written, synced
and counted. Whatever happens before that (full disk, exception, Ctrl-C) leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media.encoders import OutputFile, SoundfileSink, WavSink
from peav.media.formats import check_encodable, choose_format, format_of
from peav.media.partial import temporary_sibling
from peav.media.quiet import quiet_stderr

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
        name = format if format is not None else format_of(self.path)
        self._format, self.subtype = choose_format(name, subtype, self.path)
        check_encodable(self.path, name, self._format, sample_rate, channels)
        _check_target(self.path, overwrite)
        self._is_open = False
        # From `__enter__` on:
        self._temporary: Path
        self._file: OutputFile
        self._sink: WavSink | SoundfileSink

    def __enter__(self) -> Writer:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = temporary_sibling(self.path)
            self._file = OutputFile(self._temporary)
        except OSError as error:
            raise _user_error(self.path, error) from error
        try:
            sink = WavSink if self._format.container == "WAV" else SoundfileSink
            self._sink = sink(self._file, self.sample_rate, self.channels, self._format, self.subtype)
        except BaseException as error:
            self._remove()
            raise self._explained(error) from error
        self._is_open = True
        return self

    def write(self, waveform: Tensor) -> None:
        """Append samples.

        Args:
            waveform: float ``[C, T]``, full scale 1.0.

        Raises:
            UserError: the disk is full or refuses to be written.
            RuntimeError: NaN or infinite samples; no input leads to them, so that is a bug.
        """
        if not self._is_open:
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
        self._is_open = False
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
        with contextlib.suppress(Exception):
            self._sink.abandon()
        self._remove()

    def _remove(self) -> None:
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
        except FileExistsError:
            raise _exists(path) from None
        except OSError:
            _publish_without_links(temporary, path)
        else:
            with contextlib.suppress(OSError):
                temporary.unlink()
    _sync_folder(path.parent)


def _publish_without_links(temporary: Path, path: Path) -> None:
    """For FAT and some network drives: claim the name, then replace our own claim."""
    try:
        path.open("xb").close()
    except FileExistsError:
        raise _exists(path) from None
    try:
        temporary.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    # The new name is on disk only after its folder is. Where that is impossible the file is still whole.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
