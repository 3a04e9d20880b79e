"""What the Judge itself would have separated, as something to compare an output with.

Whether an output is good depends most of all on how hard the mixture was: two separators tend to fail on the same
items. So the small Judge asks one, a mask separator with its embedder, for its own estimate of the target, and is told
how far the output is from it, how sure the separator is, and where the embedder hears the prompt. A separator that
knows names of sounds (`peav.rest`) is also asked for what else is heard; where the mixture without that differs from
its first estimate, it is probably wrong. None of this is trained with the Judge.

Axes: ``B`` mixtures, ``M`` outputs, ``Q`` prompts, ``D`` latent channels, ``F`` latent frames, ``N`` tokens, ``C``
features of a token, ``W`` width of a text vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from peav.checkpoints import load as load_embedder
from peav.errors import UserError, shown
from peav.mask import MaskSeparator, hints_of
from peav.model import PEAV
from peav.rest import rest_query

from .features import FLOOR, band_weights

RANGE_DB = 40.0  # levels and distances are told up to here either way

# One number each for a pair of output and prompt, brought to about -1 to 1.
CLIP = (
    "output from estimate", "estimate from output", "output from mixture", "rest from estimated rest",  # SI-SDR
    "output", "rest", "estimate",  # level against the mixture
    "presence", "confidence", "agreement",  # of the separator: that the sound is there, and of its hypotheses
    "output heard", "rest heard", "mixture heard", "estimate heard",  # log-odds that a token is the prompt, on average
    "output surest", "rest surest", "mixture surest",  # the same where they are highest
    "output named", "rest named", "mixture named", "estimate named",  # cosine with the prompt
    "output like rest", "output like mixture", "output like estimate",  # cosine with each other
)  # fmt: skip
# More of it, from what the separator makes of the rest of the mixture, "other"; for overall alone.
MORE = (
    "output from mixture without other", "rest from other", "output from both", "rest from both",  # SI-SDR
    "estimate from mixture without other", "other from estimated rest", "both from mixture",  # SI-SDR
    "other", "other presence", "other named",  # level, log-odds, cosine with the prompt
)  # fmt: skip
PER_TOKEN = 4  # features of a token that are not bands


@dataclass
class Estimate:
    """``tokens [B, Q, M, N, C]`` and ``clip [B, Q, M, len(CLIP) + len(MORE)]``."""

    tokens: Tensor
    clip: Tensor


class Estimator(nn.Module):
    """A frozen embedder and separator that share the Judge's codec.

    Raises:
        ValueError: they do not belong together, or the embedder has no frame-level head or another text model.
    """

    def __init__(self, embedder: PEAV, separator: MaskSeparator) -> None:
        super().__init__()
        sizes, config = separator.config, embedder.config
        if not embedder.has_frames or embedder.text_model is not None:
            raise ValueError("an estimator needs an embedder with a frame-level head and the sentence encoder's words")
        if (sizes.latent_dim, sizes.query_dim) != (config.codec.codebook_dim, config.output_dim):
            raise ValueError("this embedder and this separator do not belong together")
        self.embedder, self.separator = embedder, separator
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, folder: str | Path, separator: str | Path | None = None) -> Estimator:
        """Of the whole model in ``folder``: its ``embedder/`` and ``separator/``, or the one in another folder.

        Raises:
            UserError: files are missing or damaged, or it is a model that cannot be used for this.
        """
        folder = Path(folder)
        embedder = load_embedder(folder / "embedder", folder / "codec")
        try:
            return cls(embedder, MaskSeparator.load(separator or folder / "separator"))
        except ValueError as error:
            raise UserError(f"{shown(folder)}: {error}") from None

    def train(self, mode: bool = True) -> Estimator:
        """Stays as it is: it is no part of what is trained."""
        return super().train(False)

    @staticmethod
    def width(bands: int) -> int:
        """C."""
        return 3 * bands + PER_TOKEN

    @torch.no_grad()
    def forward(self, mixture: Tensor, outputs: Tensor, text: Tensor, bands: int, frames: int) -> Estimate:
        """Compare.

        Args:
            mixture, outputs: latents ``[B, D, F]`` and ``[B, M, D, F]``.
            text: the sentence encoder's vectors ``[B, Q, W]``.
            bands: in how many bands to compare.
            frames: latent frames per token.
        """
        (B, M), Q = outputs.shape[:2], text.shape[1]
        mixture, outputs = mixture.float(), outputs.float()
        rest = mixture[:, None] - outputs
        clip_text, frame_text = (self.embedder.text_embedding(text.float(), kind) for kind in ("audio", "frame"))
        whole = self._hear(mixture[:, None])
        hints = None
        if self.separator.config.hint_dim:
            hints = hints_of(whole[1].repeat_interleave(Q, 0).flatten(0, 1), frame_text.flatten(0, 1))
        repeated = mixture.repeat_interleave(Q, 0)
        found = self.separator(repeated, clip_text.flatten(0, 1), None, hints)
        targets = found.target.unflatten(0, (B, Q))
        estimate = targets[:, :, 0]
        sounds = [whole, self._hear(outputs), self._hear(rest), self._hear(estimate)]
        named, odds = zip(*(self._agree(*sound, clip_text, frame_text) for sound in sounds), strict=True)

        # Axes from here on: [B, Q, M].
        x, y, s = mixture[:, None, None], outputs[:, None], estimate[:, :, None]
        level = [_db(_power(part), _power(x)) for part in (y, x - y, s)]
        distance = [_si_sdr(y, s), _si_sdr(s, y), _si_sdr(y, x), _si_sdr(x - y, x - s)]
        confidence = found.confidence.softmax(-1).amax(-1).view(B, Q, 1)
        spread = (targets - estimate[:, :, None]).square().sum((-1, -2)).mean(2)[:, :, None]
        agreement = _db(_power(s), spread)
        loud = [group.square().sum(-2) for group in (mixture[:, None], outputs, rest, estimate)]
        heard = [self._loudest(o, power) for o, power in zip(odds, loud, strict=True)]
        surest = [o.topk(max(1, o.shape[-1] // 10), dim=-1).values.mean(-1) / 10 for o in odds[:3]]
        clips = [sound[0] for sound in sounds]  # [B, 1, E], [B, M, E] twice, [B, Q, E]
        alike = [(clips[1] * clips[2]).sum(-1)[:, None], (clips[1] * clips[0]).sum(-1)[:, None],
                 torch.einsum("bme,bqe->bqm", clips[1], clips[3])]  # fmt: skip
        own = torch.eye(Q, dtype=torch.bool, device=x.device)  # of the estimate, only what its own prompt says
        heard[3], name_of_estimate = (v.masked_select(own).view(B, Q, 1) for v in (heard[3], named[3]))
        order = [distance[0], distance[1], distance[2], distance[3], *level,
                 found.presence.view(B, Q, 1) / 5, confidence, agreement,
                 heard[1], heard[2], heard[0], heard[3], surest[1], surest[2], surest[0],
                 named[1], named[2], named[0], name_of_estimate, *alike]  # fmt: skip
        order += self._other(repeated, whole[1], clip_text, x, y, s)
        clip = torch.stack([value.expand(B, Q, M) for value in order], dim=-1)
        return Estimate(self._tokens(x, y, s, found.activity, odds, bands, frames), clip)

    def _other(self, mixture: Tensor, frames: Tensor, clip_text: Tensor, x: Tensor, y: Tensor, s: Tensor
               ) -> list[Tensor]:  # fmt: skip
        """`MORE`, ``[B, Q, M]`` or what expands to it; zeros from a separator that knows no names of sounds."""
        if not self.separator.config.rest:
            return [x.new_zeros(1, 1, 1)] * len(MORE)
        B, Q = s.shape[:2]
        heard = self._hear((x - s)[:, :, 0])[0].flatten(0, 1)
        clip, frame = rest_query(heard, self.separator.names, clip_text.flatten(0, 1))
        found = self.separator(mixture, clip, None, hints_of(frames.repeat_interleave(Q, 0).flatten(0, 1), frame))
        other = found.target[:, 0].unflatten(0, (B, Q))[:, :, None]
        both = (s + x - other) / 2
        return [_si_sdr(y, x - other), _si_sdr(x - y, other), _si_sdr(y, both), _si_sdr(x - y, x - both),
                _si_sdr(s, x - other), _si_sdr(other, x - s), _si_sdr(both, x),
                _db(_power(other), _power(x)), found.presence.view(B, Q, 1) / 5,
                (clip.unflatten(0, (B, Q)) * clip_text).sum(-1, keepdim=True)]  # fmt: skip

    def _hear(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Clip ``[B, n, E]`` and frame embeddings ``[B, n, N, E]`` of ``[B, n, D, F]``."""
        found = self.embedder.audio(latents.flatten(0, 1))
        clips, frames = self.embedder.head("audio", found.pooled), self.embedder.head("frame", found.frames)
        return clips.unflatten(0, latents.shape[:2]), frames.unflatten(0, latents.shape[:2])

    def _agree(self, clips: Tensor, tokens: Tensor, clip_text: Tensor, frame_text: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines ``[B, Q, n]`` and log-odds of tokens ``[B, Q, n, N]`` of ``n`` sounds with ``Q`` prompts."""
        products = torch.einsum("bnte,bqe->bqnt", tokens, frame_text)
        scale, bias = (self.embedder.scalar(f"text_frame_logit_{name}") for name in ("scale", "bias"))
        return torch.einsum("bne,bqe->bqn", clips, clip_text), (products * scale + bias).clamp(-20, 20)

    @staticmethod
    def _loudest(odds: Tensor, power: Tensor) -> Tensor:
        """Mean of log-odds ``[B, Q, n, N]`` by the power ``[B, n, F]`` of their tokens."""
        weight = F_.adaptive_avg_pool1d(power, odds.shape[-1])[:, None]
        return (odds * weight).sum(-1) / weight.sum(-1).clamp_min(1e-12) / 10

    @staticmethod
    def _tokens(x: Tensor, y: Tensor, s: Tensor, activity: Tensor, odds: tuple[Tensor, ...], bands: int, frames: int
                ) -> Tensor:  # fmt: skip
        B, Q, M = x.shape[0], s.shape[1], y.shape[2]
        weights = band_weights(x.shape[-2], bands).to(x)
        scale = x.square().mean((-1, -2), keepdim=True).clamp_min(1e-12)

        def banded(part: Tensor) -> Tensor:
            return _to_tokens(weights @ part.square() / scale, frames)

        estimate, output, error = banded(s), banded(y), banded(y - s)
        found = [(p + FLOOR).log() / 3 + 2 for p in (estimate, error)]
        found.append(((output + 1e-4) / (estimate + 1e-4)).log() / 2)
        N = error.shape[-1]
        single = [_to_tokens(activity.view(B, Q, 1, -1), frames) / 5]
        single += [_fit(o, N) / 10 for o in odds[:3]]
        found += [value[..., None, :] for value in single]
        return torch.cat([part.expand(B, Q, M, -1, N) for part in found], dim=-2).transpose(-1, -2)


def _to_tokens(x: Tensor, frames: int) -> Tensor:
    """Means ``[..., N]`` over the ``frames`` of each token of ``[..., F]``; the last one may have fewer."""
    missing = -x.shape[-1] % frames
    if missing:
        x = torch.cat((x, x[..., -1:].expand(*x.shape[:-1], missing)), dim=-1)
    return x.unflatten(-1, (-1, frames)).mean(-1)


def _fit(x: Tensor, count: int) -> Tensor:
    """``[B, Q, n, N]`` with ``count`` tokens, each the nearest one."""
    if x.shape[-1] == count:
        return x
    return F_.interpolate(x.flatten(0, 1), count, mode="nearest").unflatten(0, x.shape[:2])


def _power(x: Tensor) -> Tensor:
    return x.square().sum((-1, -2))


def _db(a: Tensor, b: Tensor) -> Tensor:
    """``10 log10(a / b)`` within RANGE_DB either way, in tens of decibels."""
    bound = 10 ** (RANGE_DB / 10)
    return ((a + 1e-12) / (b + 1e-12)).clamp(1 / bound, bound).log10()


def _si_sdr(y: Tensor, s: Tensor) -> Tensor:
    """SI-SDR of latents ``y`` for ``s``, in tens of decibels; the codec is close to orthogonal."""
    product, power = (y * s).sum((-1, -2)), _power(s)
    kept = product.square() / power.clamp_min(1e-12)
    return _db(kept, (_power(y) - kept).clamp_min(0) + 1e-4 * power)
