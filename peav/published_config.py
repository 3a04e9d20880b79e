"""Sizes of a published PE-AV or PE-A-Frame, from either layout of its ``config.json`` and its weights' shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from . import codec_keys
from .codec import CodecConfig
from .config import PEAVConfig
from .modernbert import ModernBertConfig
from .published_keys import PERCEPTION_MODELS, Kind
from .transformer import TransformerConfig
from .vision import VisionConfig

FIXED_FRAMES = 16  # images per clip of the models that take a fixed number

_TRANSFORMERS_TOWER = {
    "hidden_size": 1792,
    "intermediate_size": 4800,
    "num_hidden_layers": 6,
    "num_attention_heads": 14,
    "head_dim": 128,
}
_ORIGINAL_TOWER = {
    "hidden_size": 1024,
    "intermediate_size": 2752,
    "num_hidden_layers": 16,
    "num_attention_heads": 8,
}
_CODEC = {
    "sampling_rate": 48_000,
    "encoder_hidden_size": 64,
    "downsampling_ratios": [2, 8, 10, 12],
    "codebook_dim": 128,
}
# What no shape shows of the named vision towers: heads, trained grid, and whether there is a class token.
_VISION = {
    "l14-336": (16, 24, True),
    "b16-224": (12, 14, True),
    "s16-384": (6, 24, True),
    "t16-384": (3, 24, True),
    "g14-448": (16, 32, False),
}
_TIMM_NAMES = {
    "vit_pe_core_large_patch14_336": "l14-336",
    "vit_pe_core_base_patch16_224": "b16-224",
    "vit_pe_core_small_patch16_384": "s16-384",
    "vit_pe_core_tiny_patch16_384": "t16-384",
    "vit_pe_core_gigantic_patch14_448": "g14-448",
}


def from_published(
    settings: Mapping[str, Any],
    state: Mapping[str, Tensor],
    kind: Kind,
    *,
    processor: Mapping[str, Any] | None = None,
    text_after_norm: bool = False,
    video_frames: int | None = None,
) -> PEAVConfig:
    """Read a ``config.json``.

    Args:
        settings: its content.
        state: the weights under our names.
        kind: the layout of both.
        processor: content of ``processor_config.json``, which says how many images a clip has.
        text_after_norm: see `peav.load`.
        video_frames: images per clip where neither file says.

    Raises:
        KeyError, ValueError: a needed field or weight is missing, or sizes contradict each other.
    """
    original = kind.layout == PERCEPTION_MODELS
    read = _original if original else _transformers
    text_settings, layers, audio, video, fusion, codec = read(settings, kind)
    if original and layers is None:
        text_after_norm = True  # the original reads the last state after the norm when no layer is named
    vision = None if video is None else _vision(settings, state, original)
    tower = _original_tower if original else _transformers_tower
    return PEAVConfig(
        codec=_codec(codec, state),
        audio=tower(audio),
        text=ModernBertConfig.from_dict(text_settings, num_layers=layers, final_norm=text_after_norm),
        output_dim=state["audio_head.projection.weight"].shape[0],
        vision=vision,
        video=None if video is None else tower(video),
        audio_video=None if fusion is None else tower(fusion),
        video_frames=None if video is None else _video_frames(settings, processor or {}) or video_frames,
    )


def _transformers(settings: Mapping[str, Any], kind: Kind):
    """Text, text layers, audio, video, audio-video and codec settings of the transformers layout."""
    text = settings.get("text_config") or {}
    if kind.frame_level:
        audio = settings.get("audio_config") or {}
        return text, None, audio, None, None, audio.get("dac_config") or {}
    fusion = settings.get("audio_video_config") or {}
    audio, video = fusion.get("audio_config") or {}, fusion.get("video_config") or {}
    return text, None, audio, video, fusion, audio.get("dac_config") or {}


def _original(settings: Mapping[str, Any], kind: Kind):
    """The same of the perception_models layout."""
    text = {"num_hidden_layers": 28, **(settings.get("text_model") or {})}
    layers = settings.get("nth_text_layer", 22)
    if kind.frame_level:
        audio = settings.get("audio_model") or {}
        return text, layers, audio.get("audio_transformer") or {}, None, None, audio.get("dac_vae_encoder") or {}
    both = settings.get("audio_visual_model") or {}
    audio, visual = both.get("audio_model") or {}, both.get("visual_model") or {}
    return (
        text,
        layers,
        audio.get("audio_transformer") or {},
        visual.get("visual_transformer") or {},
        both.get("audio_visual_transformer") or {},
        audio.get("dac_vae_encoder") or {},
    )


def _transformers_tower(values: Mapping[str, Any]) -> TransformerConfig:
    given = _TRANSFORMERS_TOWER | {name: value for name, value in values.items() if value is not None}
    rope = given.get("rope_parameters") or given.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"rope_type {rope['rope_type']!r} is not supported")
    theta = rope.get("rope_theta") or given.get("rope_theta") or 20_000.0
    return _tower(given, theta, given["head_dim"])


def _original_tower(values: Mapping[str, Any]) -> TransformerConfig:
    given = _ORIGINAL_TOWER | {name: value for name, value in values.items() if value is not None}
    # The original derives theta from the length of its table and reads neither it nor head_dim.
    theta = max(10_000, 2 * given.get("max_position_embeddings", 10_000))
    return _tower(given, theta, None)


def _tower(given: Mapping[str, Any], theta: float, head_dim: int | None) -> TransformerConfig:
    if given.get("attention_bias"):
        raise ValueError("attention_bias is not supported")
    if given.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act {given['hidden_act']!r} is not supported, only 'silu'")
    return TransformerConfig(
        hidden_size=given["hidden_size"],
        num_layers=given["num_hidden_layers"],
        num_heads=given["num_attention_heads"],
        intermediate_size=given["intermediate_size"],
        head_dim=head_dim,
        num_key_value_heads=given.get("num_key_value_heads"),
        rope_theta=float(theta),
        norm_eps=given.get("rms_norm_eps", 1e-5),
    )


def _codec(values: Mapping[str, Any], state: Mapping[str, Tensor]) -> CodecConfig:
    given = _CODEC | {name: values[name] for name in _CODEC if values.get(name) is not None}
    made = codec_keys.settings_from_folded(given)
    # The original names this width `codebook_size`, transformers derives it: the weights cannot be wrong.
    made["latent_dim"] = state["audio.codec.in_proj.weight"].shape[1]
    made["codebook_dim"] = state["audio.data_proj.weight"].shape[1]
    return CodecConfig.from_dict(made)


def _vision(settings: Mapping[str, Any], state: Mapping[str, Tensor], original: bool) -> VisionConfig:
    weights = codec_keys.take_prefix(state, "video.vision.")
    if original:
        named = ((settings.get("audio_visual_model") or {}).get("visual_model") or {}).get("pe_encoder")
        args: Mapping[str, Any] = named if isinstance(named, Mapping) else {}
        name = "l14-336" if named is None else str(args.get("name", named)).lower().removeprefix("pe-core-")
        heads, _, _ = _VISION.get(name, (None, None, None))
        heads = args.get("heads", args.get("num_heads", heads))
        reference, offset = None, None
    else:
        video = (settings.get("audio_video_config") or {}).get("video_config") or {}
        vision = video.get("vision_config") or {}
        args = vision.get("model_args") or {}
        name = vision.get("architecture") or "vit_pe_core_large_patch14_336"
        heads, side, class_token = _VISION.get(_TIMM_NAMES.get(name.split(".")[0], ""), (None, None, True))
        heads = args.get("num_heads", heads)
        reference = _pair(args.get("ref_feat_shape", side))
        offset = args.get("rope_grid_offset", float(class_token))
    if heads is None:
        raise ValueError(f"unknown vision tower {name!r}; known: {sorted(_VISION if original else _TIMM_NAMES)}")
    grid = None
    if args.get("img_size") is not None:
        patch = weights["conv1.weight"].shape[2:]
        size = _pair(args["img_size"])
        assert size is not None
        grid = (size[0] // patch[0], size[1] // patch[1])
    return VisionConfig.from_state(
        weights,
        num_heads=heads,
        pool_heads=args.get("attn_pool_num_heads", 8),
        grid=grid,
        rope_theta=args.get("rope_temperature", 10_000.0),
        rope_offset=offset,
        rope_reference=reference,
    )


def _pair(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _video_frames(settings: Mapping[str, Any], processor: Mapping[str, Any]) -> int | None:
    visual = (settings.get("audio_visual_model") or {}).get("visual_model") or {}
    if visual.get("fixed_len_video"):
        return FIXED_FRAMES
    steps = processor.get("video_processor") or processor
    return steps.get("num_frames") or None
