"""The codec against the reference's numbers, and the properties that the reference lacks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from peav import codec_keys
from peav.codec import DACVAE, CodecConfig, DACEncoder, Posterior, WatermarkConfig, lapped_init_, pad_to_hop
from peav.watermark import Watermark

FIXTURE = Path(__file__).parent.parent / "fixtures" / "dac_vae"
INPUTS = load_file(FIXTURE / "inputs.safetensors")
WANTED = load_file(FIXTURE / "outputs.safetensors")

TINY = CodecConfig(
    sample_rate=8000,
    encoder_dim=4,
    encoder_rates=(3, 2, 5),
    latent_dim=8,
    codebook_dim=3,
    decoder_dim=16,
    decoder_rates=(5, 2, 3),
)
TINY_WATERMARK = WatermarkConfig(rates=(3, 2), hidden=8, channels=2, latent_dim=4, nbits=5, lstm_layers=1)
LAPPED = CodecConfig(
    sample_rate=8000,
    stem_kernel=48,
    stem_stride=24,
    stem_units=(1, 3),
    encoder_dim=24,
    encoder_rates=(),
    latent_dim=24,
    codebook_dim=24,
    decoder_dim=24,
    decoder_rates=(),
    final_tanh=False,
)


@pytest.fixture(autouse=True)
def _no_grad_and_seed():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def reference() -> DACVAE:
    return DACVAE.from_pretrained(FIXTURE)


@pytest.fixture
def codec() -> DACVAE:
    torch.manual_seed(1)
    return DACVAE(TINY).eval()


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max().clamp(min=1))


# --- the reference's numbers ----------------------------------------------------------------------


def answers(codec: DACVAE) -> dict[str, torch.Tensor]:
    """Every tensor of the fixture's outputs, computed by `codec`."""
    got = {}
    for case in ("exact", "ragged"):
        waveform = INPUTS[f"{case}.waveform"]
        posterior = codec.encode(waveform)
        got[f"{case}.encoder_out"] = codec.features(waveform)
        got[f"{case}.latent_mean"] = posterior.mean
        got[f"{case}.latent_scale"] = posterior.scale
        got[f"{case}.decoded"] = codec.decode(posterior.mean, message=INPUTS["message"])
        got[f"{case}.decoded_clean"] = codec.decode(posterior.mean)
        if case == "exact":
            got["exact.kl"] = posterior.kl()[None]
            got["exact.latent_sample"] = posterior.sample(eps=INPUTS["eps"])
    latent = INPUTS["latent"]
    got["latent.decoded"] = codec.decode(latent, message=INPUTS["message"])
    got["latent.decoded_clean"] = codec.decode(latent)
    got["latent.decoder_features"] = codec.decoder.trunk(codec.out_proj(latent))
    return got


@pytest.mark.parametrize("layout", ["safetensors", "pth"])
def test_every_number_of_the_reference_is_met(layout, tmp_path):
    names = {"safetensors": ("config.json", "model.safetensors"), "pth": ("weights.pth",)}[layout]
    for name in names:
        shutil.copy(FIXTURE / name, tmp_path)
    got = answers(DACVAE.from_pretrained(tmp_path))
    assert set(got) == set(WANTED)
    far = {name: d for name in WANTED if not (d := distance(got[name], WANTED[name])) < 2e-5}
    assert not far


def test_watermark_sizes_are_read_off_the_weights(reference):
    stated = json.loads((FIXTURE / "config.json").read_text())
    found = reference.config.watermark.to_dict()
    assert found == {name: stated[f"wm_{name}"] for name in found}


def test_encoder_alone_gives_the_same_latents():
    encoder = DACEncoder.from_pretrained(FIXTURE)
    assert not any(name.startswith(("decoder", "out_proj", "watermark")) for name in encoder.state_dict())
    assert distance(encoder.latents(INPUTS["ragged.waveform"]), WANTED["ragged.latent_mean"]) < 2e-5


