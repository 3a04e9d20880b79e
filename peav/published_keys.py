"""Published names of PE-AV and PE-A-Frame weights, and what they are called here.

Two layouts are known, each for both models. They hold the same tensors:

* transformers: the hub's main revision. The vision tower has timm's names, the codec's bottleneck its mean rows
  only, and tensors that several parts share may stand under any of their names.
* perception_models: the original one. More text layers than are used, an unused half of the bottleneck, no scales
  for logits in PE-AV.

Nothing here builds a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import codec_keys
from .errors import UserError, shown

State = dict[str, Tensor]

TRANSFORMERS, PERCEPTION_MODELS = "transformers", "perception_models"

HEADS = (
    "audio_head",
    "video_head",
    "audio_video_head",
    "text_audio_head",
    "text_video_head",
    "text_audio_video_head",
    "audio_plus_text_head",
    "video_plus_text_head",
)
LOGITS = ("text_audio", "text_video", "audio_video", "text_audio_video", "audio_plus_text", "video_plus_text")


@dataclass(frozen=True)
class Kind:
    """What a file holds: its layout, and whether it is a PE-A-Frame (else a PE-AV)."""

    layout: str
    frame_level: bool


def kind_of(names: Iterable[str]) -> Kind:
    """Recognise a layout by its names.

    Raises:
        UserError: it is neither of the known ones.
    """
    names = list(names)
    signs = (
        ("audio_visual_model.", Kind(PERCEPTION_MODELS, False)),
        ("audio_model.dac_vae_encoder.", Kind(PERCEPTION_MODELS, True)),
        ("audio_video_encoder.", Kind(TRANSFORMERS, False)),
        ("audio_encoder.", Kind(TRANSFORMERS, True)),
    )
    for sign, kind in signs:
        if any(name.startswith(sign) for name in names):
            return kind
    found = ", ".join(sorted({name.split(".")[0] for name in names})[:6]) or "no weights at all"
    raise UserError(f"the weights are neither a PE-AV nor a PE-A-Frame: they hold {shown(found)}; check the folder")


def _tower(theirs: str, ours: str, embeddings: str) -> list[tuple[str, str]]:
    return [
        (f"{theirs}{embeddings}.", f"{ours}transformer.embeddings."),
        *((f"{theirs}{part}.", f"{ours}transformer.{part}.") for part in ("layers", "norm", "output")),
    ]


_ENCODER = "audio_model.audio_encoder."
_VIDEO = "video_model.video_encoder."
_FUSION = "audio_video_encoder."
_ORIGINAL = "audio_visual_model."

# First match wins. The names of shared parts come first, and are led to the part that holds the weights.
_SHARED = [
    ("audio_video_encoder.embedder.audio_encoder.", _ENCODER),
    ("audio_video_encoder.embedder.video_encoder.", _VIDEO),
    ("audio_model.text_model.", "text_model."),
    ("video_model.text_model.", "text_model."),
]
_FROM_TRANSFORMERS = [
    (f"{_ENCODER}embedder.dac_encoder.", "folded.dac_encoder."),
    (f"{_ENCODER}embedder.bottleneck.", "folded.bottleneck."),
    (f"{_ENCODER}embedder.data_proj.", "audio.data_proj."),
    (f"{_ENCODER}patch_embedder.class_embedding", "audio.transformer.embeddings.cls_token"),
    *_tower(_ENCODER, "audio.", "patch_embedder"),
    (f"{_VIDEO}embedder.vision_model.timm_model.", "timm."),
    (f"{_VIDEO}embedder.", "video."),
    (f"{_VIDEO}patch_embedder.class_embedding", "video.transformer.embeddings.cls_token"),
    *_tower(_VIDEO, "video.", "patch_embedder"),
    (f"{_FUSION}embedder.", "audio_video."),
    (f"{_FUSION}patch_embedder.class_embedding", "audio_video.transformer.embeddings.cls_token"),
    *_tower(_FUSION, "audio_video.", "patch_embedder"),
    ("audio_model.", ""),  # its heads and scalars
    ("video_model.", ""),
]
_FROM_ORIGINAL = [
    ("audio_model.dac_vae_encoder.bottleneck.out_proj.", None),
    ("audio_model.dac_vae_encoder.encoder.", "folded.dac_encoder."),
    ("audio_model.dac_vae_encoder.bottleneck.in_proj.", "folded.bottleneck."),
    ("audio_model.data_proj.", "audio.data_proj."),
    *_tower("audio_model.audio_transformer.", "audio.", "embeddings"),
    ("visual_model.pe_encoder.", "video.vision."),
    *_tower("visual_model.visual_transformer.", "video.", "embeddings"),
    ("visual_model.", "video."),
    ("audio_visual_transformer.modality_aligner.conv.", "audio_video.video_proj."),
    ("audio_visual_transformer.modality_aligner.layer_norm.", "audio_video.video_norm."),
    *_tower("audio_visual_transformer.", "audio_video.", "embeddings"),
    ("audio_visual_transformer.", "audio_video."),
]
_ORIGINAL_HEADS = {
    "visual_head": "video_head",
    "audio_visual_head": "audio_video_head",
    "audio_text_head": "text_audio_head",
    "visual_text_head": "text_video_head",
    "audio_visual_text_head": "text_audio_video_head",
    "visual_plus_text_head": "video_plus_text_head",
    "text_head": "text_audio_head",
    "logit_scale": "text_audio_logit_scale",
    "logit_bias": "text_audio_logit_bias",
}
# Tables that are computed here and that some files hold all the same.
_TABLES = re.compile(r"(^|\.)rotary_emb\.|\.timm_model\.rope\.|\.position_ids$")


def our_name(name: str, kind: Kind) -> str | None:
    """Our name of a published weight, None for one that is not needed.

    Names that begin with ``folded.`` or ``timm.`` belong to the codec and the vision tower and are still theirs.
    A name without a counterpart is kept, so that a strict loader reports it.
    """
    if _TABLES.search(name):
        return None
    if kind.layout == PERCEPTION_MODELS:
        name = name.removeprefix(_ORIGINAL)
        first, dot, rest = name.partition(".")
        name = _ORIGINAL_HEADS.get(first, first) + dot + rest
        table: list[tuple[str, str | None]] = [*_FROM_ORIGINAL]
    else:
        for alias, target in _SHARED:
            if name.startswith(alias):
                name = name.replace(alias, target, 1)
                break
        if kind.frame_level and name.startswith("audio_encoder."):
            name = f"audio_model.{name}"
        table = [*_FROM_TRANSFORMERS]
    for theirs, ours in table:
        if name.startswith(theirs):
            if ours is None:
                return None
            name = ours + name[len(theirs) :]
            break
    if name.partition(".")[0] in HEADS:
        name = name.replace(".proj.", ".projection.", 1)
    return name


def to_ours(state: Mapping[str, Tensor], kind: Kind) -> tuple[State, dict[str, str]]:
    """Weights under our names, and for each of them the name it had.

    Raises:
        UserError: two names of one shared tensor hold different numbers.
    """
    ours: State = {}
    origin: dict[str, str] = {}
    for theirs, tensor in state.items():
        name = our_name(theirs, kind)
        if name is None:
            continue
        if name in ours and not torch.equal(ours[name], tensor):
            raise UserError(f"the weights hold {origin[name]} and {theirs}, which should be equal and are not")
        ours[name], origin[name] = tensor, theirs
    for translate in (_codec, _vision):
        renamed = translate(ours)
        for new, old in renamed.items():
            # A split tensor has several origins; naming one of them is enough to find it.
            origin[new] = origin.get(old, old)
    return ours, origin


def _codec(state: State) -> dict[str, str]:
    """Replace the folded codec in place; our new names and the old ones."""
    folded = codec_keys.take_prefix(state, "folded.")
    for name in folded:
        del state[f"folded.{name}"]
    channels = state["audio.data_proj.weight"].shape[1] if "audio.data_proj.weight" in state else 0
    rates = len({m[1] for name in folded if (m := re.match(r"dac_encoder\.block\.(\d+)\.", name))})
    names: dict[str, str] = {}
    for name, tensor in folded.items():
        one = codec_keys.from_folded({name: tensor}, rates=rates, latent_channels=channels)
        for new, value in one.items():
            state[f"audio.codec.{new}"] = value
            names[f"audio.codec.{new}"] = f"folded.{name}"
    return names


_TIMM = [
    (r"patch_embed\.proj\.weight", "conv1.weight"),
    (r"cls_token", "class_embedding"),
    (r"pos_embed", "positional_embedding"),
    (r"norm_pre\.(.+)", r"ln_pre.\1"),
    (r"norm\.(.+)", r"ln_post.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(.+)", r"transformer.resblocks.\1.ln_\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", r"transformer.resblocks.\1.attn.in_proj_\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.+)", r"transformer.resblocks.\1.attn.out_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(.+)", r"transformer.resblocks.\1.mlp.c_fc.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(.+)", r"transformer.resblocks.\1.mlp.c_proj.\2"),
    (r"attn_pool\.latent", "attn_pool.probe"),
    (r"attn_pool\.proj\.(.+)", r"attn_pool.attn.out_proj.\1"),
    (r"attn_pool\.norm\.(.+)", r"attn_pool.layernorm.\1"),
    (r"attn_pool\.mlp\.fc1\.(.+)", r"attn_pool.mlp.c_fc.\1"),
    (r"attn_pool\.mlp\.fc2\.(.+)", r"attn_pool.mlp.c_proj.\1"),
    (r"head\.weight", "proj"),
    (r"head\.bias", "proj_bias"),
]


def from_timm(state: Mapping[str, Tensor]) -> State:
    """State of a `VisionTransformer` from timm's names.

    A name without a counterpart is kept, so that a strict loader reports it.
    """
    return {new: tensor for new, (_, tensor) in _from_timm(state).items()}


def _from_timm(state: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    found: dict[str, tuple[str, Tensor]] = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"attn_pool\.kv\.(weight|bias)", name):
            # Queries, keys and values are one tensor here.
            query = state.get(f"attn_pool.q.{match[1]}")
            if query is not None:
                found[f"attn_pool.attn.in_proj_{match[1]}"] = (name, torch.cat((query, tensor)))
            continue
        if re.fullmatch(r"attn_pool\.q\.(weight|bias)", name):
            continue
        new = name
        for pattern, replacement in _TIMM:
            if re.fullmatch(pattern, name):
                new = re.sub(pattern, replacement, name)
                break
        if new == "class_embedding":
            tensor = tensor.flatten()
        elif new == "positional_embedding":
            tensor = tensor.flatten(0, 1)
        elif new == "proj":
            tensor = tensor.T
        found[new] = (name, tensor)
    return found


def _vision(state: State) -> dict[str, str]:
    """Replace the timm tower in place; our new names and the old ones."""
    timm = codec_keys.take_prefix(state, "timm.")
    for name in timm:
        del state[f"timm.{name}"]
    names: dict[str, str] = {}
    for new, (old, tensor) in _from_timm(timm).items():
        state[f"video.vision.{new}"] = tensor
        names[f"video.vision.{new}"] = f"timm.{old}"
    return names
