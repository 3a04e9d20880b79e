"""What else is heard: a query for the rest of a mixture, so that a second look at the target knows what to leave out.

A separator that knows both sounds of a mixture tells them apart better than one that knows only what it was asked for.
Nobody names the rest, so it is listened to: what a first look leaves over goes through the embedder's audio tower, and
the names that fit it best, other than what was asked for, are the query.

Axes: ``B`` questions, ``L`` names, ``E`` query width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F_
from torch import Tensor

SHARPNESS = 15.0  # of the choice among names; a cosine of 0.1 more counts 4.5 times as much
SAME = 0.7  # cosine from which a name means what was asked for


def rest_query(heard: Tensor, names: tuple[Tensor, Tensor], query: Tensor) -> tuple[Tensor, Tensor]:
    """What the rest is, as unit vectors ``[B, E]`` among clips and among frames.

    Args:
        heard: unit vectors ``[B, E]`` of the audio tower on the rest.
        names: unit vectors ``[L, E]`` of names of sounds, among clips and among frames.
        query: what was asked for, ``[B, E]`` among clips; rows of NaN leave no name out.
    """
    clips, frames = names
    same = (query @ clips.T).nan_to_num(-1.0) > SAME
    # Where every name means what was asked for there is nothing to choose from; then none is left out.
    same = same & ~same.all(1, keepdim=True)
    weights = (SHARPNESS * heard @ clips.T).masked_fill(same, -torch.inf).softmax(1)
    return F_.normalize(weights @ clips, dim=-1), F_.normalize(weights @ frames, dim=-1)
