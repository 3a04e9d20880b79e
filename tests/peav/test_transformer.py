"""The tower against published numbers, and the properties that keep a clip independent of its batch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peav import codec_keys
from peav.codec import CodecConfig, DACEncoder
from peav.model import Head
from peav.transformer import (
    Attention,
    MaskedGroupNorm,
    RMSNorm,
    TemporalTransformer,
    TransformerConfig,
    rotary_angles,
    rotate_interleaved,
)

FIXTURES = Path(__file__).parent.parent / "fixtures"
TINY = TransformerConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24)


@pytest.fixture(autouse=True)
def _no_grad_and_seed():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Every weight away from its special starting value (ones, zeros)."""
    for parameter in module.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


@pytest.fixture
def tower() -> TemporalTransformer:
    return randomised(TemporalTransformer(TINY))


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max().clamp(min=1))


# --- published numbers ----------------------------------------------------------------------------


def published(name: str):
    """Weights, inputs, outputs and settings of a fixture."""
    folder = FIXTURES / name
    tensors = (load_file(folder / f"{part}.safetensors") for part in ("model", "inputs", "outputs"))
    return *tensors, json.loads((folder / "config.json").read_text())


def tower_from(sizes: dict, state: dict) -> TemporalTransformer:
    rope = sizes.get("rope_parameters", {"rope_theta": 20_000})
    model = TemporalTransformer(TransformerConfig(
        sizes["hidden_size"], sizes["num_hidden_layers"], sizes["num_attention_heads"], sizes["intermediate_size"],
        sizes.get("head_dim"), sizes.get("num_key_value_heads"), rope["rope_theta"],
        sizes.get("rms_norm_eps", 1e-5)))  # fmt: skip
    own = {"class_embedding": "embeddings.cls_token"}
    state = {own.get(k.removeprefix("patch_embedder."), k.replace("patch_embedder.", "embeddings.")): v
             for k, v in state.items()}  # fmt: skip
    codec_keys.load_strictly(model, state, "fixture")
    return model.eval()


def embedder(name: str):
    """Codec, projection, tower and head of a published audio tower, as one function of waveform and mask."""
    state, inputs, wanted, config = published(name)
    sizes = config["audio_config"]
    codec = DACEncoder(CodecConfig.from_dict(codec_keys.settings_from_folded(sizes["dac_config"])))
    inside = codec_keys.take_prefix(state, "audio_encoder.embedder.")
    rates = len(sizes["dac_config"]["downsampling_ratios"])
    codec_keys.load_strictly(
        codec, codec_keys.from_folded(inside, rates=rates, latent_channels=codec.config.codebook_dim), name)
    width = sizes["hidden_size"]
    project = torch.nn.Linear(codec.config.codebook_dim, width)
    project.load_state_dict(codec_keys.take_prefix(inside, "data_proj."))
    tower = tower_from(sizes, {k: v for k, v in codec_keys.take_prefix(state, "audio_encoder.").items()
                               if not k.startswith("embedder.")})  # fmt: skip
    head = Head(width, state["audio_head.proj.weight"].shape[0])
    head.load_state_dict({"projection.weight": state["audio_head.proj.weight"],
                          "layer_norm.weight": state["audio_head.layer_norm.weight"],
                          "layer_norm.bias": state["audio_head.layer_norm.bias"]})  # fmt: skip

    def run(case: str):
        latent = codec.latents(inputs[f"{case}.input_values"]).transpose(1, 2)
        samples = inputs.get(f"{case}.padding_mask")
        mask = None if samples is None else samples[:, :: codec.hop_length].bool()
        return latent, mask, tower(project(latent), mask), head

    return run, wanted


