"""A model with a frame head whose answers are known."""

from __future__ import annotations

import torch
from torch import Tensor

RATE, HOP = 8_000, 320  # Hz, samples per frame of 40 ms


class Meter:
    """Says of every frame how loud it is, looking at `reach` frames to either side as a convolution would.

    The log-odds of "loud" are 20 times the mean level (full scale 1.0) minus 2, those of "quiet" the opposite, and of
    anything else the level itself.
    """

    frame_seconds = HOP / RATE
    has_frames = True
    device = torch.device("cpu")

    def __init__(self, reach: int = 3, sample_rate: int = RATE) -> None:
        self.reach, self.sample_rate = reach, sample_rate
        self.hop = sample_rate // 25
        self.lengths: list[int] = []  # samples of every clip that came

    def frame_logits(self, audio, text) -> list[Tensor]:
        return [self._one(clip, text) for clip in audio]

    def _one(self, clip: Tensor, text) -> Tensor:
        assert clip.ndim == 1
        self.lengths.append(len(clip))
        level = torch.nn.functional.pad(clip.abs(), (0, -len(clip) % self.hop)).view(-1, self.hop).mean(1)
        kernel = torch.full((1, 1, 2 * self.reach + 1), 1 / (2 * self.reach + 1))
        level = torch.conv1d(level[None, None], kernel, padding=self.reach)[0, 0]
        rows = {"loud": 20 * level - 2, "quiet": 2 - 20 * level}
        return torch.stack([rows.get(words, level) for words in text])