@pytest.mark.parametrize("mean_only", [True, False], ids=["mean_rows", "mean_and_scale_rows"])
def test_folded_names_of_embedders_give_the_same_latents(reference, mean_only):
    unit = ("snake1", "conv1", "snake2", "conv2")
    table = {"block.0": "conv1", "block.4": "snake1", "block.5": "conv2"}
    for i in range(3):
        table |= {f"block.{i + 1}.block.3": f"block.{i}.snake1", f"block.{i + 1}.block.4": f"block.{i}.conv1"}
        for r in range(3):
            for j, part in enumerate(unit):
                table[f"block.{i + 1}.block.{r}.block.{j}"] = f"block.{i}.res_unit{r + 1}.{part}"
    own = reference.encoder.state_dict()
    folded = {f"dac_encoder.{table[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": t for k, t in own.items()}
    rows = 8 if mean_only else 16
    folded |= {f"bottleneck.{k}": t[:rows] for k, t in reference.in_proj.state_dict().items()}
    folded["data_proj.weight"] = torch.zeros(1)  # belongs to the embedder, not to the codec

    settings = {"downsampling_ratios": [2, 4, 4], "encoder_hidden_size": 4, "codebook_dim": 8,
                "sampling_rate": 48_000}  # fmt: skip
    encoder = DACEncoder(CodecConfig.from_dict(codec_keys.settings_from_folded(settings)))
    state = codec_keys.from_folded(folded, rates=3, latent_channels=8)
    codec_keys.load_strictly(encoder, state, "test")
    assert distance(encoder.latents(INPUTS["exact.waveform"]), WANTED["exact.latent_mean"]) < 2e-5


def test_published_sizes_are_the_defaults():
    config = CodecConfig()
    assert (config.hop_length, config.frame_rate) == (1920, 25.0)
    with torch.device("meta"):
        codec = DACVAE(CodecConfig(watermark=WatermarkConfig()))
    assert codec.watermark.hop_length == 320
    assert codec.decoder.head.weight.shape == (1, 96, 7)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, LAPPED], ids=["odd_strides", "strided_stem"])
