"""The mask model: codec, embedder and separator as one thing that answers queries about a mixture.

Axes: ``C`` channels, ``T`` samples at the model's rate, ``K`` hypotheses, ``F`` latent frames, ``E`` query width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peav import media
from peav.codec import DACVAE
from peav.errors import UserError, shown
from peav.model import PEAV
from peav.rest import SHARPNESS, rest_query
from peav.towers import Encoded

from .mask import ANYWHERE, INSIDE, OUTSIDE, MaskOutput, MaskSeparator, agreement_of, hints_of
from .prompts import Example, Prompt, Span, Text
from .pulse import Pulse, agreement, envelope
from .sight import Sight, watch
from .visual.classical import Classical
from .visual.outline import Outline

EXAMPLE_SECONDS = 60.0  # of an example are heard
OTHER_SIDE = 0.35  # share of the target that what is made of the rest decides; measured on validation mixtures
# What a target and the rest leave unexplained, relative to the two: below SINGLE the rest is one sound, from SEVERAL on
# it is more. Then one query is too little for it, what is made of it says little of the target, and the first look
# counts FIRST. Measured on validation mixtures of two and three sources: of three, looks that trust it lose 2 dB.
SINGLE, SEVERAL, FIRST = 0.15, 0.3, 0.75
LEFT_OVER = 0.01  # of the mixture's power: with less than that there is no rest to know of
# What an object's sound is called is chosen by its looks, and by these; measured on drawn films.
HEARD, MOVED = 1.5, 1.0  # how much it counts that a name is heard, and that it is heard as the object moves
IN_STEP = 20.0  # how much it counts that a sound alone is loud as an object moves
EVIDENCE = ("head", "level", "frame")  # what presence is judged by, see `MaskModel.evidence`


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


@dataclass
class Query:
    """What prompts say, in the embedder's spaces: unit vectors ``clip [E]``, NaN when nothing was named, and
    ``frame [E]`` in that of its frame-level head, None without one or without words. ``sight`` is what was pointed at
    in a film, whose clock is ``offset`` seconds ahead of the recording's."""

    clip: Tensor
    frame: Tensor | None = None
    sight: Sight | None = None
    offset: float = 0.0

    def seen(self, times: Tensor) -> Tensor:
        """What is seen at ``times [N]`` of the recording, seconds: unit vectors ``[N, E]`` among frames of sound."""
        assert self.sight is not None
        return self.sight.at(times.cpu() + self.offset).to(self.clip)

    @property
    def whole(self) -> Tensor:
        """All of it as one unit vector ``[E]`` among clips, NaN when there is nothing."""
        if self.sight is None:
            return self.clip
        seen = self.sight.clip.to(self.clip)
        return seen if bool(self.clip.isnan().any()) else nn.functional.normalize(self.clip + seen, dim=-1)


UNHEARD = -3.0  # log-odds below which the embedder's frame-level head has not heard a sound


