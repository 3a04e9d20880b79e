"""Both layouts of the published files, shared weights under any name, and what is told of wrong ones."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from peav.errors import UserError
from peav.frame import PEAFrame
from peav.model import PEAV
from peav.published import load_published

FIXTURES = Path(__file__).parent.parent / "fixtures"
AV, FRAME = FIXTURES / "pe_av", FIXTURES / "pe_a_frame_model"
AV_IN, FRAME_IN = load_file(AV / "inputs.safetensors"), load_file(FRAME / "inputs.safetensors")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def av() -> PEAV:
    return load_published(AV)


@pytest.fixture(scope="module")
def frame() -> PEAFrame:
    return load_published(FRAME)


def far(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / max(1.0, float(want.abs().max())))


def arguments(batch: str) -> dict:
    """All inputs of a batch of the PE-AV fixture."""
    given = {"token_ids": AV_IN["input_ids"], "token_mask": AV_IN["attention_mask"]}
    given |= {"waveform": AV_IN[f"{batch}.input_values"], "video": AV_IN[f"{batch}.pixel_values_videos"]}
    if batch == "padded":
        given |= {"waveform_mask": AV_IN["padded.padding_mask"], "video_mask": AV_IN["padded.padding_mask_videos"]}
    return given


def original_name(name: str) -> str:
    """Name of a PE-AV weight in the layout of perception_models, without its prefix for towers."""
    heads = {
        "audio_model.audio_head": "audio_head",
        "video_model.video_head": "visual_head",
        "audio_video_head": "audio_visual_head",
        "audio_model.text_audio_head": "audio_text_head",
        "video_model.text_video_head": "visual_text_head",
        "text_audio_video_head": "audio_visual_text_head",
        "video_plus_text_head": "visual_plus_text_head",
    }
    for theirs, original in heads.items():
        if name.startswith(f"{theirs}."):
            return name.replace(theirs, original, 1)
    rules = [
        (r"audio_model\.audio_encoder\.embedder\.dac_encoder\.", "audio_model.dac_vae_encoder.encoder."),
        (r"audio_model\.audio_encoder\.embedder\.bottleneck\.", "audio_model.dac_vae_encoder.bottleneck.in_proj."),
        (r"audio_model\.audio_encoder\.embedder\.data_proj\.", "audio_model.data_proj."),
        (r"audio_model\.audio_encoder\.", "audio_model.audio_transformer."),
        (r"video_model\.video_encoder\.embedder\.vision_model\.timm_model\.", "visual_model.pe_encoder."),
        (r"video_model\.video_encoder\.embedder\.", "visual_model."),
        (r"video_model\.video_encoder\.", "visual_model.visual_transformer."),
        (r"audio_video_encoder\.embedder\.video_proj\.", "audio_visual_transformer.modality_aligner.conv."),
        (r"audio_video_encoder\.embedder\.video_norm\.", "audio_visual_transformer.modality_aligner.layer_norm."),
        (r"audio_video_encoder\.embedder\.", "audio_visual_transformer."),
        (r"audio_video_encoder\.", "audio_visual_transformer."),
    ]
    for pattern, replacement in rules:
        if re.match(pattern, name):
            name = "audio_visual_model." + re.sub(pattern, replacement, name, count=1)
            name = name.replace("patch_embedder.class_embedding", "embeddings.cls_token")
            return name.replace("patch_embedder.", "embeddings.")
    return name


def original_vision(state: dict) -> dict:
    """The timm tower under PE's names, written out independently of the code under test."""
    prefix = "audio_visual_model.visual_model.pe_encoder."
    out = {n: t for n, t in state.items() if not n.startswith(prefix)}
    timm = {n[len(prefix) :]: t for n, t in state.items() if n.startswith(prefix)}
    out |= {
        f"{prefix}conv1.weight": timm.pop("patch_embed.proj.weight"),
        f"{prefix}class_embedding": timm.pop("cls_token")[0, 0],
        f"{prefix}positional_embedding": timm.pop("pos_embed")[0],
        f"{prefix}proj": timm.pop("head.weight").T.contiguous(),
        f"{prefix}attn_pool.probe": timm.pop("attn_pool.latent"),
    }
    assert timm.pop("head.bias") is not None
    for part in ("weight", "bias"):
        both = torch.cat((timm.pop(f"attn_pool.q.{part}"), timm.pop(f"attn_pool.kv.{part}")))
        out[f"{prefix}attn_pool.attn.in_proj_{part}"] = both
    for name, tensor in timm.items():
        for theirs, original in (
            ("norm_pre.", "ln_pre."), ("norm1.", "ln_1."), ("norm2.", "ln_2."), ("attn.qkv.", "attn.in_proj_"),
            ("attn_pool.proj.", "attn_pool.attn.out_proj."), ("attn_pool.norm.", "attn_pool.layernorm."),
            ("attn.proj.", "attn.out_proj."), ("fc1.", "c_fc."), ("fc2.", "c_proj."),
            ("blocks.", "transformer.resblocks."),
        ):  # fmt: skip
            name = name.replace(theirs, original)
        out[prefix + re.sub(r"^norm\.", "ln_post.", name)] = tensor
    return out


