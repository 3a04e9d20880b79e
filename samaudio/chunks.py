"""Long recordings in overlapping chunks, and back.

    |---------- chunk 0 ----------|
                           |---------- chunk 1 ----------|
                            m  /ramp\\  m

Neighbours share ``overlap`` samples. In the middle of them one fades into the other on a raised cosine. The
margin ``m`` on either side is only context, so that what a model does at a chunk's edge is never heard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_SECONDS = 12.0
OVERLAP_SECONDS = 2.0


@dataclass(frozen=True)
class Cutting:
    """How a recording is cut, in samples.

    Every chunk has ``size`` samples but for the last, which takes in what would be a rest of less than half a
    chunk: it has more than ``size / 2`` (unless the recording is shorter) and at most ``longest`` samples.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if self.size < 2 or not 0 < self.overlap <= self.size // 2:
            raise ValueError(
                f"chunks of {self.size} samples cannot overlap by {self.overlap}; "
                "give at least 1 and at most half a chunk"
            )

    @classmethod
    def of_seconds(cls, sample_rate: int, chunk: float = CHUNK_SECONDS) -> Cutting:
        """Chunks of ``chunk`` seconds that share a sixth of that, at most two seconds."""
        overlap = max(1, round(min(OVERLAP_SECONDS, chunk / 6) * sample_rate))
        return cls(max(2 * overlap, round(chunk * sample_rate)), overlap)

    @property
    def step(self) -> int:
        """Samples from the start of a chunk to the start of the next one."""
        return self.size - self.overlap

    @property
    def longest(self) -> int:
        """Samples of the longest last chunk: one more and another half chunk would follow."""
        return self.size + self.size // 2 - self.overlap


@dataclass
class Chunk:
    """Samples ``[C, n]`` that begin ``start`` samples into the recording."""

    start: int
    samples: Tensor
    first: bool
    last: bool

    @property
    def stop(self) -> int:
        return self.start + self.samples.shape[-1]


def chunks(blocks: Iterable[Tensor], cutting: Cutting) -> Iterator[Chunk]:
    """Cut blocks ``[C, n]`` of any length into overlapping chunks; holds one chunk and a half."""
    held: list[Tensor] = []
    have = start = 0
    for block in blocks:
        held.append(block)
        have += block.shape[-1]
        while have > cutting.longest:
            joined = torch.cat(held, dim=-1)
            yield Chunk(start, joined[..., : cutting.size], first=start == 0, last=False)
            held = [joined[..., cutting.step :].clone()]
            have -= cutting.step
            start += cutting.step
    if have:
        yield Chunk(start, torch.cat(held, dim=-1), first=start == 0, last=True)


def ramp(overlap: int) -> Tensor:
    """Weight ``[overlap]`` of the later chunk in an overlap: 0 on its margin, a raised cosine, then 1."""
    margin = overlap // 8
    phase = (torch.arange(overlap, dtype=torch.float64) + 0.5 - margin) / max(overlap - 2 * margin, 1)
    return (0.5 - 0.5 * torch.cos(math.pi * phase.clamp(0, 1))).float()


def weights(chunk: Chunk, overlap: int) -> Tensor:
    """How much each sample of a chunk counts, ``[n]``; over all chunks of a recording they sum to one."""
    found = torch.ones(chunk.samples.shape[-1])
    if not chunk.first:
        found[:overlap] = ramp(overlap)
    if not chunk.last:
        found[-overlap:] = 1 - ramp(overlap)
    return found


class OverlapAdd:
    """Joins what became of the chunks, given in order, and returns samples as soon as they are final."""

    def __init__(self, overlap: int):
        self.overlap = overlap
        self._ramp = ramp(overlap)
        self._tail: Tensor | None = None  # the end of the last chunk, still to be faded out

    def push(self, chunk: Tensor, last: bool) -> Tensor:
        """Take ``[..., n]`` and return what nothing can change any more: all of it with ``last``."""
        if self._tail is not None:
            # tail + ramp * (chunk - tail), which keeps a constant to the last bit
            head = self._tail.lerp(chunk[..., : self.overlap], self._ramp.to(chunk))
            chunk = torch.cat((head, chunk[..., self.overlap :]), dim=-1)
        if last:
            self._tail = None
            return chunk
        self._tail = chunk[..., -self.overlap :].clone()
        return chunk[..., : -self.overlap]
