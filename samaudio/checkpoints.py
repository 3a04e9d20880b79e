"""A mask model on disk: codec, embedder, separator, and the settings that were measured for them.

    codec/ embedder/ separator/   config.json and model.safetensors each
    pulse/                        the same; only where the model reads movement
    outline/                      the same; only where it draws the outlines of clicked objects
    settings.json                 name, presence_threshold, ..., and the SHA-256 of every weight file

Weights are safetensors only, float16 on disk and float32 in memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from peav import checkpoints as parts
from peav.codec import DACVAE, DACEncoder
from peav.codec_keys import encoder_part
from peav.errors import UserError, shown

from .mask import MaskSeparator
from .model import MaskModel
from .pulse import Pulse
from .visual.outline import Outline

FORMAT = "samaudio-mask"
VERSION = 1
SETTINGS = "settings.json"
DEFAULTS: dict[str, Any] = {"presence_threshold": 0.5, "power": 1.0}


def save_model(model: MaskModel, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a model folder; ``settings.json`` comes last, so a folder that has it is complete.

    Raises:
        ValueError: a weight is too large for ``dtype``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).unlink(missing_ok=True)
    model.codec.save_pretrained(folder / "codec", dtype)
    parts.save(model.embedder, folder / "embedder", dtype)
    if not _same_codec(model.embedder.codec, model.codec):
        model.embedder.codec.save_pretrained(folder / "embedder" / "codec", dtype)
    model.separator.save(folder / "separator", dtype)
    for name, part in (("pulse", model.pulse), ("outline", model.outline)):
        if part is not None:
            part.save(folder / name, dtype)
    save_settings(model, folder)


def save_settings(model: MaskModel, folder: str | Path) -> None:
    """Write ``settings.json`` alone, with the checksums of the weights that are in ``folder``."""
    folder = Path(folder)
    weights = sorted(path.relative_to(folder) for path in folder.rglob(parts.ANY_WEIGHTS))
    settings = {name: value for name, value in model.settings.items() if name not in ("format", "version", "sha256")}
    parts.write_json(
        folder / SETTINGS,
        {
            "format": FORMAT,
            "version": VERSION,
            **DEFAULTS,
            **settings,
            "sha256": {path.as_posix(): parts.sha256(folder / path) for path in weights},
        },
    )


def _same_codec(encoder: DACEncoder, codec: DACVAE) -> bool:
    ours, theirs = encoder.state_dict(), encoder_part(codec.state_dict(), codec.config.codebook_dim)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k].cpu(), theirs[k].cpu()) for k in ours)


def load_model(folder: str | Path, device: str | torch.device = "cpu") -> MaskModel:
    """The model in ``folder``, float32, ready to separate.

    Raises:
        UserError: no model of this kind is there, a file is missing or damaged, or weights do not fit.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # noqa: PTH112 unlike Path.is_dir, it never raises
        raise UserError(f"{shown(folder)}: no such model folder; check the name")
    needed = [
        SETTINGS,
        *(f"{part}/{file}" for part in ("codec", "embedder", "separator") for file in (parts.CONFIG, parts.WEIGHTS)),
    ]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{shown(folder)}: is no complete model of this kind; missing: {', '.join(missing)}")
    settings = parts.read_json(folder / SETTINGS)
    if settings.get("format") != FORMAT or settings.get("version") != VERSION:
        raise UserError(
            f"{shown(folder / SETTINGS)}: format {shown(settings.get('format'), 40)} version "
            f"{shown(settings.get('version'), 20)}; this program reads {FORMAT} version {VERSION}"
        )
    _check_sums(folder, settings.get("sha256", {}))
    codec = parts.load_codec(DACVAE, folder / "codec")
    embedder = parts.load(folder / "embedder")
    separator = MaskSeparator.load(folder / "separator")
    wanted = (codec.config.codebook_dim, embedder.config.output_dim)
    if (separator.config.latent_dim, separator.config.query_dim) != wanted:
        raise UserError(f"{shown(folder)}: codec, embedder and separator do not belong together; fetch it again")
    pulse = Pulse.load(folder / "pulse") if (folder / "pulse").is_dir() else None
    outline = Outline.load(folder / "outline") if (folder / "outline").is_dir() else None
    model = MaskModel(codec, embedder, separator, settings, pulse, outline)
    return model.requires_grad_(False).eval().to(device)


def _check_sums(folder: Path, sums: dict[str, str]) -> None:
    for name, expected in sums.items():
        path = folder / name
        if path.is_file() and parts.sha256(path) != expected:
            raise UserError(f"{shown(path)}: is not the file that was saved (its SHA-256 differs); fetch it again")