def with_unused_parts(state: dict, codec: str, text_layers: int) -> dict:
    """The scale rows of the bottleneck, its way back, and text layers up to 28."""
    torch.manual_seed(0)
    for part in ("weight", "bias"):
        rows = state[f"{codec}bottleneck.in_proj.{part}"]
        state[f"{codec}bottleneck.in_proj.{part}"] = torch.cat((rows, torch.randn_like(rows)))
    state[f"{codec}bottleneck.out_proj.weight"] = torch.randn(4, 4, 1)
    last = f"text_model.layers.{text_layers - 1}."
    for name in [n for n in state if n.startswith(last)]:
        for layer in range(text_layers, 28):
            state[name.replace(last, f"text_model.layers.{layer}.")] = torch.randn_like(state[name])
    return state


def original_tower(values: dict) -> dict:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "rms_norm_eps", "max_position_embeddings")  # fmt: skip
    return {name: values[name] for name in names}


def original_codec(values: dict) -> dict:
    names = ("encoder_hidden_size", "downsampling_ratios", "codebook_dim", "sampling_rate", "codebook_size")
    return {name: values[name] for name in names}


def original_text(values: dict) -> dict:
    old = {"global_attn_every_n_layers": 3, "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}
    kept = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size", "local_attention")
    return {name: values[name] for name in kept} | old | {"num_hidden_layers": 28}


@pytest.fixture(scope="module")
def original_av(tmp_path_factory) -> Path:
    """The PE-AV fixture in the layout of perception_models."""
    folder = tmp_path_factory.mktemp("original") / "pe-av"
    shutil.copytree(AV, folder)
    settings = json.loads((AV / "config.json").read_text())
    both = settings["audio_video_config"]
    state = {original_name(n): t for n, t in load_file(AV / "model.safetensors").items() if "_logit_" not in n}
    state = with_unused_parts(
        original_vision(state), "audio_visual_model.audio_model.dac_vae_encoder.",
        settings["text_config"]["num_hidden_layers"],
    )  # fmt: skip
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "output_dim": 24,
        "nth_text_layer": settings["text_config"]["num_hidden_layers"],
        "text_model": original_text(settings["text_config"]),
        "audio_visual_model": {
            "audio_visual_transformer": original_tower(both),
            "audio_model": {
                "dac_vae_encoder": original_codec(both["audio_config"]["dac_config"]),
                "audio_transformer": original_tower(both["audio_config"]),
            },
            "visual_model": {
                "pe_encoder": {"name": "tiny", "heads": 4},
                "visual_transformer": original_tower(both["video_config"]),
                "fixed_len_video": True,
            },
        },
    }))  # fmt: skip
    return folder


def without_projection_bias(model: PEAV) -> PEAV:
    """PE has none; converted weights hold zeros, the random ones of the fixture do not."""
    model.video.vision.proj_bias.zero_()
    return model


def test_both_layouts_of_pe_av_are_the_same_model(original_av):
    original = load_published(original_av)
    assert isinstance(original, PEAV) and original.config.video_frames == 16
    ours = without_projection_bias(load_published(AV))
    given = arguments("padded")
    want, got = ours(**given), original(**given)
    for name in want.embeddings:
        assert far(got.embeddings[name], want.embeddings[name]) < 1e-6, name
    products = got.embeddings["audio"] @ got.embeddings["text_audio"].T
    assert torch.allclose(got.logits["text_audio"], products)  # no scales in that layout


