"""Many outputs of many mixtures, judged by many prompts, at the cost of hearing each sound once.

The first transformer does not know the prompt, so mixture and outputs pass it once, and only the second transformer
runs for every pair of output and prompt. Equal to `JudgeModel.forward` on all the pairs.

A Judge that does not listen (``listen=False``) only knows what was compared, and nothing of that is learned: `Compared`
can be kept and judged again after the Judge has changed.

Axes: ``B`` mixtures, ``M`` outputs, ``Q`` prompts, ``D`` latent channels, ``F`` latent frames, ``N`` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .collection import Example
from .estimate import Estimate
from .features import tokens
from .model import JudgeModel


@dataclass
class Compared:
    """All that a Judge is told that does not listen: ``bands [B, M, N, 7 * bands * token_frames]`` of
    `judge.features.band_features`, ``tokens [B, Q, M, N, ...]`` and ``clip [B, Q, M, ...]`` of an `Estimate`."""

    bands: Tensor
    tokens: Tensor
    clip: Tensor


@dataclass
class Grid:
    """``scores [B, Q, M, 4]``, ``frames [B, Q, M, N, 4]``, ``presence [B, Q, M]`` log-odds or None."""

    scores: Tensor
    frames: Tensor
    presence: Tensor | None


def judge_grid(model: JudgeModel, mixture: Tensor, outputs: Tensor, text: Tensor) -> Grid:
    """Judge every output by every prompt.

    Args:
        mixture: latents ``[B, D, F]``.
        outputs: latents ``[B, M, D, F]``.
        text: text vectors ``[B, Q, W]``.
    """
    if not model.config.listen:
        return judge_compared(model, compare(model, mixture, outputs, text))
    bands = model.banded(mixture.repeat_interleave(outputs.shape[1], 0), outputs.flatten(0, 1))
    x = _listened(model, mixture, outputs, text, bands)
    if not model.config.estimate:
        return _judged(model, x, None)
    estimate = model.estimated(mixture, outputs, text)
    return _judged(model, x + model.compared(estimate), estimate.clip)


@torch.no_grad()
def encoded(model: JudgeModel, examples: Sequence[Example], words: Words) -> tuple[Tensor, Tensor, Tensor]:
    """Mixtures ``[B, D, F]``, outputs ``[B, M, D, F]`` and text vectors ``[B, Q, W]`` of examples of one length, as
    `judge_grid` and `compare` take them."""
    mixture = model.latents(torch.stack([e.mixture for e in examples])[:, None].to(model.device))
    outputs = torch.stack([model.latents(e.outputs[:, None].to(model.device)) for e in examples])
    text = torch.stack([words([q.phrase for q in e.questions]) for e in examples]).to(model.device)
    return mixture, outputs, text


@torch.no_grad()
def compare(model: JudgeModel, mixture: Tensor, outputs: Tensor, text: Tensor) -> Compared:
    """What `judge_compared` needs, of latents and text vectors as for `judge_grid`.

    Raises:
        ValueError: there is no estimator.
    """
    M = outputs.shape[1]
    estimate = model.estimated(mixture, outputs, text)
    bands = outputs.new_zeros(*outputs.shape[:2], 0)  # of a Judge that has no use for them
    if model.bands is not None:
        bands = model.band_tokens(mixture.repeat_interleave(M, 0), outputs.flatten(0, 1)).unflatten(0, (-1, M))
    return Compared(bands, estimate.tokens, estimate.clip)


def judge_compared(model: JudgeModel, known: Compared) -> Grid:
    """Judge every output by every prompt, by comparisons alone.

    Raises:
        ValueError: this Judge listens.
    """
    if model.config.listen:
        raise ValueError("this Judge listens, so that comparisons are not all it needs; call judge_grid")
    assert model.bands is not None
    tokens, clip = known.tokens.float(), known.clip.float()
    x = model.bands(known.bands.to(model.head.weight))[:, None]
    return _judged(model, x + model.compared(Estimate(tokens, clip)), clip)


def _judged(model: JudgeModel, x: Tensor, clip: Tensor | None) -> Grid:
    """From tokens ``[B, Q, M, N, bottleneck_dim]`` and ``clip`` of an `Estimate`, if there is one."""
    pairs, N = x.shape[:3], x.shape[3]
    out = model.finetune_transformer(model.finetune_data_proj(x.flatten(0, 2)))
    frames, presence = model.told(out, None if clip is None else clip.flatten(0, 2))
    frames = frames.view(*pairs, N, -1)
    return Grid(frames.mean(3), frames, None if presence is None else presence.view(pairs))


def _listened(model: JudgeModel, mixture: Tensor, outputs: Tensor, text: Tensor, bands: Tensor | None) -> Tensor:
    """Tokens ``[B, Q, M, N, bottleneck_dim]`` that know of the sounds and of the text."""
    (B, M), Q = outputs.shape[:2], text.shape[1]
    first, *others = model._streams(mixture.repeat_interleave(M, 0), outputs.flatten(0, 1), None)
    streams = torch.cat([tokens(x, model.config.token_frames) for x in (first[::M], *others)])
    heard = model.transformer(model.data_proj(streams.to(model.data_proj.weight))).frames
    whole, *parts = heard.split([B] + [B * M] * len(others))
    audio = model.cat_audio_proj(torch.cat((parts[0], whole.repeat_interleave(M, 0), *parts[1:]), dim=-1))
    if bands is not None:
        audio = audio + bands
    words = model.layer_norm(model.text_proj2(model.text_proj1(text)))
    N, width = audio.shape[1:]
    pairs = torch.cat((audio.view(B, 1, M, N, width).expand(B, Q, M, N, width),
                       words.view(B, Q, 1, 1, width).expand(B, Q, M, N, width).to(audio)), dim=-1)  # fmt: skip
    x = model.proj_audio_and_text(pairs)
    if model.match is not None:
        fits = [model.match.audio(whole).view(B, 1, 1, N, -1)]
        fits += [model.match.audio(part).view(B, 1, M, N, -1) for part in parts]
        x = x + model.match([fit.expand(B, Q, M, N, -1) for fit in fits], model.match.text(text)[:, :, None])
    return x


class Words:
    """Text vectors ``[B, W]`` of phrases on the CPU; each phrase runs through the text model once."""

    def __init__(self, model: JudgeModel) -> None:
        self.model = model
        self._known: dict[str, Tensor] = {}

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self._known]
        if new:
            self._known.update(zip(new, self.model.text_vectors(new).detach().cpu().clone(), strict=True))
        return torch.stack([self._known[phrase] for phrase in phrases])
