"""The scripts that give a model eyes: what they learn, what they leave alone, that they go on where they stopped."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from safetensors.torch import load_file

import samaudio
from benchmarks import object_retrieval
from peav import checkpoints
from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.config import PEAVConfig
from peav.errors import UserError
from peav.model import PEAV
from peav.scenes import NO, UNSURE, YES
from peav.transformer import TransformerConfig
from samaudio import train_outline, train_pointing, train_pulse, train_video, train_vision
from samaudio.checkpoints import load_model, save_model
from samaudio.mask import MaskConfig, MaskSeparator
from samaudio.model import MaskModel
from samaudio.pulse import Pulse
from samaudio.visual.outline import Outline

sys.path.insert(0, str(Path(__file__).parent / "samaudio"))
from drawn_pictures import STYLES, write_pictures  # noqa: E402

CODEC = CodecConfig(
    sample_rate=8_000, stem_kernel=320, stem_stride=160, encoder_dim=160, encoder_rates=(), latent_dim=160,
    codebook_dim=160, decoder_dim=160, decoder_rates=(), final_tanh=False,
)  # fmt: skip


def hearing_model() -> MaskModel:
    """A tiny model that hears and reads, with random weights."""
    torch.manual_seed(0)
    codec = lapped_init_(DACVAE(CODEC), gain=10.0)
    embedder = PEAV(PEAVConfig(CODEC, TransformerConfig(32, 1, 2, 64), output_dim=32, token_frames=2, log_input=True,
                               normalise=True, frames=True))  # fmt: skip
    embedder.use_codec(codec)
    sizes = MaskConfig(160, 32, width=16, dilations=(1, 2), attention_every=2, num_heads=2, hypotheses=2, hint_dim=32)
    return MaskModel(codec, embedder, MaskSeparator(sizes), {"name": "tiny"}).eval()


def composed(task: str, *overrides: str) -> DictConfig:
    with initialize_config_module("configs", version_base="1.3"):
        return compose(task, overrides=[f"+debug={task}", "loop.device=cpu", *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pool):
    """A folder in which the five debug runs were made one after the other, and their last figures."""
    folder = tmp_path_factory.mktemp("eyes")
    common = [f"pictures={folder / 'pictures'}", f"data.manifests=[{pool}]", f"data.cache={folder / 'cache'}"]
    figures = {}
    with contextlib.chdir(folder), torch.random.fork_rng():
        write_pictures(folder / "pictures", STYLES)
        save_model(hearing_model(), folder / "runs/debug-separator/model")
        for task, script in (("vision", train_vision), ("video", train_video), ("pointing", train_pointing)):
            figures |= script.fit(composed(task, *common))
        for task, script in (("pulse", train_pulse), ("outline", train_outline)):
            figures |= script.fit(composed(task, *common, "sample_rate=8000"))
    return folder, figures, common


def series(folder: Path, name: str) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


@pytest.mark.parametrize(
    ("task", "losses"),
    [("vision", ["thing", "geometry"]), ("video", ["stem", "words", "frame", "timed", "near", "whole"]),
     ("pointing", ["loss"]), ("pulse", ["loss"]), ("outline", ["pixels", "overlap"])],
)
def test_every_loss_falls(trained, task, losses):
    for name in losses:
        values = series(trained[0] / f"runs/debug-{task}", f"train/{name}")
        assert values[-1] < values[0], (name, values)


def test_where_an_object_is_can_be_read_off_its_features(trained):
    before, after = series(trained[0] / "runs/debug-vision", "valid/geometry")[0], trained[1]["valid/geometry"]
    assert after < before


def test_what_was_known_of_sounds_and_words_stays_bit_by_bit(trained):
    folder = trained[0]
    old = load_file(folder / "runs/debug-separator/model/embedder/model.safetensors")
    new = load_file(folder / "runs/debug-video/model/model.safetensors")
    assert all(torch.equal(new[name], value) for name, value in old.items())
    assert any(name.startswith("video.vision.stem.") for name in new)
    before = load_model(folder / "runs/debug-separator/model").separator.state_dict()
    after = load_model(folder / "runs/debug-pointing/model").separator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(after["seen_query.0.weight"], before["query.0.weight"])


def test_movement_finds_its_sound_more_often_than_chance(trained):
    folder, figures, _ = trained
    assert figures["valid/agreement"] > 0.15
    assert Pulse.load(folder / "runs/debug-pulse/model").config.width == 16


def test_outlines_are_measured_and_kept(trained):
    folder, figures, _ = trained
    # What a network can learn of it is in tests/samaudio/test_outline.py; seconds of drawings are too few.
    assert all(0 <= figures[f"valid/{name}"] <= 1 for name in ("iou", "failed", "fit_error"))
    assert Outline.load(folder / "runs/debug-outline/model").config.widths == (8, 16)


def test_films_of_another_rate_are_refused(trained):
    folder, _, common = trained
    with contextlib.chdir(folder), pytest.raises(UserError, match=r"8 times a second"):
        train_pulse.fit(composed("pulse", *common, "folder=runs/other", "+recipe.fps=12"))


def test_objects_are_matched_with_sounds(trained, pool, capsys):
    """The benchmark of R@1, on a model whose towers and pulse were trained for seconds."""
    folder, _, common = trained
    model = load_model(folder / "runs/debug-pointing/model")
    model.pulse = Pulse.load(folder / "runs/debug-pulse/model")
    save_model(model, folder / "with-pulse")
    object_retrieval.main([str(pool), "--pictures", str(folder / "pictures"), "--cache", str(folder / "cache"),
                           "--model", str(folder / "with-pulse"), "--groups", "1", "--out", str(folder / "out")])
    told = json.loads((folder / "out/object_retrieval.json").read_text())["figures"]
    assert 0.02 < told["movement"]["R@1"] <= told["movement"]["R@10"] <= 1  # one in fifty by chance
    assert "R@1" in (folder / "out/object_retrieval.md").read_text()


def test_the_model_sees(trained):
    separator = samaudio.load(trained[0] / "runs/debug-pointing/model", device="cpu")
    assert separator.viewer.sees and separator.model.settings["close_up"] == [32, 32]


def test_a_finished_run_does_nothing(trained, capsys):
    folder, _, common = trained
    with contextlib.chdir(folder):
        train_pointing.fit(composed("pointing", *common))
    assert "is finished" in capsys.readouterr().out


def test_towers_can_be_trained_on(trained, tmp_path):
    folder, _, common = trained
    with contextlib.chdir(folder):
        own = checkpoints.load("runs/debug-video/model").state_dict()
        model = train_video.build(composed("video", *common, "init=runs/debug-video/model", "vision=null"))
        assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
        # A frame encoder that is named replaces the one that is there, and nothing else.
        model = train_video.build(composed("video", *common, "init=runs/debug-video/model"))
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, own[name])}
        assert changed and all(name.startswith("video.vision.") for name in changed)
        with pytest.raises(UserError, match="another size"):
            train_video.build(composed("video", *common, "init=runs/debug-video/model", "video.hidden_size=16"))


def test_a_model_without_eyes_cannot_learn_to_be_pointed_at(trained):
    folder, _, common = trained
    with contextlib.chdir(folder), pytest.raises(UserError, match="does not see"):
        train_pointing.build(composed("pointing", *common, "embedder=runs/debug-separator/model"), torch.device("cpu"))


def test_alike_sounds_are_told_apart_by_when_they_are_heard():
    """Clips alike, moments not: each object agrees with the stem that has its moments."""
    same = torch.nn.functional.normalize(torch.ones(2, 4), dim=-1)
    there, gone = torch.eye(4)[0], torch.eye(4)[1]
    moments = torch.stack((torch.stack((there, there, gone, gone)), torch.stack((gone, gone, there, there))))
    scores = train_video.timed(same, moments, same, moments)
    torch.testing.assert_close(scores, torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    assert train_video.recall(scores) == 1.0 and train_video.recall(scores.flip(0)) == 0.0


def test_of_what_is_unsure_nothing_is_learned():
    scores = torch.tensor([[1.0, 0.9], [0.95, 1.0]])
    sure = torch.tensor([[YES, NO], [NO, YES]])
    unsure = torch.tensor([[YES, UNSURE], [NO, YES]])
    with_all, with_less = train_video.contrast(scores, sure), train_video.contrast(scores, unsure)
    # By hand: rows and columns of two, each log(1 + exp(20 (other - own))).
    def cost(gap: float) -> float:
        return math.log1p(math.exp(-20 * gap))
    assert float(with_all) == pytest.approx(((cost(0.1) + cost(0.05)) + (cost(0.05) + cost(0.1))) / 4, rel=1e-5)
    assert float(with_less) == pytest.approx((cost(0.05) + cost(0.05)) / 4, rel=1e-4)