def test_both_layouts_of_pe_a_frame_are_the_same_model(frame, tmp_path):
    shutil.copytree(FRAME, tmp_path / "original")
    settings = json.loads((FRAME / "config.json").read_text())
    renamed = {}
    for name, tensor in load_file(FRAME / "model.safetensors").items():
        name = name.replace("text_audio_head", "text_head").replace("text_audio_logit", "logit")
        if name.startswith("audio_encoder."):
            name = original_name(f"audio_model.{name}").removeprefix("audio_visual_model.")
        renamed[name] = tensor
    layers = settings["text_config"]["num_hidden_layers"]
    renamed = with_unused_parts(renamed, "audio_model.dac_vae_encoder.", layers)
    torch.save(renamed, tmp_path / "original" / "checkpoint.pt")
    (tmp_path / "original" / "model.safetensors").unlink()
    audio = settings["audio_config"]
    (tmp_path / "original" / "config.json").write_text(json.dumps({
        "nth_text_layer": layers,
        "text_model": original_text(settings["text_config"]),
        "audio_model": {
            "dac_vae_encoder": original_codec(audio["dac_config"]),
            "audio_transformer": original_tower(audio),
        },
    }))  # fmt: skip
    original = load_published(tmp_path / "original")
    assert isinstance(original, PEAFrame)
    given = (FRAME_IN["input_ids"], FRAME_IN["attention_mask"], FRAME_IN["full.input_values"])
    assert far(original(*given).logits, frame(*given).logits) < 1e-6


@pytest.mark.parametrize("alias", ["shared names instead", "shared names as well"])
def test_shared_weights_are_accepted_under_any_of_their_names(av, tmp_path, alias):
    aliases = {
        "text_model.": "video_model.text_model.",
        "audio_model.audio_encoder.": "audio_video_encoder.embedder.audio_encoder.",
        "video_model.video_encoder.": "audio_video_encoder.embedder.video_encoder.",
    }
    state = {}
    for name, tensor in load_file(AV / "model.safetensors").items():
        prefix = next((p for p in aliases if name.startswith(p)), None)
        if prefix is None or alias == "shared names as well":
            state[name] = tensor
        if prefix is not None:
            state[name.replace(prefix, aliases[prefix], 1)] = tensor.clone()
    folder = shutil.copytree(AV, tmp_path / "aliased")
    save_file(state, folder / "model.safetensors")
    given = arguments("full")
    want = av(**given).embeddings["audio_video"]
    assert torch.equal(load_published(folder)(**given).embeddings["audio_video"], want)


def change_weights(folder: Path, change) -> Path:
    state = load_file(FRAME / "model.safetensors")
    change(state)
    shutil.copytree(FRAME, folder)
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(("change", "told"), [
    pytest.param(lambda s: s.pop("audio_encoder.norm.weight"), r"1 missing: audio\.transformer\.norm", id="missing"),
    pytest.param(lambda s: s.update({"a.b": torch.ones(1)}), r"1 left over: a\.b", id="left over"),
    pytest.param(
        lambda s: s.update({"audio_encoder.output.weight": torch.ones(3, 3)}),
        r"1 of another size: audio_encoder\.output\.weight \[3, 3\] for \[32, 32\]", id="size",
    ),
    pytest.param(lambda s: (s.clear(), s.update(foo=torch.ones(1))), r"neither a PE-AV nor a PE-A-Frame", id="other"),
])  # fmt: skip
def test_wrong_weights_are_named(tmp_path, change, told):
    with pytest.raises(UserError, match=told):
        load_published(change_weights(tmp_path / "model", change))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, file):
    folder = shutil.copytree(FRAME, tmp_path / "model")
    (folder / file).unlink()
    with pytest.raises(UserError, match=re.escape(file)):
        load_published(folder)
    with pytest.raises(UserError, match="no such folder"):
        load_published(tmp_path / "nothing")


def test_damaged_weights_and_a_missing_tokenizer_are_told(tmp_path):
    folder = shutil.copytree(FRAME, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    model = load_published(folder)
    with pytest.raises(UserError, match="tokenizer.json missing"):
        model.spans([torch.zeros(100)], ["rain"])
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is damaged"):
        load_published(folder)


def test_a_config_of_another_size_is_told(tmp_path):
    folder = shutil.copytree(FRAME, tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    settings["audio_config"]["num_attention_heads"] = 3
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="do not fit|does not fit"):
        load_published(folder)
