"""What a target should answer to: words, another recording of the same sound, or a video of it.

The network reads words alone. For the others only the similarity is measured, by an embedder that hears or sees them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.media.video import read_frames
from peav.model import PEAV
from peav.windows import embed_blocks, embed_texts

from .audio import Sound, source

LONGEST_TEXT = 1_000  # characters; the sentence encoder reads about this much
IMAGES, IMAGE_SIDE = 32, 336  # of a film: how many are looked at, evenly spaced, and how large in pixels


@dataclass(frozen=True)
class Example:
    """Another recording of the same kind of sound: a file, or samples ``[T]`` or ``[C, T]`` with their rate in Hz."""

    audio: Sound
    sample_rate: int | None = None


@dataclass(frozen=True)
class Video:
    """What is seen while the sound is heard: a film, or images ``[N, 3, height, width]`` uint8."""

    images: Tensor | str | os.PathLike


Prompt = str | Example | Video


def check_prompt(prompt: Prompt) -> None:
    """
    Raises:
        UserError: it is empty, too long or no prompt at all.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError('the prompt is empty; name the sound, for example "guitar"')
        if len(prompt) > LONGEST_TEXT:
            raise UserError(
                f"the prompt {shown(prompt, 40)!r} has {len(prompt)} characters; use a phrase of at most {LONGEST_TEXT}"
            )
    elif not isinstance(prompt, (Example, Video)):
        raise UserError(f"{shown(prompt)} is no prompt; give words, judge.Example(audio) or judge.Video(images)")


def embed_prompt(embedder: PEAV, prompt: Prompt) -> Tensor:
    """Embedding ``[1, E]`` to compare a target's with.

    Raises:
        UserError: the example is silent or unreadable, or the embedder cannot see.
    """
    if isinstance(prompt, str):
        return embed_texts(embedder, [prompt])
    if isinstance(prompt, Example):
        example = source(prompt.audio, "example", prompt.sample_rate)
        with example.open() as blocks:
            found = embed_blocks(embedder, blocks, example.sample_rate)
        if found is None:
            raise UserError(f"{example.name} is silent, so it is an example of nothing; check the recording")
        return found[None]
    if "video" not in embedder.modalities:
        raise UserError("this embedder does not see videos; load one that does, such as facebook/pe-av-small")
    return embedder.embed(video=[_images(prompt.images)])


def _images(given: Tensor | str | os.PathLike) -> Tensor:
    if not isinstance(given, Tensor):
        return read_frames(given, num_frames=IMAGES, max_side=IMAGE_SIDE)[0]
    if given.dim() != 4 or given.shape[1] != 3 or given.dtype != torch.uint8 or not len(given):
        raise UserError(
            f"the video has shape {list(given.shape)} and type {given.dtype}; give uint8 images [N, 3, height, width]"
        )
    return given
