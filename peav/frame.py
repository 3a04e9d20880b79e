"""PE-A-Frame as published: when in a clip something named by a text can be heard.

Axes: ``B`` clips, ``Q`` texts, ``F`` frames of 40 ms, ``E`` embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .config import PEAVConfig
from .errors import UserError
from .inputs import Tokenizer, batch_clips
from .model import PEAV, frame_logits_of, identity_of, latents_of
from .modernbert import ModernBert
from .towers import AudioTower, Encoded, Head

Span = tuple[float, float]  # start and end in seconds


@dataclass
class FrameOutput:
    """What a PE-A-Frame says of clips and texts."""

    frames: Tensor  # [B, F, E], embedding of every frame
    text: Tensor  # [Q, E]
    logits: Tensor  # [B, Q, F], log-odds that the text describes the frame; meaningless in the padding
    mask: Tensor | None  # [B, F] bool, true on frames of the clip; None when all are
    audio: Encoded  # the tower's output
    text_states: Tensor  # [Q, S, D], the text tower's output


class PEAFrame(nn.Module):
    """Audio tower, text tower and a head for each. `tokenizer` is set by `peav.load`."""

    has_clips = False
    has_frames = True
    modalities = frozenset({"audio", "text"})

    def __init__(self, config: PEAVConfig) -> None:
        super().__init__()
        if config.text is None:
            raise ValueError("config has no text tower; a small model has its frame heads in PEAV")
        self.config = config
        self.tokenizer: Tokenizer | None = None
        self.audio = AudioTower(config.codec, config.audio)
        self.text_model = ModernBert(config.text)
        self.audio_head = Head(config.audio.hidden_size, config.output_dim)
        self.text_audio_head = Head(config.text.hidden_size, config.output_dim)
        self.text_audio_logit_scale = nn.Parameter(torch.ones(1))
        self.text_audio_logit_bias = nn.Parameter(torch.zeros(1))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.codec.sample_rate

    @property
    def output_dim(self) -> int:
        """E."""
        return self.config.output_dim

    @property
    def device(self) -> torch.device:
        return self.audio.data_proj.weight.device

    @property
    def frame_seconds(self) -> float:
        """Length of a frame in seconds."""
        return self.config.frame_seconds

    @property
    def identity(self) -> str:
        """Short hash of configuration and weights."""
        return identity_of(self, self.config)

    def forward(
        self,
        token_ids: Tensor,
        token_mask: Tensor | None = None,
        waveform: Tensor | None = None,
        waveform_mask: Tensor | None = None,
        *,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
        compatible: bool = False,
    ) -> FrameOutput:
        """Every clip against every text.

        Args:
            token_ids, token_mask: ``[Q, S]``.
            waveform, waveform_mask: ``[B, 1, T]`` and ``[B, T]``.
            latents, latent_mask: ``[B, K, F]`` and ``[B, F]``, the codec's latents instead of a waveform.
            compatible: see `peav.towers`.
        """
        latents, latent_mask = latents_of(self.audio, waveform, waveform_mask, latents, latent_mask, compatible)
        audio = self.audio(latents, latent_mask)
        states = self.text_model(token_ids, token_mask)
        frames, text = self.audio_head(audio.frames), self.text_audio_head(states[:, 0])
        products = torch.einsum("bfe,qe->bqf", frames, text)
        logits = products * self.text_audio_logit_scale + self.text_audio_logit_bias
        return FrameOutput(frames, text, logits, audio.mask, audio, states)

    @torch.inference_mode()
    def frame_logits(self, audio: Sequence[Tensor], text: Sequence[str]) -> list[Tensor]:
        """Log-odds that each text describes each frame: ``[Q, F_i]`` for every clip.

        Args:
            audio: mono clips ``[T_i]`` at `sample_rate`.
            text: what to look for.

        Raises:
            ValueError: a list is empty, a clip is not mono, or there is no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer; load it with peav.load, or forward with token ids")
        waveform, mask = (x.to(self.device) for x in batch_clips(audio))
        token_ids, token_mask = (x.to(self.device) for x in self.tokenizer(text))
        out = self(token_ids, token_mask, waveform, mask)
        return frame_logits_of(out.logits, out.mask)

    def spans(self, audio: Sequence[Tensor], text: Sequence[str], **rule: Any) -> list[list[list[Span]]]:
        """Spans of each text in each clip: ``found[clip][text]`` is a list of (start, end) in seconds.

        Args:
            audio, text: see :meth:`frame_logits`.
            rule: threshold, max_gap and min_duration of `find_spans`.
        """
        return [
            find_spans(logits, self.frame_seconds, end=len(clip) / self.sample_rate, **rule)
            for clip, logits in zip(audio, self.frame_logits(audio, text), strict=True)
        ]


def clip_level(model: PEAV | PEAFrame) -> PEAV:
    """The model itself, if it embeds whole clips.

    Raises:
        UserError: it is a PE-A-Frame.
    """
    if isinstance(model, PEAFrame):
        raise UserError("a PE-A-Frame embeds frames, not whole clips; use a model such as facebook/pe-av-small")
    return model


def find_spans(
    logits: Tensor,
    frame_seconds: float,
    *,
    mask: Tensor | None = None,
    end: float | None = None,
    threshold: float = 0.3,
    max_gap: float = 0.0,
    min_duration: float = 0.0,
) -> list[list[Span]]:
    """Runs of frames whose probability is above `threshold`, as (start, end) in seconds, one list per row.

    Without `max_gap` and `min_duration` this is the published rule, except that padding is left out.

    Args:
        logits: ``[Q, F]``.
        frame_seconds: length of a frame.
        mask: ``[Q, F]``, true or 1 where a frame belongs to the clip.
        end: seconds; no span reaches further. The last frame of a clip usually does.
        threshold: strictly above it is on.
        max_gap: seconds; runs no further apart become one.
        min_duration: seconds; shorter spans are dropped, after joining.

    Raises:
        ValueError: a shape or a value does not fit.
    """
    if logits.ndim != 2 or (mask is not None and mask.shape != logits.shape):
        shapes = [None if x is None else tuple(x.shape) for x in (logits, mask)]
        raise ValueError(f"logits and mask have shapes {shapes}; give [Q, F] both")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold={threshold} is a probability, 0 to 1")
    if max_gap < 0 or min_duration < 0:
        raise ValueError(f"max_gap={max_gap} and min_duration={min_duration} are seconds, 0 or more")
    on = logits.float().sigmoid() > threshold
    if mask is not None:
        on &= mask.bool()
    slack = 1e-3 * frame_seconds  # whole frames on paper must not fail by rounding
    found = []
    for row in on.cpu():
        edges = torch.diff(row.int(), prepend=torch.zeros(1).int(), append=torch.zeros(1).int())
        starts, stops = (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist()
        spans: list[Span] = []
        for start, stop in zip(starts, stops, strict=True):
            span = (start * frame_seconds, stop * frame_seconds)
            if spans and max_gap and span[0] - spans[-1][1] <= max_gap + slack:
                span = (spans.pop()[0], span[1])
            spans.append(span)
        if end is not None:
            spans = [(a, min(b, end)) for a, b in spans if a < end]
        found.append([(a, b) for a, b in spans if b - a >= min_duration - slack])
    return found