@pytest.mark.parametrize("case", ["full", "padded"])
@pytest.mark.parametrize("name", ["pe_a_frame", "pe_av_audio"])
def test_audio_towers_give_the_published_numbers(name, case):
    run, wanted = embedder(name)
    latent, mask, out, head = run(case)
    if case == "full":
        assert distance(latent, wanted["debug.full.codec_features"]) < 1e-4
    else:
        assert not mask.all()  # otherwise this case would test nothing new
    valid = torch.ones(out.frames.shape[:2], dtype=torch.bool) if mask is None else mask
    assert distance(out.pooled, wanted[f"{case}.audio_pooler_output"]) < 1e-4
    assert distance(out.frames[valid], wanted[f"{case}.audio_last_hidden_state"][valid]) < 1e-4
    embeds = wanted[f"{case}.audio_embeds"]
    if embeds.dim() == 3:
        assert distance(head(out.frames)[valid], embeds[valid]) < 1e-4
    else:
        assert distance(head(out.pooled), embeds) < 1e-4


@pytest.mark.parametrize("case", ["full", "ragged"])
def test_the_first_transformer_of_the_judge_gives_the_published_numbers(case):
    state, inputs, wanted, config = published("judge_audio")
    sizes = CodecConfig.from_dict(codec_keys.settings_from_dacvae(config["audio_codec"]))
    codec = DACEncoder(sizes)
    own = codec_keys.from_dacvae(codec_keys.take_prefix(state, "audio_codec."))
    codec_keys.load_strictly(codec, codec_keys.encoder_part(own, sizes.codebook_dim), "judge")
    latent = codec.latents(torch.cat((inputs[f"{case}.input_values"], inputs[f"{case}.separated_values"])))
    assert distance(latent, wanted[f"debug.{case}.codec_features"]) < 1e-4
    project = torch.nn.Linear(sizes.codebook_dim, config["transformer"]["hidden_size"])
    project.load_state_dict(codec_keys.take_prefix(state, "data_proj."))
    tower = tower_from(config["transformer"], codec_keys.take_prefix(state, "transformer."))
    assert distance(tower(project(latent.transpose(1, 2))).frames, wanted[f"debug.{case}.audio_hidden"]) < 1e-4


# --- padding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 5, 8])
def test_padding_does_not_reach_the_valid_frames(tower, length):
    x = torch.randn(2, 9, 16)
    alone = tower(x[:1, :length])
    x[0, length:] = 1e3  # whatever stands in the padding
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, length:] = False
    padded = tower(x, mask)
    torch.testing.assert_close(padded.frames[:1, :length], alone.frames, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.pooled[:1], alone.pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.frames[1:], tower(x[1:]).frames, rtol=1e-4, atol=1e-5)


def test_without_the_mask_padding_would_be_heard(tower):
    x = torch.randn(1, 9, 16)
    longer = torch.cat((x, torch.zeros(1, 4, 16)), dim=1)
    assert (tower(longer).pooled - tower(x).pooled).abs().max() > 1e-2


def test_the_class_token_counts_with_padding_on_the_left(tower):
    x = torch.randn(1, 6, 16)
    mask = torch.tensor([[False, False, False, False, True, True]])
    again = x.clone()
    again[:, :4] = 50
    first, second = tower(x, mask), tower(again, mask)
    torch.testing.assert_close(first.pooled, second.pooled, rtol=1e-4, atol=1e-5)
    _, extended = tower.embeddings(x, mask)
    assert extended.tolist() == [[True, False, False, False, False, True, True]]


def test_padding_alone_leaves_the_class_token_by_itself(tower):
    alone = tower(torch.zeros(1, 0, 16)).pooled
    padded = tower(torch.randn(1, 5, 16), torch.zeros(1, 5, dtype=torch.bool)).pooled
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_masked_group_norm_of_all_valid_frames_is_the_ordinary_one():
    norm = randomised(MaskedGroupNorm(1, 6, eps=1e-5))
    x = 3 + 2 * torch.randn(2, 6, 7)
    torch.testing.assert_close(norm(x, torch.ones(2, 7, dtype=torch.bool)), norm(x), rtol=1e-5, atol=1e-5)


def test_masked_group_norm_is_silent_in_the_padding():
    mask = torch.tensor([[True, True, False]])
    assert randomised(MaskedGroupNorm(1, 4))(torch.randn(1, 4, 3), mask)[..., 2].abs().max() == 0


