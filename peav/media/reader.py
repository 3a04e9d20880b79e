"""One gate in for samples: a whole file at once, or a stream of blocks in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import numpy as np
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media.info import AudioInfo, check_complete
from peav.media.probe import open_input, probe

_READ_BLOCK = 65_536  # samples per channel; what `read` asks for at a time


class AudioStream:
    """The samples of one file as float32 ``[C, T]`` blocks, in order, read once.

    >>> with stream("mix.wav", 48_000) as blocks:    # doctest: +SKIP
    ...     for block in blocks:
    ...         use(block, blocks.info.sample_rate)

    Each block holds `block_frames` samples, the last one the rest. Memory does not grow with the file. Errors
    that need the samples (truncated, NaN) are raised when the iteration gets there.
    """

    def __init__(self, path: str | os.PathLike, block_frames: int, start_frame: int = 0) -> None:
        if block_frames < 1:
            raise ValueError(f"block_frames is {block_frames}; give at least 1 sample")
        if start_frame < 0:
            raise ValueError(f"start_frame is {start_frame}; give 0 or more samples")
        self._input = open_input(path)
        self.info: AudioInfo = self._input.info
        blocks = _rechunked(self._input.blocks(block_frames, start_frame), block_frames)
        self._blocks = self._checked(blocks, start_frame)

    def _checked(self, blocks: Iterator[np.ndarray], start_frame: int) -> Generator[Tensor, None, None]:
        position = start_frame
        for block in blocks:
            finite = np.isfinite(block)
            if not finite.all():
                bad = position + int(np.argmin(finite.all(axis=0)))
                raise UserError(
                    f"{shown(self.info.path)}: holds a sample that is not a number (NaN or infinite) at "
                    f"{bad / self.info.sample_rate:.3f} s; repair or re-export it"
                )
            position += block.shape[1]
            yield torch.from_numpy(block)
        if position == start_frame and start_frame > 0 and self._input.damage is None:
            raise UserError(
                f"{shown(self.info.path)}: nothing at {start_frame / self.info.sample_rate:.2f} s, the file "
                "ends before it; start earlier"
            )
        check_complete(self._input, position)

    def __iter__(self) -> Iterator[Tensor]:
        return self._blocks

    def __next__(self) -> Tensor:
        return next(self._blocks)

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._blocks.close()
        self._input.close()


def stream(path: str | os.PathLike, block_frames: int, start_frame: int = 0) -> AudioStream:
    """Open a file for reading block by block; see `AudioStream`.

    Args:
        block_frames: samples per channel in each block.
        start_frame: the first sample to give. Lossy files are decoded from their start to get there, so read
            a long file as one stream instead of opening it once per chunk.

    Raises:
        UserError: as `probe`, and during the iteration for truncated or damaged files and for NaN.
    """
    return AudioStream(path, block_frames, start_frame)


def read(path: str | os.PathLike, start: float = 0.0, duration: float | None = None) -> tuple[Tensor, int]:
    """Read a file, or `duration` seconds of it from `start` on.

    Returns:
        The waveform, float32 ``[C, T]`` with full scale 1.0, and its sample rate in Hz. Shorter than
        `duration` if the file ends earlier.

    Raises:
        UserError: as `stream`, and for a `start` after the end of the file.
    """
    if not 0 <= start < float("inf"):
        raise UserError(f"start {start} is not a time; give seconds from 0 on")
    if duration is not None and not 0 < duration < float("inf"):
        raise UserError(f"duration {duration} is not a length; give more than 0 seconds")
    rate = probe(path).sample_rate
    wanted = None if duration is None else max(1, round(duration * rate))
    with stream(path, _READ_BLOCK, round(start * rate)) as blocks:
        parts: list[Tensor] = []
        have = 0
        for block in blocks:
            parts.append(block if wanted is None else block[:, : wanted - have])
            have += parts[-1].shape[1]
            if wanted is not None and have >= wanted:
                break
    return torch.cat(parts, dim=1), rate


def _rechunked(blocks: Iterator[np.ndarray], block_frames: int) -> Iterator[np.ndarray]:
    """The same samples in blocks of exactly `block_frames`, the last one shorter."""
    waiting: list[np.ndarray] = []
    have = 0
    for block in blocks:
        waiting.append(block)
        have += block.shape[1]
        if have < block_frames:
            continue
        joined = np.concatenate(waiting, axis=1)
        whole = have - have % block_frames
        for start in range(0, whole, block_frames):
            yield joined[:, start : start + block_frames].copy()
        have -= whole
        waiting = [joined[:, whole:]] if have else []
    if have:
        yield np.concatenate(waiting, axis=1)
