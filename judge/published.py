"""The published Judge, loaded from its own files.

A folder holds ``config.json``, the weights (``checkpoint.pt`` as published, or ``model.safetensors`` with the same
names) and the tokenizer. Nothing is unpickled but plain tensors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peav import codec_keys, hub
from peav.checkpoints import CONFIG, configured, read_json
from peav.codec import CodecConfig
from peav.errors import UserError, shown
from peav.inputs import Tokenizer
from peav.modernbert import ModernBertConfig
from peav.published import fill_empty, read_weights
from peav.transformer import TransformerConfig

from .model import JudgeConfig, JudgeModel

REVISION = "sam_audio"  # where the hub keeps this layout

_TOWER = {"hidden_size": 1024, "intermediate_size": 2752, "num_hidden_layers": 16, "num_attention_heads": 8}
_TEXT_LAYERS = 28  # of the text tower, of which the first `nth_text_layer` are used


def fetch(model: str | Path, revision: str | None = None) -> Path:
    """Folder of ``model``: itself, or a hub id's files, by default those in the published layout.

    Raises:
        UserError: as `peav.hub.resolve`.
    """
    if revision is None and str(model).endswith("/sam-audio-judge") and not os.path.isdir(model):  # noqa: PTH112 never raises
        revision = REVISION
    return hub.resolve(model, revision)


def is_published(settings: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a published Judge."""
    return "audio_codec" in settings and "finetune_transformer" in settings


def config_from_published(settings: Mapping[str, Any]) -> JudgeConfig:
    """Sizes from a published ``config.json``; what it leaves out has the published value.

    Raises:
        ValueError, TypeError: sizes contradict each other, or something is not supported.
    """
    defaults = {field.name: getattr(CodecConfig(), field.name) for field in fields(CodecConfig)}
    given = settings.get("audio_codec") or {}
    codec = codec_keys.settings_from_dacvae(defaults | {k: v for k, v in given.items() if v is not None})
    text = {"num_hidden_layers": _TEXT_LAYERS, **(settings.get("text_model") or {})}
    layers = settings.get("nth_text_layer", 22)
    return JudgeConfig(
        codec=CodecConfig.from_dict(codec),
        transformer=_tower(settings.get("transformer") or {}),
        finetune_transformer=_tower(settings.get("finetune_transformer") or {}),
        # Without a layer's number the original reads the last state, after the norm.
        text=ModernBertConfig.from_dict(text, num_layers=layers, final_norm=layers is None),
        bottleneck_dim=settings.get("bottleneck_dim", 256),
    )


def _tower(values: Mapping[str, Any]) -> TransformerConfig:
    given = _TOWER | {name: value for name, value in values.items() if value is not None}
    if given.get("attention_bias") or given.get("hidden_act", "silu") != "silu":
        raise ValueError("a transformer with attention_bias, or an activation other than silu, is not supported")
    return TransformerConfig(
        hidden_size=given["hidden_size"],
        num_layers=given["num_hidden_layers"],
        num_heads=given["num_attention_heads"],
        intermediate_size=given["intermediate_size"],
        num_key_value_heads=given.get("num_key_value_heads"),
        # The original derives theta from the length of its table and does not read it.
        rope_theta=float(max(10_000, 2 * given.get("max_position_embeddings", 10_000))),
        norm_eps=given.get("rms_norm_eps", 1e-5),
    )


def state_from_published(state: Mapping[str, Tensor], config: JudgeConfig) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights under our names, and for each of them the name it had.

    The codec's weight norm is folded; its unused half, text layers past the one that is read and tables that are
    computed here are left out. A name without a counterpart is kept, so that a strict loader reports it.
    """
    codec = codec_keys.from_dacvae(codec_keys.take_prefix(state, "audio_codec."))
    codec = codec_keys.encoder_part(codec, config.codec.codebook_dim)
    ours = {f"codec.{name}": tensor for name, tensor in codec.items()}
    origin = {name: f"audio_{name}" for name in ours}
    for name, tensor in state.items():
        if not name.startswith("audio_codec.") and _is_read(name, config):
            ours[name], origin[name] = tensor, name
    return ours, origin


def _is_read(name: str, config: JudgeConfig) -> bool:
    assert config.text is not None
    parts = name.split(".")
    if "rotary_emb" in parts or parts[-1] == "position_ids":
        return False
    if parts[0] != "text_model":
        return True
    if parts[1] == "layers" and parts[2].isdigit():
        return int(parts[2]) < config.text.num_layers
    return parts[1] != "final_norm" or config.text.final_norm


def load_published(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> JudgeModel:
    """The published Judge in ``folder``, ready to score.

    Args:
        dtype: of the weights.
        device: where to put them.

    Raises:
        UserError: a file is missing or damaged, the folder holds another kind of model, or weights are missing,
            left over or of another size.
    """
    folder = Path(folder)
    settings = read_json(folder / CONFIG)
    if not is_published(settings):
        raise UserError(f"{shown(folder)}: is not a Judge in the published layout; check the folder")
    config = configured(config_from_published, settings, folder)
    state = read_weights(folder)
    try:
        ours, origin = state_from_published(state, config)
    except ValueError as error:  # half of a weight norm
        raise UserError(f"{shown(folder, 60)}: the weights do not fit: {shown(error, 150)}") from None
    with torch.device("meta"):
        model = JudgeModel(config)
    fill_empty(model, ours, origin, folder, dtype)
    model.tokenizer = Tokenizer(folder)
    return model.to(device).requires_grad_(False).eval()
