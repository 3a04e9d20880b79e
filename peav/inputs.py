"""From clips, pictures and words to what the published models take.

Axes: ``B`` batch, ``T`` samples, ``N`` images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .codec import pad_to_hop
from .errors import UserError, shown

MAX_TOKENS = 512  # of a text; longer ones are cut, as in the original processor


def batch_clips(clips: Sequence[Tensor], hop_length: int | None = None) -> tuple[Tensor, Tensor]:
    """Waveform ``[B, 1, T]``, zero where clips are shorter, and mask ``[B, T]`` bool.

    Args:
        clips: mono, each ``[T_i]``.
        hop_length: samples; continue each clip to a whole number of them by its own reflection, which then counts
            as part of the clip. This is what the published processors hand to the models.

    Raises:
        ValueError: there are no clips, or one is empty or not mono.
    """
    if not len(clips):
        raise ValueError("no clips; give a list with at least one clip [T]")
    for i, clip in enumerate(clips):
        if clip.ndim != 1 or not clip.shape[0]:
            raise ValueError(f"clip {i} has shape {tuple(clip.shape)}; give mono clips [T] with at least one sample")
    if hop_length is not None:
        clips = [pad_to_hop(clip, hop_length) for clip in clips]
    return pad_sequence(list(clips), batch_first=True)[:, None], _mask([len(clip) for clip in clips], clips[0].device)


def batch_videos(videos: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Video ``[B, N, 3, height, width]``, zero where videos are shorter, and mask ``[B, N]`` bool.

    Args:
        videos: each ``[N_i, 3, height, width]``, all of one size, see `prepare_video`.
    """
    if not len(videos):
        raise ValueError("no videos; give a list with at least one video [N, 3, height, width]")
    sizes = {tuple(video.shape[1:]) for video in videos}
    if len(sizes) > 1 or any(video.ndim != 4 or not video.shape[0] for video in videos):
        raise ValueError(f"videos of shapes {[tuple(v.shape) for v in videos]}; give [N, 3, height, width] of one size")
    return pad_sequence(list(videos), batch_first=True), _mask([len(video) for video in videos], videos[0].device)


def _mask(lengths: Sequence[int], device: torch.device) -> Tensor:
    ends = torch.tensor(lengths, device=device)
    return torch.arange(max(lengths), device=device) < ends[:, None]


def prepare_video(images: Tensor, size: tuple[int, int], num_frames: int | None = None) -> Tensor:
    """Images as the vision tower takes them: ``[N, 3, height, width]`` float in -1..1.

    Args:
        images: ``[N, 3, any, any]`` uint8. They are squeezed to `size`, not cropped.
        size: height and width in pixels.
        num_frames: take so many, evenly from first to last; a shorter video repeats some.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8 or not images.shape[0]:
        raise ValueError(f"images of shape {tuple(images.shape)}, {images.dtype}; give uint8 [N, 3, height, width]")
    if num_frames is not None:
        images = images[frame_indices(images.shape[0], num_frames)]
    resized = F_.interpolate(images.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    # The published processors resize whole grey levels.
    return resized.round().clamp(0, 255) / 127.5 - 1


def frame_indices(total: int, num_frames: int) -> list[int]:
    """Which of `total` images a model with a fixed number of them looks at.

    >>> frame_indices(31, 4)
    [0, 10, 20, 30]
    """
    return [int(i * (total - 1) / max(num_frames - 1, 1)) for i in range(num_frames)]


class Tokenizer:
    """The tokenizer beside a checkpoint, read at first use."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._loaded: Any = None

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, ``[B, S]`` each, padded on the right to the longest text.

        Raises:
            ValueError: `texts` is not a list of at least one text.
            UserError: the folder has no tokenizer that can be read.
        """
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"text={texts!r}; give a list with at least one phrase")
        if self._loaded is None:
            self._loaded = self._load()
        found = self._loaded(
            list(texts),
            padding="longest",
            padding_side="right",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        return found["input_ids"], found["attention_mask"].bool()

    def _load(self) -> Any:
        if not (self.folder / "tokenizer.json").is_file():
            raise UserError(f"{shown(self.folder)}: tokenizer.json missing; put it beside the weights")
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{shown(self.folder)}: the tokenizer cannot be read ({shown(error, 120)})") from None
