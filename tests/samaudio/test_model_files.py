"""Model folders: what was saved comes back, and what is wrong is said."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import peav
import samaudio
from peav import checkpoints as parts
from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.config import PEAVConfig
from peav.errors import UserError
from peav.model import PEAV
from peav.transformer import TransformerConfig
from samaudio.checkpoints import load_model, save_model
from samaudio.mask import MaskConfig, MaskSeparator
from samaudio.model import MaskModel

CODEC = CodecConfig(
    sample_rate=8_000, stem_kernel=160, stem_stride=80, encoder_dim=80, encoder_rates=(), latent_dim=80,
    codebook_dim=32, decoder_dim=80, decoder_rates=(), final_tanh=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> MaskModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = lapped_init_(DACVAE(CODEC))
        tower = TransformerConfig(32, 1, 2, 64)
        embedder = PEAV(PEAVConfig(CODEC, tower, output_dim=16, log_input=True, normalise=True))
        embedder.use_codec(codec)
        sizes = MaskConfig(32, 16, width=16, dilations=(1, 2), attention_every=2, num_heads=2, hypotheses=2)
        return MaskModel(codec, embedder, MaskSeparator(sizes), {"presence_threshold": 0.25, "name": "tiny"}).eval()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(model, folder, dtype=torch.float16)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "tiny")


def test_a_model_comes_back(model, saved):
    again = load_model(saved)
    own, loaded = model.state_dict(), again.state_dict()
    assert own.keys() == loaded.keys()
    for name in own:
        assert loaded[name].dtype == own[name].dtype
        torch.testing.assert_close(loaded[name], own[name], rtol=1e-3, atol=1e-6)
    assert again.presence_threshold == 0.25 and again.settings["name"] == "tiny" and not again.training


def test_weights_are_safetensors_and_nothing_is_stored_twice(saved):
    files = sorted(p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file())
    assert files == [
        "codec/config.json", "codec/model.safetensors", "embedder/config.json", "embedder/model.safetensors",
        "separator/config.json", "separator/model.safetensors", "settings.json",
    ]  # fmt: skip
    assert not [name for name in load_file(saved / "embedder/model.safetensors") if name.startswith("codec.")]
    assert all(t.dtype == torch.float16 for t in load_file(saved / "separator/model.safetensors").values())


def test_it_separates(saved):
    separator = samaudio.load(saved, device="cpu")
    mixture = 0.1 * torch.randn(2, 30_000, generator=torch.Generator().manual_seed(0))
    results = separator.separate_many(
        mixture, [["dog", samaudio.Span(0.2, 0.6)], samaudio.Example(mixture, 11_025)], sample_rate=11_025, candidates=2
    )
    for result in results:
        assert (result.target + result.residual - mixture).abs().max() < 1e-6
        assert result.target.isfinite().all() and len(result.candidates) == 2
    again = separator.separate(mixture, ["dog", samaudio.Span(0.2, 0.6)], sample_rate=11_025, candidates=2)
    assert again.target.equal(results[0].target)
    one = separator.separate(mixture[:, :1], "dog", sample_rate=11_025)
    assert one.target.shape == (2, 1)


def test_the_embedder_opens_alone(saved, model):
    embedder = peav.load(saved)
    clip = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(embedder.embed(audio=[clip]), model.embedder.embed(audio=[clip]), rtol=0, atol=2e-2)


def test_an_embedder_folder_takes_its_codec_from_where_it_is_told(model, tmp_path):
    parts.save(model.embedder, tmp_path / "embedder")
    with pytest.raises(UserError, match="no codec beside"):
        parts.load(tmp_path / "embedder")
    model.codec.save_pretrained(tmp_path / "elsewhere")
    loaded = parts.load(tmp_path / "embedder", codec_folder=tmp_path / "elsewhere")
    assert loaded.codec.in_proj.weight.equal(model.embedder.codec.in_proj.weight)


def test_an_embedder_with_another_codec_keeps_it(model, tmp_path):
    other = PEAV(model.embedder.config)
    both = MaskModel(model.codec, other, model.separator, {})
    save_model(both, tmp_path / "both", dtype=torch.float32)
    again = load_model(tmp_path / "both")
    assert again.embedder.codec.in_proj.weight.equal(other.codec.in_proj.weight)
    assert again.codec.in_proj.weight.equal(model.codec.in_proj.weight)


@pytest.mark.parametrize("name", ["settings.json", "codec/config.json", "separator/model.safetensors"])
def test_missing_files_are_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"missing: {name}"):
        load_model(folder)


def test_damaged_weights_are_found(folder):
    path = folder / "separator/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="SHA-256"):
        load_model(folder)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda s: s.pop("no_query"), "1 missing: no_query"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 left over: extra"),
        (lambda s: s.update(no_query=torch.zeros(3)), r"1 of another size: no_query \[3\] for \[16\]"),
    ],
    ids=["missing", "left over", "size"],
)
def test_weights_that_do_not_fit_are_listed(folder, change, says):
    path = folder / "separator/model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"sha256": {}}))
    with pytest.raises(UserError, match=says):
        load_model(folder)


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("settings.json", "{", "cannot be read"),
        ("settings.json", "[]", "holds no settings"),
        ("settings.json", '{"format": "samaudio-mask", "version": 99}', "version 99"),
        ("separator/config.json", '{"format": "samaudio-mask-separator", "wat": 1}', "does not fit this version"),
        ("separator/config.json", '{"format": "other"}', "is not a samaudio-mask-separator"),
        ("codec/config.json", '{"format": "peav-codec", "wat": 1}', "codec cannot be loaded"),
    ],
)
def test_wrong_settings_are_explained(folder, name, text, says):
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=says):
        load_model(folder)


def test_pickles_are_never_opened(folder):
    path = folder / "separator/model.safetensors"
    torch.save({"no_query": torch.zeros(1)}, path)
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"sha256": {}}))
    with pytest.raises(UserError, match="is damaged"):
        load_model(folder)


def test_weights_too_large_for_the_file_are_refused(model, tmp_path):
    with torch.no_grad():
        model.separator.no_query[0] = 1e6
    try:
        with pytest.raises(ValueError, match="no_query reaches 1e\\+06"):
            save_model(model, tmp_path / "x")
        assert not (tmp_path / "x/settings.json").exists()
    finally:
        with torch.no_grad():
            model.separator.no_query[0] = 0.0


def test_large_weights_are_cut_into_pieces_that_belong_together(model, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PIECE_BYTES", 4_000)
    folder = tmp_path / "cut"
    save_model(model, folder)
    pieces = sorted((folder / "separator").glob("model*.safetensors"))
    assert len(pieces) > 2
    for piece in pieces:  # within the limit, unless a single tensor is larger than that
        held = load_file(piece)
        assert len(held) == 1 or sum(t.nbytes for t in held.values()) <= 4_000
    again = load_model(folder).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=1e-3, atol=1e-6)
    (folder / "separator" / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match="model-2.safetensors missing"):
        load_model(folder)
    monkeypatch.undo()
    save_model(model, folder)  # saving again leaves no stale piece behind
    assert len(list((folder / "separator").glob("model*.safetensors"))) == 1
