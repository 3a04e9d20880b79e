"""Collections on disk, the grid of pairs, the loss, and the whole script on synthesised sounds."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from judge import checkpoints, collection
from judge import train as train_judge
from judge.collection import Collection, Example
from judge.grid import Grid, Words, judge_grid
from judge.model import JudgeConfig, JudgeModel
from judge.scenes import Recipe, Scenes, settings_of
from judge.targets import measure
from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.errors import UserError
from peav.transformer import TransformerConfig

RATE = 8_000
CODEC = CodecConfig(
    sample_rate=RATE, stem_kernel=320, stem_stride=160, encoder_dim=160, encoder_rates=(), latent_dim=160,
    codebook_dim=160, decoder_dim=160, decoder_rates=(), final_tanh=False)  # fmt: skip


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("codec")
    lapped_init_(DACVAE(CODEC)).save_pretrained(folder, torch.float16)
    return folder


@pytest.fixture(scope="module")
def scenes(store) -> Scenes:
    return Scenes(store, Recipe(seconds=0.5, outputs=4), seed=1)


@pytest.fixture(scope="module")
def made(scenes, tmp_path_factory) -> Collection:
    folder = tmp_path_factory.mktemp("collection") / "known"
    collection.write(folder, settings_of(scenes), scenes.__getitem__, 7, shard=3)
    return Collection(folder)


def small(**changes) -> JudgeModel:
    tower = TransformerConfig(32, 1, 2, 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = JudgeConfig(CODEC, tower, tower, bottleneck_dim=16, log_input=True, **changes)
        model = JudgeModel(config)
        model.use_codec(lapped_init_(DACVAE(CODEC)))
    return model.eval()


# --- collections ----------------------------------------------------------------------------------


def test_a_collection_gives_back_what_was_written(scenes, made):
    assert len(made) == 7 and made.sample_rate == RATE and (made.outputs, made.questions, made.length) == (4, 3, 4_000)
    for i in (0, 4, 6):
        one, item = scenes[i], made[i]
        assert item.example.questions == one.questions and item.example.kinds == one.kinds and item.example.of == one.of
        for name in ("mixture", "outputs", "stems"):
            torch.testing.assert_close(getattr(item.example, name), getattr(one, name), rtol=0, atol=3e-5)
        found = measure(one.outputs, one.stems[0], one.mixture, RATE)
        torch.testing.assert_close(item.scores[0], found.scores, rtol=0, atol=2e-3, equal_nan=True)
        torch.testing.assert_close(item.blocks[0], found.blocks, rtol=0, atol=2e-3, equal_nan=True)
        torch.testing.assert_close(item.si_sdr[0], found.si_sdr, rtol=0, atol=1e-3)
        assert bool(item.si_sdr[2].isnan().all())  # that question is about an absent sound


def test_an_interrupted_collection_goes_on_where_it_stopped(scenes, tmp_path):
    made: list[int] = []

    def make(i: int) -> Example:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(i)
        return scenes[i]

    settings = settings_of(scenes)
    with pytest.raises(KeyboardInterrupt):
        collection.write(tmp_path, settings, make, 8, shard=4)
    assert made == [0, 1, 2, 3, 4] and len(Collection(tmp_path)) == 4
    made.clear()
    collection.write(tmp_path, settings, make, 8, shard=4)
    assert made == [4, 5, 6, 7] and len(Collection(tmp_path)) == 8
    assert not list(tmp_path.glob("*partial*"))


def test_two_kinds_of_collection_do_not_mix(scenes, made):
    with pytest.raises(UserError, match=r"made otherwise \(seed\)"):
        collection.write(made.folder, settings_of(scenes) | {"seed": 2}, scenes.__getitem__, 7, shard=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [(None, "is no collection"), ({"format": "judge-collection", "targets": 0}, "another version"),
     ({"format": "judge-collection", "targets": 1, "sample_rate": 8_000}, "is empty")],
    ids=["nothing", "old", "empty"],
)  # fmt: skip
def test_what_is_no_collection_is_refused(tmp_path, settings, message):
    if settings:
        (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=message):
        Collection(tmp_path)


# --- the grid -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"residual": True, "match": 8, "bands": 6, "presence": True, "token_frames": 2},
        {"log_input": False, "residual": True},
    ],
    ids=["plain", "all", "latents"],
)
def test_a_grid_equals_the_model_on_every_pair(changes):
    tower = TransformerConfig(32, 1, 2, 64)
    torch.manual_seed(0)
    model = JudgeModel(JudgeConfig(CODEC, tower, tower, bottleneck_dim=16, **{"log_input": True} | changes)).eval()
    mixture, outputs = torch.randn(2, 160, 7), torch.randn(2, 3, 160, 7)
    text = torch.nn.functional.normalize(torch.randn(2, 4, 384), dim=-1)
    with torch.no_grad():
        grid = judge_grid(model, mixture, outputs, text)
        for b, q, m in [(0, 0, 0), (1, 3, 2), (0, 2, 1)]:
            one = model(mixture[b : b + 1], outputs[b, m][None], text[b, q][None])
            torch.testing.assert_close(grid.scores[b, q, m], one.scores[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(grid.frames[b, q, m], one.frames[0], rtol=1e-4, atol=1e-5)
            if model.config.presence:
                torch.testing.assert_close(grid.presence[b, q, m], one.presence[0], rtol=1e-4, atol=1e-5)


def test_words_are_read_once(monkeypatch):
    model, asked = small(), []
    monkeypatch.setattr(model, "text_vectors", lambda texts: asked.extend(texts) or torch.ones(len(texts), 384))
    words = Words(model)
    assert words(["dog", "cat", "dog"]).shape == (3, 384) and words(["cat", "cow"]).shape == (2, 384)
    assert asked == ["dog", "cat", "cow"]


# --- batches and loss -----------------------------------------------------------------------------


def batches_of(made: Collection, **changes) -> train_judge.CollectionBatches:
    return train_judge.CollectionBatches(
        **{"collections": [made], "batch_size": 2, "outputs": 3, "token_samples": 320, "seed": 0} | changes)


def test_a_batch_depends_on_its_number_alone(made):
    one, again, other = batches_of(made)(5), batches_of(made)(5), batches_of(made)(6)
    assert one["phrases"] == again["phrases"] and torch.equal(one["outputs"], again["outputs"])
    assert not torch.equal(one["mixture"], other["mixture"])
    assert one["outputs"].shape == (2, 3, 4_000) and one["scores"].shape == (2, 3, 3, 4)
    assert one["frames"].shape == (2, 3, 3, 13, 4) and one["present"].shape == (2, 3)


def test_every_mixture_comes_once_per_round(made):
    make = batches_of(made, collections=[made, made], batch_size=7)
    peaks = torch.cat([make(number)["mixture"].abs().amax(1) for number in range(2)])
    wanted = torch.stack([made[i].example.mixture.abs().max() for i in range(7)])
    assert peaks.sort().values.tolist() == pytest.approx(wanted.repeat(2).sort().values.tolist())


def test_collections_that_do_not_fit_are_refused(made):
    with pytest.raises(UserError, match="data.outputs=5, but a collection holds only 4"):
        batches_of(made, outputs=5)


def grid_like(scores: torch.Tensor, presence: float = 0.0) -> Grid:
    frames = scores[..., None, :].expand(*scores.shape[:3], 13, 4)
    return Grid(scores, frames, torch.full(scores.shape[:3], presence))


def test_the_truth_costs_least_and_what_cannot_be_said_costs_nothing(made):
    batch = batches_of(made)(0)
    batch["frames"] = grid_like(batch["scores"]).frames
    truth = batch["scores"].nan_to_num(3.0)
    right, wrong = (train_judge.losses(grid_like(s), batch) for s in (truth, 6 - truth))
    for name in ("scores", "frames", "rank", "prompts"):
        assert float(right[name]) < float(wrong[name]), name
    assert float(right["scores"]) < 1e-3
    other = torch.where(batch["scores"].isnan(), 99.0, truth)
    unknown = train_judge.losses(grid_like(other), batch)
    assert all(float(unknown[name]) == pytest.approx(float(right[name])) for name in ("scores", "frames", "rank"))


def test_given_presence_overall_of_absent_sounds_costs_nothing(made):
    batch = batches_of(made)(0)
    batch["present"] = torch.tensor([[True, False, True], [True, True, False]])
    truth = batch["scores"].nan_to_num(3.0)
    other = truth.clone()
    other[~batch["present"], ..., 0] = 9.0
    there = truth.clone()
    there[batch["present"], ..., 0] += 2.0
    batch["frames"] = grid_like(truth).frames
    right, absent, present = (
        train_judge.losses(grid_like(s), batch, given_presence=True) for s in (truth, other, there)
    )
    for name in ("scores", "frames", "rank", "prompts"):
        assert float(absent[name]) == pytest.approx(float(right[name])), name
    assert float(present["scores"]) > float(right["scores"]) + 0.1
    assert float(train_judge.losses(grid_like(other), batch)["scores"]) > float(right["scores"]) + 0.1


def test_presence_costs_by_what_is_there(made):
    batch = batches_of(made)(0)
    batch["present"] = torch.ones_like(batch["present"])
    sure, doubtful = (float(train_judge.losses(grid_like(batch["scores"], p), batch)["presence"]) for p in (4.0, -4.0))
    assert sure < 0.1 < 3 < doubtful


# --- the script -----------------------------------------------------------------------------------


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("configs", version_base="1.3"):
        return compose("judge", overrides=["+debug=judge", "loop.device=cpu", *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, codec):
    folder = tmp_path_factory.mktemp("judge-training")
    with contextlib.chdir(folder), torch.random.fork_rng():
        figures = train_judge.fit(composed(f"codec={codec}"))
    return folder, figures


def test_a_run_learns_and_leaves_a_model(trained, codec):
    folder, figures = trained[0] / "runs/debug-judge", trained[1]
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "metrics.jsonl", "metrics.png", "state.pt", "model"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < 0.85 * losses[0]
    assert any(name.endswith("/spearman_faithfulness") for name in figures)
    model = checkpoints.load(folder / "model", codec)
    assert model.config.match == 16 and model.config.presence


def test_a_finished_run_trains_no_further(trained, codec, capsys):
    with contextlib.chdir(trained[0]), torch.random.fork_rng():
        again = train_judge.fit(composed(f"codec={codec}"))
    assert again == trained[1] and "is finished" in capsys.readouterr().out


def test_a_run_can_go_on_from_another(trained, codec):
    config = composed(f"codec={codec}", f"init={trained[0] / 'runs/debug-judge/model'}")
    model = train_judge.build(config, torch.device("cpu"))
    kept = checkpoints.load(trained[0] / "runs/debug-judge/model", codec)
    assert torch.equal(model.head.weight, kept.head.weight) and model.head.weight.requires_grad
    assert not model.codec.in_proj.weight.requires_grad


def test_an_embedder_lends_its_ears(codec, tmp_path, monkeypatch):
    from peav.config import PEAVConfig
    from peav.model import PEAV

    tower = TransformerConfig(32, 1, 2, 64)
    embedder = PEAV(PEAVConfig(CODEC, tower, 16, token_frames=2, log_input=True, normalise=True, frames=True))
    monkeypatch.setattr(train_judge, "load_embedder", lambda folder, codec: embedder)
    model = train_judge.build(composed(f"codec={codec}", "embedder=ears"), torch.device("cpu"))
    assert torch.equal(model.data_proj.weight, embedder.audio.data_proj.weight)
    assert torch.equal(model.match.text_head.projection.weight, embedder.text_frame_head.projection.weight)
    # What is loud enough sounds the same to both, although their features differ by a constant.
    from judge.features import joint_log_features, tokens
    from peav.latents import log_features

    latent = torch.randn(1, 160, 8).sign() * (1 + torch.rand(1, 160, 8))
    with torch.no_grad():
        ours = model.data_proj(tokens(joint_log_features(latent)[0], 2))
        theirs = embedder.audio.data_proj(tokens(log_features(latent), 2))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="another audio tower"):
        config = composed(f"codec={codec}", "embedder=ears", "transformer.hidden_size=16")
        train_judge.build(config, torch.device("cpu"))


def test_collections_must_be_named(codec, tmp_path):
    config = composed(f"codec={codec}", "data.toy=false", f"folder={tmp_path}")
    with pytest.raises(UserError, match="data.collections is empty"):
        train_judge.fit(config)


def test_collections_must_be_at_the_codecs_rate(codec, tmp_path, store):
    scenes = Scenes(store, Recipe(seconds=0.5, outputs=6), seed=1)
    collection.write(tmp_path / "c", settings_of(scenes) | {"sample_rate": 16_000}, scenes.__getitem__, 1)
    config = composed(f"codec={codec}", "data.toy=false", f"folder={tmp_path}", f"data.collections=[{tmp_path / 'c'}]")
    with pytest.raises(UserError, match=r"collections at \[16000\] Hz, but the codec listens at 8000 Hz"):
        train_judge.fit(config)




# --- with a separator to compare with -------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(codec, tmp_path_factory) -> Path:
    """An embedder and a separator, as a whole model has them."""
    from peav import checkpoints as parts
    from peav.config import PEAVConfig
    from peav.mask import MaskConfig, MaskSeparator
    from peav.model import PEAV

    folder = tmp_path_factory.mktemp("whole")
    lapped_init_(DACVAE(CODEC)).save_pretrained(folder / "codec", torch.float16)
    tower = TransformerConfig(32, 1, 2, 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embedder = PEAV(PEAVConfig(CODEC, tower, 16, token_frames=2, log_input=True, normalise=True, frames=True))
        embedder.use_codec(lapped_init_(DACVAE(CODEC)))
        parts.save(embedder, folder / "embedder")
        MaskSeparator(MaskConfig(160, 16, width=16, dilations=(1, 2), num_heads=2, hint_dim=16)).save(
            folder / "separator"
        )
    return folder


def test_a_judge_trains_with_an_estimator_and_leaves_it_as_it_was(codec, whole, tmp_path):
    before = checkpoints.Estimator.load(whole).state_dict()
    with contextlib.chdir(tmp_path), torch.random.fork_rng():
        config = composed(f"codec={codec}", f"model={whole}", "judge.estimate=5", "loop.steps=6", "loop.valid_every=6")
        start = train_judge.build(config, torch.device("cpu"))
        train_judge.fit(config)
    model = checkpoints.load(tmp_path / "runs/debug-judge/model", codec, whole)
    assert all(torch.equal(value, before[name]) for name, value in model.estimator.state_dict().items())
    assert not torch.equal(model.clip_head[0].weight, start.clip_head[0].weight)
    # The separator may be trained further; the Judge then goes on with the new one.
    other = checkpoints.Estimator.load(whole)
    other.separator.activity.bias.data.add_(1.0)
    other.separator.save(whole / "separator")
    again = train_judge.build(
        composed(f"codec={codec}", f"init={tmp_path / 'runs/debug-judge/model'}", f"model={whole}"), torch.device("cpu")
    )
    assert torch.equal(again.clip_head[0].weight, model.clip_head[0].weight)
    assert checkpoints.estimator_identity(again.estimator) != checkpoints.estimator_identity(model.estimator)


def test_an_estimate_needs_a_separator(codec):
    with pytest.raises(UserError, match="give model=FOLDER"):
        train_judge.build(composed(f"codec={codec}", "judge.estimate=5"), torch.device("cpu"))
