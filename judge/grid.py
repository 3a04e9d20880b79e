"""Many outputs of many mixtures, judged by many prompts, at the cost of hearing each sound once.

The first transformer does not know the prompt, so mixture and outputs pass it once, and only the second transformer
runs for every pair of output and prompt. Equal to `JudgeModel.forward` on all the pairs.

Axes: ``B`` mixtures, ``M`` outputs, ``Q`` prompts, ``D`` latent channels, ``F`` latent frames, ``N`` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .features import tokens
from .model import JudgeModel


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
    (B, M), Q = outputs.shape[:2], text.shape[1]
    repeated = mixture.repeat_interleave(M, 0)
    bands = model.banded(repeated, outputs.flatten(0, 1))
    if model.config.listen:
        x = _listened(model, mixture, outputs, text, bands)
    else:
        assert bands is not None
        x = bands.unflatten(0, (B, 1, M)).expand(B, Q, M, *bands.shape[1:])
    N = x.shape[3]
    clip = None
    if model.config.estimate:
        estimate = model.estimated(mixture, outputs, text)
        x, clip = x + model.compared(estimate), estimate.clip.flatten(0, 2)
    out = model.finetune_transformer(model.finetune_data_proj(x.flatten(0, 2)))
    frames, presence = model.told(out, clip)
    frames = frames.view(B, Q, M, N, -1)
    return Grid(frames.mean(3), frames, None if presence is None else presence.view(B, Q, M))


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
