"""Published names of codec weights, and what they are called here.

Three layouts are known. All hold the same tensors:

* dacvae: weight-normalised convolutions (``weight_g``, ``weight_v``) under ``encoder.``, ``quantizer.`` and
  ``decoder.``; the codec's own file, and ``audio_codec.`` inside separators and judges.
* folded: the encoder alone with ordinary weights and named residual units, inside embedders.
* ours: the module names of `peav.codec`, ordinary weights.

The functions take a state dict and return a new one; none of them builds a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]

# Positions inside a published decoder block: ours hold the main path only, in a row.
_DECODER_BLOCK = {"0": "0", "1": "1", "4": "2", "5": "3", "8": "4"}
_WATERMARK_LEVEL = {"3": "up", "6": "unit_out", "7": "unit_in", "11": "down"}
_WATERMARK_NET = {
    "encoder_block.pre.3": "stem",
    "encoder_block.post.0": "lstm_in",
    "encoder_block.post.2": "to_latent",
    "msg_processor.msg_processor": "message",
    "decoder_block.pre.0": "from_latent",
    "decoder_block.pre.1": "lstm_out",
    "decoder_block.post.1": "head",
}


def take_prefix(state: Mapping[str, Tensor], prefix: str) -> State:
    """The tensors below `prefix`, with it removed."""
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def fold_weight_norm(state: Mapping[str, Tensor]) -> State:
    """Replace each pair ``weight_g``, ``weight_v`` by ``weight = v * g / ||v||``.

    The norm runs over all axes but the first, for transposed convolutions too, whose first axis is the input.
    """
    folded = {}
    for name, tensor in state.items():
        if name.endswith("weight_g"):
            stem = name.removesuffix("_g")
            if f"{stem}_v" not in state:
                raise ValueError(f"{name} has no {stem}_v beside it")
            v = state[f"{stem}_v"].float()
            norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
            folded[stem] = v * (tensor.float() / norm)
        elif not name.endswith("weight_v") or f"{name.removesuffix('_v')}_g" not in state:
            folded[name] = tensor
    return folded


def from_dacvae(state: Mapping[str, Tensor]) -> State:
    """State of a `DACVAE` from the dacvae layout, keys starting ``encoder.``, ``quantizer.``, ``decoder.``.

    A name without a counterpart is kept, so that the strict loader reports it.
    """
    return {_dacvae_name(name): tensor for name, tensor in fold_weight_norm(state).items()}


def _dacvae_name(name: str) -> str:
    if match := re.fullmatch(r"quantizer\.((?:in|out)_proj\..+)", name):
        return match[1]
    if match := re.fullmatch(r"decoder\.model\.0\.(\w+)", name):
        return f"decoder.trunk.0.{match[1]}"
    if match := re.fullmatch(r"decoder\.model\.(\d+)\.block\.(\d+)\.(.+)", name):
        index, place, rest = match.groups()
        if place in _DECODER_BLOCK:
            return f"decoder.trunk.{index}.block.{_DECODER_BLOCK[place]}.{rest}"
        if place in _WATERMARK_LEVEL:
            # A unit of the watermark is a row too: activation, convolution, activation, convolution.
            rest = rest.replace("block.1.", "conv1.").replace("block.3.", "conv2.")
            return f"watermark.levels.{int(index) - 1}.{_WATERMARK_LEVEL[place]}.{rest}"
    if match := re.fullmatch(r"decoder\.wm_model\.encoder_block\.pre\.([01])\.(\w+)", name):
        # The last snake and convolution of the main path live inside the watermark network there.
        return f"decoder.{'snake' if match[1] == '0' else 'head'}.{match[2]}"
    for theirs, ours in _WATERMARK_NET.items():
        if name.startswith(f"decoder.wm_model.{theirs}."):
            return name.replace(f"decoder.wm_model.{theirs}.", f"watermark.{ours}.")
    return name


def from_folded(
    state: Mapping[str, Tensor],
    *,
    rates: int,
    latent_channels: int,
    encoder_prefix: str = "dac_encoder.",
    bottleneck_prefix: str = "bottleneck.",
) -> State:
    """State of a `DACEncoder` from the folded layout of embedders.

    Args:
        state: may hold other tensors too; only those below the two prefixes are read.
        rates: number of strided blocks.
        latent_channels: D; of a bottleneck that has scale rows as well, the first D rows are the mean.
        encoder_prefix, bottleneck_prefix: "dac_encoder." and "bottleneck." in transformers' files,
            "encoder." and "bottleneck.in_proj." in the original ones (below their `dac_vae_encoder.`).
    """
    ours = {_folded_name(name, rates): t for name, t in take_prefix(state, encoder_prefix).items()}
    for name, tensor in take_prefix(state, bottleneck_prefix).items():
        ours[f"in_proj.{name}"] = tensor[:latent_channels]
    return ours


def _folded_name(name: str, rates: int) -> str:
    unit_parts = {"snake1": "0", "conv1": "1", "snake2": "2", "conv2": "3"}
    if match := re.fullmatch(r"block\.(\d+)\.res_unit([123])\.(snake1|conv1|snake2|conv2)\.(\w+)", name):
        index, unit, part, rest = match.groups()
        return f"encoder.block.{int(index) + 1}.block.{int(unit) - 1}.block.{unit_parts[part]}.{rest}"
    if match := re.fullmatch(r"block\.(\d+)\.(snake1|conv1)\.(\w+)", name):
        index, part, rest = match.groups()
        return f"encoder.block.{int(index) + 1}.block.{3 if part == 'snake1' else 4}.{rest}"
    top = {"conv1": 0, "snake1": rates + 1, "conv2": rates + 2}
    if match := re.fullmatch(r"(conv1|snake1|conv2)\.(\w+)", name):
        return f"encoder.block.{top[match[1]]}.{match[2]}"
    return f"encoder.{name}"


def encoder_part(state: Mapping[str, Tensor], latent_channels: int) -> State:
    """State of a `DACEncoder` from that of a `DACVAE`: encoder and mean rows of the bottleneck."""
    other_half = ("out_proj.", "decoder.", "watermark.")
    kept = {name: t for name, t in state.items() if not name.startswith(other_half)}
    return {name: t[:latent_channels] if name.startswith("in_proj.") else t for name, t in kept.items()}


def settings_from_dacvae(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Our `CodecConfig` fields from the reference constructor's arguments, less those of its quantiser."""
    names = ("sample_rate", "encoder_dim", "encoder_rates", "latent_dim", "codebook_dim", "decoder_dim",
             "decoder_rates")  # fmt: skip
    missing = [name for name in names if settings.get(name) is None]
    if missing:
        raise ValueError(f"the codec's settings lack {missing}; found {sorted(settings)}")
    return {name: settings[name] for name in names}