@pytest.mark.parametrize("offset", ["1", "2", "hop-1", "hop", "hop+1", "3*hop+5"])
def test_frames_and_lengths_are_exact(config, offset):
    codec = DACVAE(config)
    hop = config.hop_length
    T = {"1": 1, "2": 2, "hop-1": hop - 1, "hop": hop, "hop+1": hop + 1, "3*hop+5": 3 * hop + 5}[offset]
    waveform = 0.1 * torch.randn(2, 1, T)
    latents = codec.latents(waveform)
    assert latents.shape == (2, config.codebook_dim, -(-T // hop))
    assert codec(waveform).waveform.shape == waveform.shape
    assert codec.decode(latents).shape[-1] == latents.shape[-1] * hop
    assert codec.decode(latents, length=T).shape[-1] == T


@pytest.mark.parametrize("T", [1, 2, 3, 7, 30, 31, 59])
def test_padding_is_numpys_reflection_for_any_length(T):
    clip = torch.randn(T)
    want = np.pad(clip.numpy(), (0, -T % 30), mode="reflect")
    assert torch.equal(pad_to_hop(clip, 30), torch.from_numpy(want))


def test_a_clip_does_not_depend_on_its_batch(codec):
    clips = [torch.randn(T) for T in (95, 31, 200, 33, 95)]
    together = codec.encode_clips(clips)
    for clip, latents in zip(clips, together, strict=True):
        alone = codec.latents(clip[None, None])[0]
        assert distance(latents, alone) < 1e-6


def test_latents_are_repeatable_and_samples_follow_their_generator(codec):
    waveform = torch.randn(1, 1, 90)
    assert torch.equal(codec.latents(waveform), codec.latents(waveform))
    posterior = codec.encode(waveform)
    assert torch.equal(posterior.mean, codec.latents(waveform))
    draws = [posterior.sample(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_forward_decodes_the_mean_unless_asked_to_sample(codec):
    waveform = torch.randn(1, 1, 90)
    first, second = codec(waveform), codec(waveform)
    assert torch.equal(first.waveform, second.waveform)
    assert torch.equal(first.latent, first.posterior.mean)
    drawn = codec(waveform, sample=True, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(drawn.waveform, first.waveform)


def test_a_standard_normal_has_no_divergence():
    unit = Posterior(torch.zeros(1, 3, 4), torch.full((1, 3, 4), float(np.log(np.expm1(1 - 1e-4)))))
    assert float(unit.kl()) == pytest.approx(0, abs=1e-6)
    assert float(Posterior(torch.ones(1, 3, 4), unit.scale).kl()) == pytest.approx(3, abs=1e-5)


# --- watermark ------------------------------------------------------------------------------------


def test_no_watermark_without_a_message(reference):
    latent = INPUTS["latent"]
    clean = DACVAE.from_pretrained(FIXTURE, watermark=False)
    assert clean.watermark is None
    assert torch.equal(reference.decode(latent), reference.decode(latent))
    assert torch.equal(reference.decode(latent), clean.decode(latent))


def test_the_message_changes_the_watermark(reference):
    latent, message = INPUTS["latent"], INPUTS["message"]
    marked = reference.decode(latent, message=message)
    assert torch.equal(marked, reference.decode(latent, message=message.bool()))
    flipped = message.clone()
    flipped[0, 5] = 1 - flipped[0, 5]
    other = reference.decode(latent, message=flipped)
    assert not torch.allclose(marked[0], other[0])
    assert distance(other[1], marked[1]) < 1e-6


def test_watermark_of_a_length_that_its_rates_do_not_divide():
    watermark = Watermark(TINY_WATERMARK)
    assert watermark(torch.randn(1, 1, 89), torch.ones(1, 5)).shape == (1, 1, 89)


@pytest.mark.parametrize(
    ("message", "told"),
    [(torch.ones(1, 16), r"give bits \[2, 16\]"), (torch.full((2, 16), 2.0), r"0 and 1, got \[2.0\]")],
    ids=["rows", "values"],
)
def test_a_bad_message_is_refused(reference, message, told):
    with pytest.raises(ValueError, match=told):
        reference.decode(INPUTS["latent"], message=message)


def test_a_message_needs_a_watermark(codec):
    with pytest.raises(ValueError, match="no watermark"):
        codec.decode(torch.randn(1, 3, 2), message=torch.ones(1, 16))


# --- lapped initialisation ------------------------------------------------------------------------


@pytest.mark.parametrize("std", [0.05, 1.0])
@pytest.mark.parametrize("gain", [1.0, 8.0])
def test_lapped_init_reconstructs_the_whole_clip(std, gain):
    codec = lapped_init_(DACVAE(LAPPED), std=std, gain=gain)
    waveform = 0.1 * torch.randn(2, 1, 24 * 9 + 7)
    out = codec(waveform)
    error = (out.waveform - waveform).abs()
    assert float(error.norm() / waveform.norm()) < 1e-3
    # Edges included: the first and last hop are no worse than the middle.
    assert float(error[..., :24].max()) < 2e-4
    assert float(error[..., -24:].max()) < 2e-4
    assert torch.allclose(out.posterior.std, torch.tensor(std), atol=1e-5)
    # Orthonormal: the latents have the energy of the padded waveform, times the gain.
    energy = pad_to_hop(waveform, 24).square().sum(dim=(1, 2))
    assert torch.allclose(out.latent.square().sum(dim=(1, 2)), gain**2 * energy, rtol=0.1)


def test_lapped_init_keeps_low_frequencies_first():
    config = CodecConfig.from_dict(LAPPED.to_dict() | {"codebook_dim": 12})
    codec = lapped_init_(DACVAE(config))
    time = torch.arange(24 * 40) / 8000
    errors = {}
    for hertz in (500, 3500):  # half of the 24 bands reach 2000 Hz
        tone = 0.1 * torch.sin(2 * torch.pi * hertz * time)[None, None]
        errors[hertz] = float((codec(tone).waveform - tone)[..., 48:-48].norm() / tone[..., 48:-48].norm())
    assert errors[500] < 0.05
    assert errors[3500] > 0.95


def test_every_weight_of_a_lapped_codec_but_the_resting_ones_learns():
    codec = lapped_init_(DACVAE(LAPPED))
    with torch.enable_grad():
        out = codec(0.1 * torch.randn(2, 1, 24 * 6), sample=True)
        (out.waveform.square().mean() + out.posterior.kl()).backward()
    still = {name for name, p in codec.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # Everything in a residual unit but its last layer waits for that layer's first step away from zero.
    assert all(re.search(r"\.block\.[0-2]\.\w+$", name) for name in still), still


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"final_tanh": True}, "final_tanh=True"),
        ({"latent_dim": 25}, r"latent_dim=25 \(needs 24\)"),
        ({"codebook_dim": 25}, r"codebook_dim=25 \(at most 24\)"),
        ({"stem_kernel": 24}, r"stem_kernel=24 \(needs 48\)"),
        ({"encoder_rates": (2,), "decoder_rates": (2,)}, r"encoder_rates=\(2,\)"),
    ],
    ids=["tanh", "width", "bands", "kernel", "rates"],
)
def test_lapped_init_says_what_does_not_fit(change, told):
    config = CodecConfig.from_dict(LAPPED.to_dict() | change)
    with pytest.raises(ValueError, match=told):
        lapped_init_(DACVAE(config))


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, torch.float16], ids=["float32", "float16"])
def test_what_is_saved_is_loaded(codec, dtype, tmp_path):
    codec.save_pretrained(tmp_path / "codec", dtype=dtype)
    assert {path.name for path in (tmp_path / "codec").iterdir()} == {"config.json", "model.safetensors"}
    again = DACVAE.from_pretrained(tmp_path / "codec")
    assert again.config == codec.config
    stored = load_file(tmp_path / "codec" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {dtype or torch.float32}
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    waveform = 0.1 * torch.randn(1, 1, 100)
    tolerance = 1e-7 if dtype is None else 1e-2
    assert distance(again(waveform).waveform, codec(waveform).waveform) < tolerance


def test_a_watermark_survives_saving_and_can_be_left_out(reference, tmp_path):
    reference.save_pretrained(tmp_path)
    again = DACVAE.from_pretrained(tmp_path)
    decoded = again.decode(INPUTS["latent"], message=INPUTS["message"])
    assert distance(decoded, WANTED["latent.decoded"]) < 2e-5
    assert DACVAE.from_pretrained(tmp_path, watermark=False).config.watermark is None


def test_an_encoder_loads_from_a_whole_codec_and_from_its_own_file(codec, tmp_path):
    codec.save_pretrained(tmp_path / "whole")
    encoder = DACEncoder.from_pretrained(tmp_path / "whole")
    encoder.save_pretrained(tmp_path / "half")
    waveform = torch.randn(1, 1, 70)
    for found in (encoder, DACEncoder.from_pretrained(tmp_path / "half")):
        assert distance(found.latents(waveform), codec.latents(waveform)) < 1e-6
    with pytest.raises(ValueError, match="missing: .*out_proj.bias"):
        DACVAE.from_pretrained(tmp_path / "half")


def test_wrong_names_and_shapes_are_listed(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["encoder.extra"] = state.pop("out_proj.bias")
    state["in_proj.bias"] = torch.zeros(5)
    save_file(state, tmp_path / "model.safetensors")
    told = (r"1 missing: out_proj\.bias; 1 left over: encoder\.extra; "
            r"1 of another shape: in_proj\.bias \(5,\) instead of \(6,\)")  # fmt: skip
    with pytest.raises(ValueError, match=told):
        DACVAE.from_pretrained(tmp_path)


def test_a_folder_without_a_codec_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no codec in .*weights\.pth"):
        DACVAE.from_pretrained(tmp_path)


def test_weights_too_large_for_half_precision_are_refused(codec, tmp_path):
    codec.out_proj.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"out_proj\.bias reaches 1e\+06"):
        codec.save_pretrained(tmp_path, dtype=torch.float16)
    assert not list(tmp_path.iterdir())


# --- settings and mistakes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [TINY, LAPPED, CodecConfig(watermark=WatermarkConfig())], ids=["tiny", "lapped", "published"]
)
def test_settings_survive_json(config):
    assert CodecConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encoder_rates": (2, 4)}, "divide time by 8.*multiply it by 30"),
        ({"encoder_rates": (1, 30)}, r"encoder_rates=\(1, 30\) must all be 2"),
        ({"decoder_dim": 12}, "decoder_dim=12 is halved 3 times"),
        ({"codebook_dim": 0}, "codebook_dim=0"),
        ({"stem_kernel": 8}, "stem_kernel=8 must be odd"),
        ({"stem_stride": 4, "stem_kernel": 7}, "stem_kernel=7 must exceed stem_stride=4"),
        ({"stem_units": (0,)}, r"stem_units=\(0,\)"),
        ({"hop": 3}, r"unknown codec settings \['hop'\]"),
        ({"watermark": TINY_WATERMARK.to_dict() | {"hidden": 9}}, "hidden=9 must be channels=2 doubled"),
        ({"watermark": {"bits": 9}}, r"unknown watermark settings \['bits'\]"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_impossible_settings_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        CodecConfig.from_dict(TINY.to_dict() | change)


def test_wrong_inputs_are_refused(codec):
    with pytest.raises(ValueError, match="at least one sample"):
        codec.latents(torch.zeros(1, 1, 0))
    with pytest.raises(ValueError, match=r"\(1, 2, 90\); give mono clips"):
        codec.latents(torch.zeros(1, 2, 90))
    with pytest.raises(ValueError, match=r"clip 1 has shape \(1, 90\)"):
        codec.encode_clips([torch.zeros(90), torch.zeros(1, 90)])
    with pytest.raises(ValueError, match=r"decodes \[B, 3, F\]"):
        codec.decode(torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match="length=61 samples, but 2 frames hold 1 to 60"):
        codec.decode(torch.zeros(1, 3, 2), length=61)


def test_building_a_codec_leaves_the_warning_filters_alone():
    before = list(warnings.filters)
    DACVAE(TINY)
    assert list(warnings.filters) == before


def test_importing_the_codec_does_not_import_its_heavy_parts():
    code = "import sys, peav.codec; sys.exit('dac' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FIXTURE.parents[2]).returncode == 0
