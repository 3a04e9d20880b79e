"""`peav.load`: from a name to a model, and what is said when there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

import peav
from peav import checkpoints, hub
from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.config import PEAVConfig
from peav.errors import UserError
from peav.frame import PEAFrame
from peav.model import PEAV
from peav.transformer import TransformerConfig

FIXTURES = Path(__file__).parent.parent / "fixtures"
PUBLISHED = [f"facebook/pe-av-{size}{kind}" for size in ("small", "base", "large") for kind in ("", "-16-frame")]
PUBLISHED += [f"facebook/pe-a-frame-{size}" for size in ("small", "base", "large")]
CODEC = CodecConfig(
    sample_rate=8_000, stem_kernel=160, stem_stride=80, encoder_dim=80, encoder_rates=(), latent_dim=80,
    codebook_dim=80, decoder_dim=80, decoder_rates=(), final_tanh=False,
)  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """The hub, holding the fixtures under the published names; what it was asked for is remembered."""
    calls: list[dict] = []

    def snapshot(repo_id, *, revision=None, allow_patterns=None):
        calls.append({"repo": repo_id, "revision": revision, "allow": allow_patterns})
        return str(FIXTURES / ("pe_a_frame_model" if "frame-" in repo_id else "pe_av"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return calls


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A model of ours in a folder, with its codec beside it."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    codec = lapped_init_(DACVAE(CODEC))
    model = PEAV(PEAVConfig(CODEC, TransformerConfig(32, 1, 2, 64), 16, log_input=True, normalise=True, frames=True))
    model.use_codec(codec)
    codec.save_pretrained(folder / "codec")
    checkpoints.save(model, folder / "embedder", torch.float32)
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_name_is_fetched_from_the_hub(asked, name):
    model = peav.load(name, device="cpu")
    assert isinstance(model, PEAFrame if "a-frame" in name else PEAV)
    assert asked[0]["repo"] == name and asked[0]["revision"] is None
    assert "*.safetensors" in asked[0]["allow"] and "*.json" in asked[0]["allow"]


def test_a_model_of_16_frames_is_known_by_its_name_where_its_files_do_not_say(asked, tmp_path):
    assert peav.load("facebook/pe-av-small-16-frame", device="cpu").config.video_frames == 16
    assert peav.load("facebook/pe-av-small", device="cpu").config.video_frames is None
    folder = shutil.copytree(FIXTURES / "pe_av", tmp_path / "pe-av-small-16-frame")
    assert peav.load(folder, device="cpu").config.video_frames == 16
    processor = json.loads((folder / "processor_config.json").read_text())
    processor["video_processor"]["num_frames"] = 8
    (folder / "processor_config.json").write_text(json.dumps(processor))
    assert peav.load(folder, device="cpu").config.video_frames == 8


def test_a_revision_is_passed_on(asked):
    peav.load("facebook/pe-av-small", revision="perception_models", device="cpu")
    assert asked[0]["revision"] == "perception_models"


def test_nothing_is_fetched_for_a_folder(asked):
    peav.load(FIXTURES / "pe_av", device="cpu")
    peav.load(str(FIXTURES / "pe_av"), device="cpu")
    assert asked == []


def test_our_own_folder_is_recognised(small):
    model, same = peav.load(small, device="cpu"), peav.load(small / "embedder", device="cpu")
    assert isinstance(model, PEAV) and model.has_frames and model.modalities == {"audio", "text"}
    assert model.identity == same.identity


@pytest.mark.parametrize("dtype", ["half a float", "int8", torch.int64, "Tensor"])
def test_a_type_that_weights_cannot_have_is_named(small, dtype):
    with pytest.raises(UserError, match=f"dtype {dtype!r} is no type of weights; use float32"):
        peav.load(small, device="cpu", dtype=dtype)


def test_half_precision_is_close(small):
    clip = [torch.randn(8_000, generator=torch.Generator().manual_seed(0))]
    full, half = peav.load(small, device="cpu"), peav.load(small, device="cpu", dtype="bfloat16")
    assert half.audio.data_proj.weight.dtype == torch.bfloat16
    assert float((full.embed(audio=clip) * half.embed(audio=clip).float()).sum()) > 0.99
    published = peav.load(FIXTURES / "pe_av", device="cpu", dtype=torch.bfloat16)
    a = published.embed(audio=clip).float()
    b = peav.load(FIXTURES / "pe_av", device="cpu").embed(audio=clip)
    assert float(torch.cosine_similarity(a, b).min()) > 0.99
    assert published.identity != peav.load(FIXTURES / "pe_av", device="cpu").identity


def test_identity_is_of_the_weights_and_the_settings(small, tmp_path):
    model = peav.load(small, device="cpu")
    before = model.identity
    assert len(before) == 12 and before == peav.load(small, device="cpu").identity
    with torch.no_grad():
        model.audio.data_proj.weight[0, 0] += 1e-3
    assert model.identity != before
    other = tmp_path / "other"
    shutil.copytree(small, other)
    settings = json.loads((other / "embedder" / "config.json").read_text())
    (other / "embedder" / "config.json").write_text(json.dumps(settings | {"normalise": False}))
    assert peav.load(other, device="cpu").identity != before


def raising(error: Exception):
    def fetch(*_, **__):
        raise error

    return fetch


def response(status: int):
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.GatedRepoError("gated", response=response(403)), "on request only"),
        (errors.RepositoryNotFoundError("none", response=response(404)), "neither a folder here nor a public model"),
        (errors.RevisionNotFoundError("none", response=response(404)), "has no revision"),
        (errors.LocalEntryNotFoundError("offline"), "connect to the network, or give a folder"),
        (ConnectionError("no route to host"), "no route to host.*connect to the network"),
    ],
    ids=["gated", "unknown", "revision", "offline", "no_network"],
)
def test_what_the_hub_refuses_is_one_clear_line(monkeypatch, error, told):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(error))
    with pytest.raises(UserError, match=told) as found:
        peav.load("facebook/pe-av-small", revision="v9" if "revision" in told else None)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all", "a/b/c", "", "-/x", Path("facebook/x")])
def test_what_is_neither_folder_nor_hub_id_is_refused_without_asking(asked, name):
    with pytest.raises(UserError, match="no such folder"):
        peav.load(name)
    assert asked == []


def test_a_folder_has_no_revision():
    with pytest.raises(UserError, match="has no revision v2"):
        hub.resolve(FIXTURES / "pe_av", "v2")


def test_an_unknown_device_is_refused(small):
    with pytest.raises(UserError, match="device 'cuda:99' is not available"):
        peav.load(small, device="cuda:99")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": 1}, "unknown settings"),
        ({"output_dim": 0}, "must be at least 1"),
        ({"vision": {"width": 8}}, "does not fit"),
        ({"output_dim": 17}, "of another size"),
        ({"frames": False}, "left over"),
        ({"format": "other"}, "is not a peav model"),
    ],
    ids=["unknown", "impossible", "partial", "size", "left_over", "format"],
)
def test_settings_that_do_not_fit_are_named(small, tmp_path, change, told):
    shutil.copytree(small, tmp_path / "m")
    file = tmp_path / "m" / "embedder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=told):
        peav.load(tmp_path / "m", device="cpu")


def test_every_configuration_survives_json():
    for model in (peav.load(FIXTURES / "pe_av"), peav.load(FIXTURES / "pe_a_frame_model")):
        assert PEAVConfig.from_dict(json.loads(json.dumps(model.config.to_dict()))) == model.config
