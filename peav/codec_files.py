"""Codec weights on disk: ours, and both published layouts.

A folder holds ``config.json`` and ``model.safetensors``, or a single ``weights.pth`` with the reference's
constructor arguments inside. Nothing is ever unpickled beyond plain tensors and numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from peav import codec_keys

FORMAT = "peav-codec"


def read_codec(folder: str | Path, *, watermark: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings for `CodecConfig.from_dict` and the state of a `DACVAE`, whatever layout `folder` is in.

    Args:
        folder: see the top of this module.
        watermark: False accepts the weights of a watermark and leaves them out.
    """
    folder = Path(folder)
    config, weights, published = (folder / n for n in ("config.json", "model.safetensors", "weights.pth"))
    if config.is_file() and weights.is_file():
        settings = json.loads(config.read_text(encoding="utf-8"))
        state = load_file(weights)
    elif published.is_file():
        content = torch.load(published, map_location="cpu", weights_only=True)
        try:
            settings, state = content["metadata"]["kwargs"], content["state_dict"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{published} is no codec: it needs state_dict and metadata.kwargs") from error
    else:
        raise ValueError(f"no codec in {folder}: it needs config.json and model.safetensors, or weights.pth")

    if settings.get("format") == FORMAT:
        settings = {name: value for name, value in settings.items() if name != "format"}
    else:
        alpha = settings.get("wm_alpha", 0.25)
        state = codec_keys.from_dacvae(state)
        settings = codec_keys.settings_from_dacvae(settings)
        settings["watermark"] = codec_keys.watermark_settings(state, alpha) if watermark else None
    if not watermark:
        settings["watermark"] = None
        state = {name: t for name, t in state.items() if not name.startswith("watermark.")}
    return settings, state


def write_codec(
    folder: str | Path,
    settings: Mapping[str, Any],
    state: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into `folder`, floating weights as `dtype` if given."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in state.items():
        stored = tensor.detach().cpu()
        if dtype is not None and stored.is_floating_point():
            stored = stored.to(dtype)
            if not bool(stored.isfinite().all()):
                raise ValueError(f"{name} reaches {tensor.abs().max():.3g}, too much for {dtype}; save wider")
        tensors[name] = stored.contiguous().clone()
    text = json.dumps({"format": FORMAT, **settings}, indent=1) + "\n"
    _replace(folder / "model.safetensors", lambda path: save_file(tensors, path))
    _replace(folder / "config.json", lambda path: path.write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside `path` and move into place, so that a failed write leaves no half a file."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        write(partial)
        partial.chmod(0o644)  # safetensors writes for the owner alone, which a shared installation cannot read
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