def settings_from_folded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Our `CodecConfig` fields from an embedder's `dac_config`. It has no decoder: a mirror stands in."""
    rates = list(settings["downsampling_ratios"])
    width = settings["encoder_hidden_size"] * 2 ** len(rates)
    return {
        "sample_rate": settings["sampling_rate"],
        "encoder_dim": settings["encoder_hidden_size"],
        "encoder_rates": rates,
        "latent_dim": width,
        "codebook_dim": settings["codebook_dim"],
        "decoder_dim": width,
        "decoder_rates": rates[::-1],
    }


def watermark_settings(state: Mapping[str, Tensor], alpha: float = 0.25) -> dict[str, Any] | None:
    """Our `WatermarkConfig` fields read off the shapes of a translated state, None without a watermark.

    Published settings do not hold these sizes. Only `alpha` cannot be seen in a weight.
    """
    shapes = {name: tuple(t.shape) for name, t in take_prefix(state, "watermark.").items()}
    if not shapes:
        return None
    wanted = ("levels.0.down.weight", "stem.weight", "message.weight")
    if missing := [f"watermark.{name}" for name in wanted if name not in shapes]:
        raise ValueError(f"the watermark lacks {missing}; watermark=False loads the codec without it")
    levels = len({name.split(".")[1] for name in shapes if name.startswith("levels.")})
    return {
        # A kernel is two strides long.
        "rates": [shapes[f"levels.{i}.down.weight"][2] // 2 for i in range(levels)],
        "hidden": shapes["levels.0.down.weight"][0],
        "channels": shapes["stem.weight"][0],
        "latent_dim": shapes["message.weight"][1],
        "nbits": shapes["message.weight"][0] // 2,
        "lstm_layers": sum(name.startswith("lstm_in.lstm.weight_hh_l") for name in shapes),
        "alpha": alpha,
    }


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `model` as float32, and refuse any difference in names or shapes.

    Raises:
        ValueError: lists the names that are missing, left over or of another shape.
    """
    own = model.state_dict()
    problems: list[tuple[str, list[str]]] = [
        ("missing", sorted(set(own) - set(state))),
        ("left over", sorted(set(state) - set(own))),
        ("of another shape", [
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in sorted(set(own) & set(state))
            if own[name].shape != state[name].shape
        ]),
    ]  # fmt: skip
    if any(names for _, names in problems):
        told = "; ".join(f"{len(names)} {kind}: {', '.join(names)}" for kind, names in problems if names)
        raise ValueError(f"the weights in {source} do not fit the model. {told}")
    model.load_state_dict({name: t.to(torch.float32) for name, t in state.items()})
