"""Files of any length as one embedding, in the same memory.

A file is embedded in windows of :data:`WINDOW` seconds, whose embeddings are averaged by length; so a sound that
fills half of it counts half.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import console, media
from .errors import UserError, shown
from .model import PEAV

WINDOW = 10.0  # seconds
SHORTEST = 1.0  # seconds; a shorter rest at the end is left out, unless it is all there is
SILENCE = 1e-5  # full scale 1.0; samples below it say nothing and do not count


def embed_texts(model: PEAV, texts: Sequence[str]) -> Tensor:
    """``[B, E]`` of texts without the blanks around them."""
    return model.embed(text=[text.strip() for text in texts])


def embed_file(model: PEAV, path: str | os.PathLike, progress: console.Advance | None = None) -> Tensor:
    """Embedding ``[E]`` of a file of any length.

    Raises:
        UserError: it cannot be read, or holds only silence.
    """
    with media.stream(path, 1 << 16) as blocks:
        found = embed_blocks(model, _told(blocks, blocks.info, progress), blocks.info.sample_rate)
    if found is None:
        raise UserError(f"{shown(path)}: is silent, so there is nothing to embed; check the recording")
    return found


def embed_blocks(model: PEAV, blocks: Iterable[Tensor], sample_rate: int) -> Tensor | None:
    """Embedding ``[E]`` of a waveform that arrives in blocks ``[C, T]``: windows, averaged by length.

    Digital silence does not count, neither whole windows of it nor the part of one. None if there is nothing else.
    """
    total: Tensor | None = None
    length, unit = 0, False  # samples; whether this model's embeddings have length one
    for window in _windows(blocks, sample_rate, model.sample_rate):
        heard = int((window.abs() > SILENCE).sum())
        if not heard:
            continue
        vector = model.embed(audio=[window.to(model.device)])[0]
        unit = math.isclose(float(vector.norm()), 1.0, abs_tol=1e-3)
        weighted = vector * heard
        total = weighted if total is None else total + weighted
        length += heard
    if total is None:
        return None
    return torch.nn.functional.normalize(total, dim=0) if unit else total / length


def cosines(one: Tensor, many: Tensor) -> list[float]:
    """Cosine of ``[E]`` with each of ``[B, E]``."""
    return torch.nn.functional.cosine_similarity(one[None], many, dim=-1).tolist()


def _windows(blocks: Iterable[Tensor], rate_from: int, rate_to: int) -> Iterator[Tensor]:
    """Mono windows ``[T]`` at ``rate_to``."""
    resampler = media.StreamResampler(rate_from, rate_to)
    size, shortest = round(WINDOW * rate_to), round(SHORTEST * rate_to)
    pending = torch.zeros(0)
    first = True

    def resampled() -> Iterator[Tensor]:
        for block in blocks:
            yield resampler.push(block.float().mean(0))
        yield resampler.flush()

    for part in resampled():
        pending = torch.cat((pending, part.cpu()))
        while len(pending) >= size:
            yield pending[:size]
            pending, first = pending[size:], False
    if len(pending) >= shortest or (first and len(pending)):
        yield pending


def _told(blocks: Iterable[Tensor], info: Any, progress: console.Advance | None) -> Iterator[Tensor]:
    done = 0
    for block in blocks:
        yield block
        done += block.shape[-1]
        if progress is not None:
            progress(done / info.sample_rate, info.seconds)