class MaskModel(nn.Module):
    """Everything between a prompt and an estimate. Runs at its own rate on mono or per channel."""

    def __init__(self, codec: DACVAE, embedder: PEAV, separator: MaskSeparator, settings: dict[str, Any],
                 pulse: Pulse | None = None, outline: Outline | None = None):  # fmt: skip
        super().__init__()
        self.codec, self.embedder, self.separator = codec, embedder, separator
        self.pulse, self.outline = pulse, outline
        self.settings = settings
        self._last_frames: tuple[Tensor, Tensor] | None = None

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
    def query(self, prompts: Sequence[Prompt], sight: Sight | None = None, offset: float = 0.0) -> Query:
        """What the prompts say, in the embedder's spaces; NaN when they only name times.

        Args:
            sight: what those of them that point at something show, see :meth:`watch`.
            offset: seconds from the start of the film to that of the recording.
        """
        texts = [p.text.strip() for p in prompts if isinstance(p, Text)]
        examples = [self._hear(prompt) for prompt in prompts if isinstance(prompt, Example)]
        vectors = self.embedder.text_vectors(texts) if texts else None
        clips = [] if vectors is None else [self.embedder.text_embedding(vectors)]
        clips += [self.embedder.head("audio", found.pooled).mean(0, keepdim=True) for found in examples]
        if not clips:
            nothing = torch.full((self.separator.config.query_dim,), torch.nan, device=self.device)
            return Query(nothing, None, sight, offset)
        if not self.embedder.has_frames:
            return Query(_joined(clips), None, sight, offset)
        frames = [] if vectors is None else [self.embedder.text_embedding(vectors, "frame")]
        frames += [self.embedder.head("frame", found.frames).mean(1) for found in examples]
        return Query(_joined(clips), _joined(frames), sight, offset)

    @property
    def sees(self) -> bool:
        """Whether :meth:`watch` is there."""
        return self.embedder.config.sees and self.separator.config.sight

    def watch(self, film: str | os.PathLike, prompts: Sequence[Prompt], **how: Any) -> Sight:
        """Follow what the prompts point at through a film; see `samaudio.sight.watch`."""
        if how.get("segmenter") is None:
            how["segmenter"] = Classical(self.outline)
        close_up = self.settings.get("close_up")
        return watch(self.embedder, film, prompts, close_up=tuple(close_up) if close_up else None,
                     pulse=self.pulse, **how)  # fmt: skip

    def _hear(self, prompt: Example) -> Encoded:
        """What the audio tower makes of an example's first minute, in windows of ten seconds, silent ones left out."""
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
        found = [self.embedder.audio(self.codec.latents(window[None, None])) for window in windows]
        return Encoded(torch.cat([x.pooled for x in found]), torch.cat([x.frames for x in found], dim=1), None)

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
        query: Query,
        anchors: Tensor | None,
        hypotheses: int | None = None,
        start: float = 0.0,
    ) -> Split:
        """Divide ``mixture [C, T]``, whose latent is ``[C, D, F]``, by a query. ``start`` is where in the recording it
        begins, seconds.

        Only the first ``hypotheses`` are decoded, which is where the time goes; None decodes all ``K``. What is not
        decoded as target is the residual, as in training.
        """
        C, T = mixture.shape
        marks = anchors if anchors is not None else torch.full(latent.shape[-1:], ANYWHERE, device=latent.device)
        asked = self.named(latent, query, start)
        first = self.ask(latent, asked, marks, start)
        out = self.look(latent, asked, first, marks, start)
        K = min(hypotheses or self.hypotheses, self.hypotheses)
        waves = self.codec.decode(out.target[:, :K].flatten(0, 1), length=T).view(C, K, T).transpose(0, 1)
        heard = audible(latent)
        # A sound that is in one channel only is there: the most certain channel speaks for all that can be heard.
        return Split(waves, mixture.to(waves) - waves, out.activity[heard].sigmoid().amax(0),
                     self._presence(latent, first, query, start), out.confidence[heard].softmax(-1).mean(0)[:K])

    def look(
        self, latent: Tensor, query: Query, first: MaskOutput, anchors: Tensor | None = None, start: float = 0.0
    ) -> MaskOutput:
        """Look twice more at latents ``[C, D, F]``, knowing what the ``first`` look (:meth:`ask`) left over: at the
        target, and at the rest (`peav.rest`). What the latter leaves over is the target too, and counts `OTHER_SIDE`,
        but the less, the more the rest seems to be several sounds (`unexplained`). ``anchors [F]`` as of
        :meth:`anchors`. Says no more of presence and activity than the first one did.
        """
        if not self.separator.config.rest:
            return first
        left = latent - first.target[:, 0]
        heard = audible(latent)
        level = left[heard].square().sum() / latent[heard].square().sum().clamp_min(1e-12)
        if float(level) < LEFT_OVER:
            return first
        clips = self.embedder.head("audio", self.embedder.audio(left[heard]).pooled)
        clip, frame = rest_query(_joined([clips])[None], self.separator.names, query.whole[None])
        found = self.ask(latent, query, anchors, start, (clip, frame))
        if query.frame is None:  # without words nothing says what the rest has to be kept free of
            target = found.target
        else:
            other = self.ask(latent, Query(clip[0], frame[0]), rest=(query.clip[None], query.frame[None])).target[:, :1]
            left_over = unexplained(latent[heard], first.target[heard, 0], other[heard, 0])
            several = min(max((left_over - SINGLE) / (SEVERAL - SINGLE), 0.0), 1.0)
            trusting = (1 - OTHER_SIDE) * found.target + OTHER_SIDE * (latent[:, None] - other)
            careful = FIRST * first.target + (1 - FIRST) * found.target
            target = torch.lerp(trusting, careful, several)
        return MaskOutput(target, latent[:, None] - target, first.activity, first.presence, found.confidence)

    def ask(
        self,
        latent: Tensor,
        query: Query,
        anchors: Tensor | None = None,
        start: float = 0.0,
        rest: tuple[Tensor, Tensor] | None = None,
    ) -> MaskOutput:
        """The separator's answer for latents ``[C, D, F]``; ``anchors [F]`` as of :meth:`anchors`, ``rest`` what else
        is heard, as of `peav.rest.rest_query`, ``[1, E]`` each."""
        C = len(latent)
        hints = seen = None
        named = not bool(query.clip.isnan().any())
        if self.separator.config.hint_dim:
            frames = self._frames(latent)
            if query.sight is not None:
                shown = query.seen(self._times(frames, start)).expand(C, -1, -1)
                seen = query.sight.clip.to(query.clip).expand(C, -1), hints_of(frames, shown)
            if named or seen is None:
                frame = torch.full_like(frames[0, 0], torch.nan) if query.frame is None else query.frame
                hints = hints_of(frames, frame.expand(C, -1))
        marks = None if anchors is None else anchors.expand(C, -1)
        asked = query.clip.expand(C, -1) if named or seen is None else None
        if rest is not None:
            rest = rest[0].expand(C, -1), agreement_of(self._frames(latent), rest[1].expand(C, -1))
        return self.separator(latent, asked, marks, hints, seen, rest)

    def named(self, latent: Tensor, query: Query, start: float = 0.0) -> Query:
        """What is seen, put into words: those of the separator's names that what was pointed at looks like, that are
        heard in ``latent [C, D, F]``, and that come and go as it moves. Queries with words, or without sight, and those
        to a separator that knows no names stay as they are.

        An object looks like several sounds, a drum like every drum; the recording says which of them it can be.
        """
        if query.sight is None or not query.clip.isnan().any() or not self.separator.config.rest:
            return query
        clips, frames = self.separator.names
        heard = self._frames(latent)[audible(latent)]
        odds = self.embedder.frame_pairs(heard, frames).amax(0)  # [L, N]
        surest = odds.topk(min(odds.shape[1], max(3, odds.shape[1] // 20)), dim=1).values.mean(1)
        scores = SHARPNESS * clips @ query.sight.clip.to(clips) + HEARD * nn.functional.logsigmoid(surest)
        beat = query.sight.beat(self._times(heard, start).cpu() + query.offset)
        if beat is not None:
            scores = scores + MOVED * agreement(beat[None].to(odds), odds.sigmoid())[0]
        weights = scores.softmax(0)
        clip, frame = (nn.functional.normalize(weights @ names, dim=0) for names in (clips, frames))
        return Query(clip, frame)

    def _times(self, frames: Tensor, start: float) -> Tensor:
        """Middles of the embedder's frames ``[C, N, E]``, seconds ``[N]``."""
        return start + (torch.arange(frames.shape[1]) + 0.5) * self.embedder.frame_seconds

    def evidence(self, latent: Tensor, out: MaskOutput, query: Query, start: float = 0.0) -> Tensor:
        """What presence is judged by ``[P]``: the separator's presence head in the most certain channel (log-odds);
        the level of the first hypothesis' target relative to the mixture (dB); and, where the embedder has a
        frame-level head, how sure that is of the sound where it is surest (log-odds)."""
        heard = audible(latent)
        level = out.target[:, 0].square().sum() / latent.square().sum().clamp_min(1e-12)
        found = [out.presence[heard].max(), 10 * level.clamp_min(1e-6).log10()]
        if query.frame is not None or query.sight is not None:
            odds = self._odds(self._frames(latent)[heard], query, start)
            # Not the single highest token: one in a long stretch is high by chance.
            surest = odds.topk(min(odds.shape[1], max(3, odds.shape[1] // 20)), dim=1).values
            # How far below that it lies tells more of the recording (rain over a voice) than of the question.
            found.append(surest.mean(1).max().clamp(min=UNHEARD))
        return torch.stack(found)

    def _odds(self, frames: Tensor, query: Query, start: float) -> Tensor:
        """Log-odds ``[C, N]`` that what is asked for sounds in frames ``[C, N, E]``: by its words or, without any, by
        what is seen of it."""
        if query.frame is not None:
            return self.embedder.frame_pairs(frames, query.frame[None])[:, 0]
        scale, bias = (self.embedder.scalar(f"video_frame_logit_{name}") for name in ("scale", "bias"))
        return (frames * query.seen(self._times(frames, start))).sum(-1) * scale + bias

    def _frames(self, latent: Tensor) -> Tensor:
        """Frame embeddings ``[C, N, E]`` of a latent; those of the last one are kept, as all questions share them."""
        last = self._last_frames
        if last is None or last[0] is not latent:
            last = (latent, self.embedder.head("frame", self.embedder.audio(latent).frames))
            self._last_frames = last
        return last[1]

    def _presence(self, latent: Tensor, out: MaskOutput, query: Query, start: float = 0.0) -> float:
        weights = {"head": 1.0, "level": 0.0, "frame": 0.0, "bias": 0.0} | self.settings.get("presence", {})
        if query.sight is not None and query.frame is None:  # calibrated by themselves: a look says less than a word
            weights |= self.settings.get("presence_seen", {})
        found = dict(zip(EVIDENCE, self.evidence(latent, out, query, start).tolist(), strict=False))
        odds = sum(weights[name] * value for name, value in found.items()) + weights["bias"]
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, odds))))

    @torch.inference_mode()
    def matches(self, sight: Sight, sounds: Tensor) -> Tensor:
        """How well each of ``sounds [S, T]`` (at the model's rate, beginning with the film) fits what was pointed at,
        ``[S]``: by what it looks like, and by how it moves where that is known. Only differences mean anything.
        """
        heard = self.embedder.audio(self.codec.latents(sounds.to(self.device)[:, None]))
        scores = SHARPNESS * self.embedder.head("audio", heard.pooled) @ sight.clip.to(self.device)
        if sight.pulse is None:
            return scores
        times = sight.times.numpy()
        loudness = np.stack([envelope(sound.cpu().numpy(), self.sample_rate, times) for sound in sounds])
        loudness_there = torch.from_numpy(loudness).to(sight.pulse)
        return scores + IN_STEP * agreement(sight.pulse[None], loudness_there)[0].to(scores)

    @torch.inference_mode()
    def similarity(self, query: Query, waveform: Tensor) -> float:
        """Cosine between a query and the embedding of ``waveform [C, T]`` at the model's rate; NaN for a
        query without words or for silence."""
        mono = waveform.to(self.device).mean(0)
        if bool(query.whole.isnan().any()) or float(mono.abs().max()) < 1e-6:
            return float("nan")
        return float(self.embedder.embed(audio=[mono])[0] @ query.whole)


def _joined(found: Sequence[Tensor]) -> Tensor:
    """Direction ``[E]`` of the mean of embeddings ``[n, E]`` each."""
    return nn.functional.normalize(torch.cat(list(found)).float().mean(0), dim=-1)


def unexplained(latent: Tensor, target: Tensor, other: Tensor) -> float:
    """Power of what two estimates leave of a latent, relative to the geometric mean of their own; ``[C, D, F]`` each.

    Of two sounds that were found it is little at any level. What was found of neither is infinitely much."""
    left, a, b = (float(x.square().sum()) for x in (latent - target - other, target, other))
    return left / math.sqrt(a * b) if a * b > 0 else math.inf


def audible(latent: Tensor, range_db: float = 50.0) -> Tensor:
    """Which channels of ``[C, D, F]`` are within ``range_db`` of the loudest, bool ``[C]``.

    The network hears every channel at full level; noise in an empty one must not decide anything.
    """
    power = latent.square().mean((1, 2))
    return power >= power.max() * 10 ** (-range_db / 10)
