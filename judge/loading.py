"""Which judge: the one in the package, a folder, or a hub id."""

from __future__ import annotations

from pathlib import Path

import torch

import peav
from peav.checkpoints import CONFIG, is_ours, read_json
from peav.errors import UserError, shown
from peav.frame import PEAFrame
from peav.training import pick_device, pick_dtype

from . import checkpoints, published
from .rank import RankWeights
from .score import Judge


def load(
    model: str | Path | None = None,
    device: str | torch.device = "auto",
    *,
    embedder: str | Path | None = None,
    revision: str | None = None,
    dtype: torch.dtype | str | None = None,
    weights: RankWeights | None = None,
) -> Judge:
    """A judge, ready to score.

    Args:
        model: None for the small judge inside the package; a folder of a judge, ours or published, or of a whole model
            that has one; or a hub id such as ``facebook/sam-audio-judge``, which is downloaded.
        device: auto, cpu, cuda, cuda:N or mps.
        embedder: measures similarity: anything that `peav.load` takes. By default the one inside the whole model, else
            the one in the package.
        revision: branch, tag or commit of a hub id.
        dtype: of a published judge's weights; float32 by default.
        weights: what rankings go by.

    Raises:
        UserError: there is no such model, device or dtype, or its files are missing, damaged or do not fit.
    """
    where, dtype = pick_device(device) if isinstance(device, str) else device, pick_dtype(dtype)
    network = None
    if model is None:
        if checkpoints.PACKAGED.is_dir():
            network = checkpoints.load(checkpoints.PACKAGED)
    else:
        folder = published.fetch(model, revision)
        if not (folder / CONFIG).is_file() and (folder / "judge").is_dir():
            embedder = folder if embedder is None and is_ours(folder) else embedder
            folder = folder / "judge"
        settings = read_json(folder / CONFIG)
        if published.is_published(settings):
            network = published.load_published(folder, dtype=dtype, device=where)
        elif settings.get("format") == checkpoints.FORMAT:
            network = checkpoints.load(folder)
        else:
            raise UserError(f"{shown(model)}: is no judge; an embedder for the similarity is given as embedder")
    if network is not None:
        network = network.to(where)
    heard = peav.load(embedder, device=where)
    if isinstance(heard, PEAFrame):
        raise UserError(f"{shown(embedder)}: embeds no whole clips; give a PE-AV such as facebook/pe-av-small")
    return Judge(heard, network, weights)
