"""What is known about an audio file before its samples are read, and the limits on what is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from peav.errors import UserError, shown

MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz
MAX_CHANNELS = 8


@dataclass(frozen=True)
class AudioInfo:
    """Facts about one audio file, or about the first audio stream of a video.

    `frames` is what the file promises, None where it promises nothing to the sample (matroska, an aac stream,
    an mp3 without a length header). Lossy files may end up to 0.25 s or 2 % beside the promise, so allocate
    from what `stream` gives, not from `frames`.
    """

    path: Path
    sample_rate: int  # Hz
    channels: int
    frames: int | None  # samples per channel
    seconds: float | None  # the best estimate where `frames` is None
    container: str  # "wav", "flac", "mp4", ...
    codec: str  # "pcm_24", "aac", ...
    start_seconds: float = 0.0  # how much later than the file's own start (its video) the first sample sounds


class Input(Protocol):
    """An opened file: what `soundfile_input` and `pyav_input` offer to `probe` and `stream`."""

    info: AudioInfo
    lossy: bool  # may end a little beside its promise
    promised: float | None  # seconds of sound that the file says it holds
    # Known once `blocks` has ended:
    reached: float  # seconds, by the time stamps, where there are any
    damage: str | None  # why decoding stopped before the end

    def blocks(self, block_frames: int, start_frame: int) -> Iterator[np.ndarray]:
        """Float32 ``[C, T]`` arrays of any length from `start_frame` to the end of what can be decoded."""
        ...

    def close(self) -> None: ...


def check_limits(path: Path, sample_rate: int, channels: int) -> None:
    """Refuse rates and channel counts that no separator here can work with."""
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise UserError(
            f"{shown(path)}: its sample rate is {sample_rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are supported, "
            "so resample it first"
        )
    if channels > MAX_CHANNELS:
        raise UserError(
            f"{shown(path)}: {channels} channels; at most {MAX_CHANNELS} are supported, so mix it down first"
        )
    if channels < 1:
        raise UserError(f"{shown(path)}: no audio channels; check that this is the right file")


def check_complete(file: Input, decoded: int) -> None:
    """Refuse a file that gave less sound than it promised.

    Lengths of lossy files are counted in packets and padded, so they get 0.25 s or 2 %, whichever is more;
    exact formats get whichever is less, which forgives a recorder that died mid-block.

    Args:
        decoded: samples per channel that could be read, from the start of the file.
    """
    path, promised = shown(file.info.path), file.promised
    # Time stamps count too: a phone that sends nothing while nobody speaks leaves gaps, not a truncated file.
    got = max(decoded / file.info.sample_rate, file.reached)
    if promised is not None:
        slack = max(0.25, 0.02 * promised) if file.lossy else min(0.25, 0.02 * promised)
        if promised - got > slack:
            raise UserError(
                f"{path}: is truncated: header promises {promised:.2f} s, only {got:.2f} s could be read; "
                "re-export or repair it"
            )
    if file.damage is not None and (decoded == 0 or promised is None):
        raise UserError(f"{path}: is damaged at {got:.2f} s ({shown(file.damage)}); re-export or repair it")
    if decoded == 0:
        raise UserError(f"{path}: holds no samples; check that the recording was saved")
