"""Judges on disk: ours, published ones, and what is wrong with a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from judge_fakes import CODEC, FIXTURE, Ears, small, words
from safetensors.torch import load_file, save_file

import judge
import peav
from judge import checkpoints, published
from judge.model import JudgeModel
from peav.codec import DACVAE
from peav.errors import UserError


@pytest.fixture(autouse=True)
def embedders(monkeypatch) -> list:
    """What `peav.load` was asked for."""
    asked: list = []
    monkeypatch.setattr(peav, "load", lambda model=None, **rest: asked.append(model) or Ears())
    return asked


@pytest.fixture
def folder(tmp_path) -> Path:
    """The published layout, with its pickle of plain tensors."""
    copy = tmp_path / "published"
    shutil.copytree(FIXTURE, copy)
    torch.save(load_file(copy / "model.safetensors"), copy / "checkpoint.pt")
    return copy


def edit(path: Path, **changes) -> None:
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))


def same(one: JudgeModel, other: JudgeModel) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# -- published ----------------------------------------------------------------------------------------------------


def test_both_spellings_of_the_published_weights_load_alike(folder):
    from_safetensors = judge.load(folder, "cpu").network
    (folder / "model.safetensors").unlink()
    from_pickle = judge.load(str(folder), "cpu").network
    assert same(from_safetensors, from_pickle) and not from_pickle.training
    assert from_pickle.text_vectors(["rain"]).shape == (1, 24)


def test_a_published_judge_scores_and_does_not_reflect_its_batch(folder):
    network = judge.load(folder, "cpu").network
    clips = [torch.randn(length, generator=torch.Generator().manual_seed(0)) for length in (480, 333)]
    text = network.text_vectors(["church bells ringing", "rain"])
    together = network.judge(clips, clips, text)
    assert torch.allclose(together[1].scores, network.judge(clips[1:], clips[1:], text[1:])[0].scores, atol=1e-5)


def test_nothing_but_tensors_is_unpickled(folder):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (folder / "sprung",))

    (folder / "model.safetensors").unlink()
    torch.save({"mean": Trap()}, folder / "checkpoint.pt")
    with pytest.raises(UserError, match=r"checkpoint.pt: is damaged"):
        judge.load(folder, "cpu")
    assert not (folder / "sprung").exists()


def without(folder: Path, name: str) -> None:
    (folder / name).unlink()


def reweighed(folder: Path, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


BROKEN = {
    "no config": (lambda f: without(f, "config.json"), r"config.json: no such file"),
    "no weights": (
        lambda f: [without(f, name) for name in ("model.safetensors", "checkpoint.pt")],
        "model.safetensors missing",
    ),
    "cut weights": (lambda f: (f / "model.safetensors").write_bytes(b"cut"), "model.safetensors: is damaged"),
    "config is no json": (lambda f: (f / "config.json").write_text("{"), "config.json: cannot be read"),
    "another model": (lambda f: edit(f / "config.json", audio_codec=None), "is no judge"),
    "missing weight": (lambda f: reweighed(f, lambda s: s.pop("head.weight")), "1 missing: head.weight"),
    "missing half": (
        lambda f: reweighed(f, lambda s: s.pop("audio_codec.quantizer.in_proj.weight_v")),
        "quantizer.in_proj.weight_g has no",
    ),
    "left over": (lambda f: reweighed(f, lambda s: s.update(tail=torch.ones(1))), "1 left over: tail"),
    "another size": (lambda f: edit(f / "config.json", bottleneck_dim=21), r"of another size.*\[20"),
    "impossible size": (lambda f: edit(f / "config.json", bottleneck_dim=0), "does not fit this version"),
    "layers": (lambda f: edit(f / "config.json", nth_text_layer=9), "does not fit this version"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_published_folder_is_said(folder, kind):
    spoil, message = BROKEN[kind]
    spoil(folder)
    with pytest.raises(UserError, match=message):
        judge.load(folder, "cpu")


def test_a_missing_tokenizer_is_named_when_words_come(folder):
    without(folder, "tokenizer.json")
    network = judge.load(folder, "cpu").network
    with pytest.raises(UserError, match="tokenizer.json missing"):
        network.text_vectors(["rain"])


def test_sizes_that_a_config_leaves_out_are_the_published_ones():
    config = published.config_from_published({"audio_codec": {}, "finetune_transformer": {}})
    assert config.codec.hop_length == 1920 and config.codec.codebook_dim == 128
    assert (config.transformer.hidden_size, config.transformer.num_layers) == (1024, 16)
    assert config.transformer.rope_theta == 20_000 and config.bottleneck_dim == 256
    assert config.text.num_layers == 22 and not config.text.final_norm


# -- hub ----------------------------------------------------------------------------------------------------------


def test_a_hub_id_is_fetched_in_the_published_layouts_revision(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **rest: asked.append((name, rest["revision"])) or str(folder)
    )
    assert judge.load("facebook/sam-audio-judge", "cpu").network is not None
    judge.load("facebook/sam-audio-judge", "cpu", revision="main")
    judge.load("someone/their-judge", "cpu")
    assert asked == [
        ("facebook/sam-audio-judge", "sam_audio"), ("facebook/sam-audio-judge", "main"), ("someone/their-judge", None),
    ]  # fmt: skip


def test_without_a_network_connection_the_way_out_is_named(monkeypatch):
    def fail(*args, **kwargs):
        raise errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="connect to the network, or give a folder"):
        judge.load("facebook/sam-audio-judge", "cpu")
    with pytest.raises(UserError, match="no such folder"):
        judge.load("./nowhere", "cpu")


# -- ours ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ours(tmp_path) -> Path:
    """A small judge and its codec, as training leaves them."""
    torch.manual_seed(1)
    codec = DACVAE(CODEC)
    codec.save_pretrained(tmp_path / "model" / "codec", torch.float16)
    model = small()
    model.use_codec(DACVAE.from_pretrained(tmp_path / "model" / "codec"))
    checkpoints.save(model, tmp_path / "model" / "judge")
    return tmp_path / "model"


def test_a_judge_of_ours_is_read_as_it_was_written(ours):
    model = small()
    model.use_codec(DACVAE.from_pretrained(ours / "codec"))
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    found = judge.load(ours / "judge", "cpu").network
    assert same(found, model) and found.config == model.config
    clip = torch.randn(900)
    assert found.judge([clip], [clip], words(found, 1))[0].presence.shape == (1,)
    assert not any(name.startswith("codec.") for name in load_file(ours / "judge" / "model.safetensors"))


def test_a_whole_model_brings_its_own_embedder(ours, embedders):
    assert judge.load(ours, "cpu").network is not None
    (ours / "embedder").mkdir()
    (ours / "embedder" / "config.json").write_text("{}")
    judge.load(ours, "cpu")
    judge.load(ours, "cpu", embedder="other")
    assert embedders == [None, ours, "other"]


def test_a_judge_of_another_codec_is_refused(ours):
    torch.manual_seed(2)
    DACVAE(CODEC).save_pretrained(ours / "codec", torch.float16)
    with pytest.raises(UserError, match="was trained on another codec"):
        judge.load(ours / "judge", "cpu")


def test_unknown_settings_are_refused(ours):
    edit(ours / "judge" / "config.json", nose=True)
    with pytest.raises(UserError, match=r"unknown settings \['nose'\]"):
        judge.load(ours / "judge", "cpu")


def test_without_a_judge_in_the_package_there_is_similarity(tmp_path, monkeypatch, embedders):
    monkeypatch.setattr(checkpoints, "PACKAGED", tmp_path / "none")
    found = judge.load(device="cpu", weights=judge.RankWeights(recall=1.0))
    assert found.network is None and found.weights.recall == 1.0 and embedders == [None]


def test_an_embedder_is_no_judge(tmp_path):
    (tmp_path / "config.json").write_text('{"format": "peav"}')
    with pytest.raises(UserError, match="is no judge; an embedder"):
        judge.load(tmp_path, "cpu")