# --- position -------------------------------------------------------------------------------------


def test_rotation_of_a_known_pair():
    # A quarter turn takes (1, 0) to (0, 1); the second pair, turned by half, changes sign.
    x = torch.tensor([1.0, 0.0, 2.0, 3.0]).view(1, 1, 1, 4)
    turned = rotate_interleaved(x, torch.tensor([[math.pi / 2, math.pi]]))
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.0, 1.0, -2.0, -3.0]), atol=1e-6, rtol=0)


def test_angles_are_position_times_frequency():
    angles = rotary_angles(4, 4, 100.0)
    torch.testing.assert_close(angles, torch.tensor([[0.0, 0.0], [1.0, 0.1], [2.0, 0.2], [3.0, 0.3]]))


@pytest.mark.parametrize("position", [1, 300, 12_000], ids=["start", "middle", "beyond_10000"])
def test_only_the_distance_of_two_frames_counts(position):
    q, k = torch.randn(2, 8)
    angles = rotary_angles(position + 8, 8, 20_000.0)

    def product(at: int) -> float:
        a = rotate_interleaved(q.view(1, 1, 1, 8), angles[at : at + 1])
        b = rotate_interleaved(k.view(1, 1, 1, 8), angles[at + 7 : at + 8])
        return float((a * b).sum())

    # float32 angles of some thousand radians are off by a thousandth
    assert product(position) == pytest.approx(product(0), abs=1e-2)


def test_no_length_is_too_long():
    tower = randomised(TemporalTransformer(TransformerConfig(4, 1, 1, 4)))
    out = tower(torch.randn(1, 10_050, 4))
    assert out.frames.shape == (1, 10_050, 4) and bool(out.frames.isfinite().all())
    assert float(out.frames[0, 10_010:].std(0).min()) > 1e-3  # and late frames still differ from one another


def test_the_order_of_frames_matters(tower):
    x = torch.randn(1, 8, 16)
    assert (tower(x).pooled - tower(x.flip(1)).pooled).abs().max() > 1e-2


# --- heads and sizes ------------------------------------------------------------------------------


def test_grouped_heads_are_full_heads_with_repeated_keys_and_values():
    few = randomised(Attention(TransformerConfig(16, 1, 4, 8, num_key_value_heads=2)))
    full = Attention(TransformerConfig(16, 1, 4, 8)).eval()
    state = dict(few.state_dict())
    for name in ("k_proj.weight", "v_proj.weight"):
        state[name] = state[name].view(2, 4, 16).repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict(state)
    x, angles = torch.randn(2, 5, 16), rotary_angles(5, 4, 20_000.0)
    torch.testing.assert_close(few(x, angles), full(x, angles))


def test_head_width_may_differ_from_its_share_of_the_width():
    config = TransformerConfig(12, 1, 2, 8, head_dim=10)
    assert Attention(config).q_proj.weight.shape == (20, 12)
    assert TemporalTransformer(config)(torch.randn(1, 3, 12)).frames.shape == (1, 3, 12)


def test_rms_norm_of_a_known_vector():
    # The root mean square of (3, 4) is sqrt(12.5).
    got = RMSNorm(2, eps=0.0)(torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(got, torch.tensor([3.0, 4.0]) / math.sqrt(12.5))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 10, "num_heads": 4}, "hidden_size 10 is not a multiple of num_heads 4"),
        ({"hidden_size": 12, "num_heads": 4}, "head_dim 3 must be even"),
        ({"hidden_size": 12, "num_heads": 2, "head_dim": 5}, "head_dim 5 must be even"),
        ({"hidden_size": 16, "num_heads": 4, "num_key_value_heads": 3},
         "num_heads 4 is not a multiple of num_key_value_heads 3"),
    ],
    ids=["width", "odd_head", "odd_stated_head", "groups"],
)  # fmt: skip
def test_impossible_heads_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(num_layers=1, intermediate_size=8, **sizes)
