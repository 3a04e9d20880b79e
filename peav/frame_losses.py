"""Frame-level loss of PE-A-Frame: does this text describe this frame?

Axes: ``B`` clips, ``F`` audio frames, ``Q`` texts of a clip, ``E`` embedding width, ``W`` processes.

The paper (arXiv 2512.19687, section 3) trains two questions that compete. *Local* activity asks when: a clip's own
texts against its own frames, where they are active and where not. *Global* activity asks which: the texts of other
clips too, which are nowhere active in this one. More of the local one sharpens boundaries, more of the global one
avoids false alarms; the paper draws the local one with a probability of 0.7.
"""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F_
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.utils.checkpoint import checkpoint

from .gather import check_alike, gather_rows, place, sum_over_processes
from .losses import at_least_single, matches

LOCAL, GLOBAL = "local", "global"


def draw_negatives(step: int, local_probability: float = 0.7, seed: int = 0) -> str:
    """``"local"`` or ``"global"`` for a step: the same one in every process, and in a resumed run."""
    return LOCAL if random.Random(f"{seed} {step}").random() < local_probability else GLOBAL


def frame_contrastive(
    frames: Tensor,
    text: Tensor,
    targets: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    frame_mask: Tensor | None = None,
    text_mask: Tensor | None = None,
    negatives: str = LOCAL,
    keys: Tensor | None = None,
    chunk_size: int | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Pairwise sigmoid loss between frames and texts, as `peav.losses.sigmoid_contrastive` is between clips.

    ``-sum(logsigmoid(y * (<frame, text> * scale + bias))) / number of valid frames`` with ``y`` +1 where a text is
    active and -1 where not. With several processes the mean of their losses is that of the joint batch.

    Args:
        frames: ``[B, F, E]``.
        text: ``[B, Q, E]``, each clip's own; or ``[Q, E]``, of which all clips are labelled.
        targets: ``[B, Q, F]``, true or 1 where text q describes frame f.
        scale, bias: scalars.
        frame_mask: ``[B, F]``, true on valid frames; None when all are.
        text_mask: ``[B, Q]``, true on valid texts; None when all are.
        negatives: ``"local"``, a clip's own texts only; or ``"global"``, those of all clips of all processes.
        keys: ``[B, Q]`` int64, see `peav.losses.match_keys`. A text of another clip that shares its key with one of
            this clip's is left out, since it may be active here; unlabelled clips are unknown, not silent.
        chunk_size: clips whose logits exist at once.

    Raises:
        ValueError: shapes differ, here or between processes, or ``negatives`` is unknown or does not suit ``text``.
    """
    shared = text.dim() == 2
    if negatives not in (LOCAL, GLOBAL) or (negatives == GLOBAL and shared):
        raise ValueError(f"negatives={negatives!r} for text {tuple(text.shape)}; choose {LOCAL!r}, or {GLOBAL!r} where "
                         "each clip has texts of its own [B, Q, E]")
    if shared:
        text = text.expand(len(frames), -1, -1)
    B, F, E = frames.shape
    Q = text.shape[1]
    if text.shape != (B, Q, E) or targets.shape != (B, Q, F):
        raise ValueError(f"targets {tuple(targets.shape)} for frames {tuple(frames.shape)} and text "
                         f"{tuple(text.shape)}; give [B, Q, F], [B, F, E] and [B, Q, E]")
    device = frames.device
    frame_mask = torch.ones(B, F, dtype=torch.bool, device=device) if frame_mask is None else frame_mask.bool()
    text_mask = torch.ones(B, Q, dtype=torch.bool, device=device) if text_mask is None else text_mask.bool()
    if frame_mask.shape != (B, F) or text_mask.shape != (B, Q) or (keys is not None and keys.shape != (B, Q)):
        raise ValueError(f"masks {tuple(frame_mask.shape)} and {tuple(text_mask.shape)}; give [B, F] and [B, Q]")
    rank, world = place(group)

    # What each clip is asked: texts [C, E] for all clips, or [B, Q, E] for each its own.
    asked, counted = text, text_mask
    if negatives == GLOBAL:
        check_alike({"batch": B, "texts": Q, "width": E, "keys": int(keys is not None)}, device, group)
        asked = gather_rows(text, group).flatten(0, 1)
        counted = gather_rows(text_mask, group).flatten().expand(B, -1)
        if keys is not None:
            all_keys = gather_rows(keys, group).flatten()
            shared_key = torch.stack([matches(row, all_keys).any(0) for row in keys])
            counted = counted & ~shared_key
        # A clip's own texts are asked in any case, and are the only ones that may be active.
        own = torch.arange(Q, device=device) + Q * (rank * B + torch.arange(B, device=device)[:, None])
        counted = counted.scatter(1, own, text_mask)
        active = torch.zeros(B, asked.shape[0], F, dtype=torch.bool, device=device)
        active.scatter_(1, own[:, :, None].expand(-1, -1, F), targets.bool())
    else:
        active = targets.bool()

    def block(frames: Tensor, asked: Tensor, scale: Tensor, bias: Tensor, rows: slice) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            products = at_least_single(asked) @ at_least_single(frames).transpose(1, 2)
            logits = products * scale + bias
            terms = -F_.logsigmoid(torch.where(active[rows], logits, -logits))
            return (terms * (counted[rows, :, None] & frame_mask[rows, None])).sum()

    size = chunk_size or B
    sums = []
    for start in range(0, B, size):
        rows = slice(start, start + size)
        part = asked if negatives == GLOBAL else asked[rows]
        if size >= B:
            sums.append(block(frames, part, scale, bias, rows))
        else:
            sums.append(checkpoint(block, frames[rows], part, scale, bias, rows, use_reentrant=False,
                                   preserve_rng_state=False))
    # Clips differ in length, so processes differ in frames: the mean of their losses must be that of all frames.
    number = sum_over_processes(frame_mask.sum(), group) / world
    return torch.stack(sums).sum() / number.clamp_min(1)


class FrameLoss(nn.Module):
    """`frame_contrastive` with its temperature and bias, which are PE-A-Frame's own, not those of whole clips."""

    def __init__(self, scale: float = 10.0, bias: float = -10.0, chunk_size: int | None = None) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.chunk_size = chunk_size

    def forward(self, frames: Tensor, text: Tensor, targets: Tensor, **how) -> Tensor:
        """See `frame_contrastive`."""
        return frame_contrastive(
            frames, text, targets, self.log_scale.exp(), self.bias, chunk_size=self.chunk_size, **how)

    @torch.no_grad()
    def export_to(self, model: nn.Module) -> None:
        """Write temperature and bias where a model with a frame-level head keeps them."""
        model.text_frame_logit_scale.fill_(self.log_scale.exp())  # type: ignore[operator,union-attr]
        model.text_frame_logit_bias.fill_(self.bias)  # type: ignore[operator,union-attr]
