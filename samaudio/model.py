"""The mask model: codec, embedder and separator as one thing that answers queries about a mixture.

Axes: ``C`` channels, ``T`` samples at the model's rate, ``K`` hypotheses, ``F`` latent frames, ``E`` query width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peav import media
from peav.codec import DACVAE
from peav.errors import UserError, shown
from peav.model import PEAV

from .mask import ANYWHERE, INSIDE, OUTSIDE, MaskOutput, MaskSeparator
from .prompts import Example, Prompt, Span, Text

EXAMPLE_SECONDS = 60.0  # of an example are heard


@dataclass
class Split:
    """How a stretch of mixture divides, before it is cut out of the input.

    ``target`` and ``residual`` are waveform estimates ``[K, C, T]``; only their magnitudes matter afterwards.
    ``activity [F]`` is the probability, frame by frame, that the target sounds; ``presence`` that it sounds at all;
    ``confidence [K]`` the probability of each hypothesis being the best one of all.
    """

    target: Tensor
    residual: Tensor
    activity: Tensor
    presence: float
    confidence: Tensor


class MaskModel(nn.Module):
    """Everything between a prompt and an estimate. Runs at its own rate on mono or per channel."""

    def __init__(self, codec: DACVAE, embedder: PEAV, separator: MaskSeparator, settings: dict[str, Any]):
        super().__init__()
        self.codec, self.embedder, self.separator = codec, embedder, separator
        self.settings = settings

    @property
    def sample_rate(self) -> int:
        """Hz; recordings are resampled to this before :meth:`encode`."""
        return self.codec.config.sample_rate

    @property
    def frame_rate(self) -> float:
        """Latent frames (and activity values) per second."""
        return self.codec.config.frame_rate

    @property
    def hypotheses(self) -> int:
        return self.separator.config.hypotheses

    @property
    def presence_threshold(self) -> float:
        """Presence below this means that the sound is not there. Calibrated on validation mixtures."""
        return float(self.settings.get("presence_threshold", 0.5))

    @property
    def device(self) -> torch.device:
        return self.separator.no_query.device

    @torch.inference_mode()
    def query(self, prompts: Sequence[Prompt]) -> Tensor:
        """One unit vector ``[E]`` for everything the prompts say; NaN when they only name times."""
        texts = [p.text.strip().lower() for p in prompts if isinstance(p, Text)]
        found = [self.embedder.embed(text=texts)] if texts else []
        found += [self._embed_example(prompt) for prompt in prompts if isinstance(prompt, Example)]
        if not found:
            return torch.full((self.separator.config.query_dim,), torch.nan, device=self.device)
        return nn.functional.normalize(torch.cat(found).mean(0), dim=-1)

    def _embed_example(self, prompt: Example) -> Tensor:
        """Mean embedding ``[1, E]`` of an example's first minute, in windows of ten seconds, silent ones left out."""
        if isinstance(prompt.audio, Tensor):
            waveform = prompt.audio.float() if prompt.audio.dim() == 2 else prompt.audio.float()[None]
            rate, name = int(prompt.sample_rate or self.sample_rate), "the example"
            waveform = waveform[:, : round(EXAMPLE_SECONDS * rate)]
        else:
            waveform, rate = media.read(Path(prompt.audio), duration=EXAMPLE_SECONDS)
            name = f"the example {shown(prompt.audio)}"
        mono = media.resample(waveform.mean(0), rate, self.sample_rate).to(self.device)
        windows = [w for w in mono.split(10 * self.sample_rate) if float(w.abs().max()) > 1e-4]
        if not windows:
            raise UserError(f"{name} is silent in its first minute; give a recording of the sound itself")
        return self.embedder.embed(audio=windows).mean(0, keepdim=True)

    def anchors(self, prompts: Sequence[Prompt], start: float, frames: int) -> Tensor | None:
        """Marks ``[F]`` of the prompts' spans for ``frames`` latent frames that begin at ``start`` seconds.

        None without a span. A frame is inside when the span covers its middle.
        """
        spans = [p for p in prompts if isinstance(p, Span)]
        if not spans:
            return None
        middle = start + (torch.arange(frames) + 0.5) / self.frame_rate
        inside = torch.zeros(frames, dtype=torch.bool)
        for span in spans:
            inside |= (middle >= span.start) & (middle < span.end)
        return torch.where(inside, INSIDE, OUTSIDE).to(self.device)

    @torch.inference_mode()
    def encode(self, mixture: Tensor) -> Tensor:
        """Latents ``[C, D, F]`` of a mixture ``[C, T]`` at :attr:`sample_rate`; shared by all queries."""
        return self.codec.latents(mixture.to(self.device)[:, None])

    @torch.inference_mode()
    def split(
        self,
        mixture: Tensor,
        latent: Tensor,
        query: Tensor,
        anchors: Tensor | None,
        hypotheses: int | None = None,
    ) -> Split:
        """Divide ``mixture [C, T]``, whose latent is ``[C, D, F]``, by a query ``[E]``.

        Only the first ``hypotheses`` are decoded, which is where the time goes; None decodes all ``K``. What is not
        decoded as target is the residual, as in training.
        """
        C, T = mixture.shape
        marks = anchors if anchors is not None else torch.full(latent.shape[-1:], ANYWHERE, device=latent.device)
        out = self.separator(latent, query.expand(C, -1), marks.expand(C, -1))
        K = min(hypotheses or self.hypotheses, self.hypotheses)
        waves = self.codec.decode(out.target[:, :K].flatten(0, 1), length=T).view(C, K, T).transpose(0, 1)
        heard = audible(latent)
        # A sound that is in one channel only is there: the most certain channel speaks for all that can be heard.
        return Split(waves, mixture.to(waves) - waves, out.activity[heard].sigmoid().amax(0),
                     self._presence(latent, out), out.confidence[heard].softmax(-1).mean(0)[:K])

    @staticmethod
    def evidence(latent: Tensor, out: MaskOutput) -> Tensor:
        """What presence is judged by ``[2]``: the head's log-odds in the most certain channel, and the level of the
        first hypothesis' target relative to the mixture in dB."""
        level = out.target[:, 0].square().sum() / latent.square().sum().clamp_min(1e-12)
        return torch.stack((out.presence[audible(latent)].max(), 10 * level.clamp_min(1e-6).log10()))

    def _presence(self, latent: Tensor, out: MaskOutput) -> float:
        weights = {"head": 1.0, "level": 0.0, "bias": 0.0} | self.settings.get("presence", {})
        head, level = self.evidence(latent, out).tolist()
        odds = weights["head"] * head + weights["level"] * level + weights["bias"]
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, odds))))

    @torch.inference_mode()
    def similarity(self, query: Tensor, waveform: Tensor) -> float:
        """Cosine between a query ``[E]`` and the embedding of ``waveform [C, T]`` at the model's rate; NaN for a
        query without words or for silence."""
        mono = waveform.to(self.device).mean(0)
        if bool(query.isnan().any()) or float(mono.abs().max()) < 1e-6:
            return float("nan")
        return float(self.embedder.embed(audio=[mono])[0] @ query)


def audible(latent: Tensor, range_db: float = 50.0) -> Tensor:
    """Which channels of ``[C, D, F]`` are within ``range_db`` of the loudest, bool ``[C]``.

    The network hears every channel at full level; noise in an empty one must not decide anything.
    """
    power = latent.square().mean((1, 2))
    return power >= power.max() * 10 ** (-range_db / 10)
