"""Both stages of training a PE-AV on toy films, and every way a run may be set up."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

import peav
from peav import train
from peav.bestrq import BestRQConfig
from peav.codec import CodecConfig
from peav.config import PEAVConfig
from peav.errors import UserError
from peav.films import Cut, as_images
from peav.losses import match_keys
from peav.pairs import FINE_TUNING, PRETRAINING, choose_pairs
from peav.system import System
from peav.toy_films import KINDS, ToyFilms
from peav.training import Loop, Run, as_dict

CONFIGS = Path(__file__).parent.parent.parent / "configs"
FIXTURE = Path(__file__).parent.parent / "fixtures" / "pe_av"
STAGES = ("pretrain", "finetune")


def composed(stage: str, *overrides: str, debug: bool = True) -> DictConfig:
    with initialize_config_module("configs", version_base="1.3"):
        return compose(f"peav_{stage}", overrides=[*(["+debug=peav", "loop.device=cpu"] if debug else []), *overrides])


def logged(folder: Path, name: str) -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row[name] for row in rows if name in row]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of the two debug runs, one after the other, and their figures. The second is cut short."""
    folder = tmp_path_factory.mktemp("peav")
    with contextlib.chdir(folder), torch.random.fork_rng():
        figures = train.fit(composed("pretrain")), train.fit(composed("finetune", "loop.steps=20"))
    return folder / "runs", figures


# --- the configurations ----------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True], ids=["shipped", "debug"])
@pytest.mark.parametrize("stage", STAGES)
def test_values_fit_the_code_they_feed(stage, debug):
    config = composed(stage, debug=debug)
    assert Loop(**config.loop).steps > config.loop.warmup
    codec = CodecConfig() if isinstance(config.codec, str) else CodecConfig.from_dict(as_dict(config.codec))
    sizes = PEAVConfig.from_dict(as_dict(config.model) | {"codec": codec.to_dict()})
    assert sizes.sees and sizes.output_dim == config.model.output_dim
    settings = as_dict(config.bestrq)
    assert settings.pop("weight") > 0 and BestRQConfig(**settings).mask_probability == 0.04
    assert choose_pairs(config.pairs) == (PRETRAINING if stage == "pretrain" else FINE_TUNING)
    assert bool(config.init) == (stage == "finetune")


def test_fine_tuning_begins_where_pretraining_ends():
    for debug in (False, True):
        first, second = (composed(stage, debug=debug) for stage in STAGES)
        assert second.init == f"{first.folder}/model" and second.folder != first.folder


def test_the_overlay_changes_only_names_that_exist_and_needs_no_files():
    def names(node: DictConfig, above: str = "") -> set[str]:
        found = set()
        for name in node:
            found.add(f"{above}{name}")
            if isinstance(node[name], DictConfig):
                found |= names(node[name], f"{above}{name}.")
        return found

    base = names(composed("pretrain", debug=False))
    overlay = names(OmegaConf.load(CONFIGS / "debug" / "peav.yaml"))
    # The sizes of a codec stand where its folder does.
    new = {n for n in overlay - base if not n.startswith("codec.")}
    assert new == {"model.vision.pool_heads"} and hasattr(PEAVConfig, "from_dict")
    config = composed("pretrain")
    assert config.data.toy and not config.data.manifests and config.loop.workers == 0


# --- the two stages --------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "pairs"), [("pretrain", PRETRAINING), ("finetune", FINE_TUNING)])
def test_a_run_leaves_its_config_its_curves_and_a_model(trained, stage, pairs):
    folder = trained[0] / f"debug-peav-{stage}"
    assert {"config.yaml", "metrics.jsonl", "metrics.png", "state.pt", "model"} == {p.name for p in folder.iterdir()}
    for name in (*pairs, "bestrq", "loss", "gradient"):
        assert logged(folder, f"train/{name}"), name
    assert not logged(folder, "train/audio_plus_text") or stage == "finetune"


def test_pretraining_learns_what_can_be_told(trained):
    """Of 36 kinds of films. Each of two thirds of the limit, which is given by what the two ends have in common."""
    losses = logged(trained[0] / "debug-peav-pretrain", "train/loss")
    assert losses[-1] < 0.7 * losses[0]
    found = trained[1][0]
    assert found["valid/r1/text_audio"] > 0.66  # six sounds that differ in pitch and timbre
    assert found["valid/r1/text_audio_of_video"] > 0.33  # pictures tell the timbre, not the pitch: half
    assert found["valid/r1/text_video"] > 2 / 18  # 18 captions; the colour alone is a sixth
    assert found["valid/r1/audio_video"] > 1.3 / 36
    assert logged(trained[0] / "debug-peav-pretrain", "train/bestrq")[-1] < 4.17  # ln 64 for a guess in the dark


def test_fine_tuning_goes_on_and_adds_the_joined_queries(trained):
    first, second = trained[1]
    assert second["valid/r1/text_audio"] > 0.66
    assert set(second) - set(first) == {"valid/r1/audio_plus_text", "valid/r1/video_plus_text"}
    start = logged(trained[0] / "debug-peav-finetune", "train/text_audio")[0]
    assert start < 0.6 * logged(trained[0] / "debug-peav-pretrain", "train/text_audio")[0]
    joined = logged(trained[0] / "debug-peav-finetune", "train/video_plus_text")
    assert joined[-1] < joined[0]


def test_the_result_embeds_sound_pictures_and_words(trained):
    model = peav.load(trained[0] / "debug-peav-finetune" / "model", device="cpu")
    films = ToyFilms(12, Cut(model.sample_rate, (16, 16), seconds=0.8, num_frames=4), seed=5)
    items = [films.item(i, np.random.default_rng(0)) for i in range(12)]
    captions = sorted({item["captions"]["audio"] for item in items})
    right = torch.tensor([captions.index(item["captions"]["audio"]) for item in items])
    audio = model.embed(audio=[item["audio"] for item in items])
    words = model.embed(text=captions)
    assert torch.allclose(audio.norm(dim=1), torch.ones(12), atol=1e-3)
    assert float(((audio @ words.T).argmax(1) == right).float().mean()) > 0.66
    both = model.embed(audio=[item["audio"] for item in items], video=[item["video"] for item in items])
    assert both.shape == (12, 32)
    # The temperature that was learned came along: a matching pair is likelier than not.
    logits = model.logits("text_audio", audio, words)
    assert logits.gather(1, right[:, None]).mean().item() > logits.mean().item() + 1


def test_a_finished_run_trains_no_further(trained):
    folder = trained[0] / "debug-peav-pretrain"
    before = (folder / "model" / "model.safetensors").read_bytes()
    with contextlib.chdir(trained[0].parent), torch.random.fork_rng():
        figures = train.fit(composed("pretrain"))
    assert figures == pytest.approx(trained[1][0]) and (folder / "model" / "model.safetensors").read_bytes() == before


# --- how a run may be set up -----------------------------------------------------------------------

SHORT = ("loop.batch_size=6", "loop.log_every=1", "loop.valid_every=99", "data.valid_batches=1", "chunk=4")


def short(folder: Path, *overrides: str, stage: str = "pretrain") -> dict[str, float]:
    # Drawing curves takes longer than such a run.
    with contextlib.chdir(folder), torch.random.fork_rng(), mock.patch.object(Run, "plot"):
        return train.fit(composed(stage, *SHORT, f"folder={folder}/run", *overrides))


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "run" / "state.pt", weights_only=True)["system"]


@pytest.fixture
def one_thread():
    """Sums that are shared out among threads may differ in their last bit from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_resumed_run_is_the_run_that_went_through(tmp_path, one_thread):
    # Dropout, masks of BEST-RQ and the order of films are drawn from what was saved.
    for name in ("through", "resumed"):
        (tmp_path / name).mkdir()
    more = ("model.audio.dropout=0.2", "loop.final=1.0", "loop.warmup=0")
    short(tmp_path / "through", "loop.steps=4", *more)
    short(tmp_path / "resumed", "loop.steps=2", *more)
    short(tmp_path / "resumed", "loop.steps=4", *more)
    one, two = state(tmp_path / "through"), state(tmp_path / "resumed")
    # Some processors sum in an order that depends on where a tensor lies; another dropout would show in thousandths.
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)


def test_chunks_change_no_step(tmp_path):
    for name in ("chunked", "whole"):
        (tmp_path / name).mkdir()
    more = ("loop.steps=2", "bestrq.weight=0")
    short(tmp_path / "chunked", *more)
    short(tmp_path / "whole", *more, "chunk=null", "loss_chunk=null")
    gradients = [logged(tmp_path / name / "run", "train/gradient") for name in ("chunked", "whole")]
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-3)


@pytest.mark.parametrize("vision", ["true", "false"], ids=["trained", "frozen"])
def test_half_precision_takes_the_same_way(tmp_path, vision):
    losses = []
    for precision in ("fp32", "bf16"):
        (tmp_path / precision).mkdir()
        short(tmp_path / precision, "loop.steps=1", f"loop.precision={precision}", f"train.vision={vision}")
        losses.append(logged(tmp_path / precision / "run", "train/loss")[0])
    assert losses[0] == pytest.approx(losses[1], rel=0.03) and losses[0] != losses[1]


def test_images_are_seen_as_the_tower_sees_them():
    model, _ = train.build(composed("pretrain"))
    system = System(model, as_dict(composed("pretrain"))).eval()
    video = torch.randint(0, 256, (3, 4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(4) < torch.tensor([[4], [2], [3]])
    with torch.no_grad():
        wanted = model.video.features(as_images(video), mask)
        assert torch.allclose(system._look(video, mask), wanted, atol=1e-6)
        assert torch.allclose(system._look(video, None), model.video.features(as_images(video)), atol=1e-6)


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], prefix: str) -> bool:
    names = [name for name in before if name.startswith(prefix)]
    assert names
    return any(not torch.equal(before[name], after[name]) for name in names)


def test_what_is_frozen_and_what_no_pair_reaches_stays(tmp_path):
    pairs = "pairs=[audio_video,text_audio]"
    short(tmp_path, "loop.steps=1", "train.vision=false", pairs, "loop.lr=0.0")
    before = state(tmp_path)
    (tmp_path / "run" / "state.pt").unlink()
    short(tmp_path, "loop.steps=3", "train.vision=false", pairs)
    after = state(tmp_path)
    for prefix in ("model.audio.transformer.", "model.video.transformer.", "model.text_audio_head.", "pairs.",
                   "bestrq.guess."):  # fmt: skip
        assert moved(before, after, prefix), prefix
    for prefix in ("model.video.vision.", "model.audio.codec.", "model.text_video_head.", "model.audio_video.",
                   "bestrq.quantizer.", "model.audio_video_logit"):  # fmt: skip
        assert not moved(before, after, prefix), prefix


def test_the_frame_encoder_learns_unless_it_is_frozen(tmp_path):
    short(tmp_path, "loop.steps=1", "loop.lr=0.0")
    before = state(tmp_path)
    (tmp_path / "run" / "state.pt").unlink()
    short(tmp_path, "loop.steps=2")
    assert moved(before, state(tmp_path), "model.video.vision.")


def test_a_corpus_of_files_where_some_lack_pictures_or_captions(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(2_000 + 500 * i), 8_000)
        captions = {"audio": [f"noise {i}"]} | ({"audio_video": [f"all {i}"]} if i % 2 else {})
        rows.append({"audio": f"{i}.wav", "captions": captions, "split": "valid" if i > 5 else "train"})
    rows[0]["captions"] = {}
    (tmp_path / "films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = short(tmp_path, "loop.steps=6", "data.toy=false", f"data.manifests=[{tmp_path}/films.jsonl]",
                    "data.seconds=0.5", "loop.batch_size=3")  # fmt: skip
    assert "valid/r1/text_audio" in figures and "valid/r1/audio_video" not in figures
    losses = [logged(tmp_path / "run", f"train/{name}") for name in ("text_audio", "text_audio_video_of_audio")]
    assert len(losses[0]) == 6 and 0 < len(losses[1]) < 6  # captions of both kinds are there in some batches only


def test_a_published_model_can_be_trained_on(tmp_path):
    before = peav.load(FIXTURE, device="cpu")
    short(tmp_path, f"init={FIXTURE}", "data.seconds=0.02", "data.fps=100", "loop.steps=2", "loop.lr=1e-3",
          "save_dtype=float32", "train.vision=false", stage="finetune")  # fmt: skip
    folder = tmp_path / "run" / "model"
    assert (folder / "tokenizer.json").is_file()
    after = peav.load(folder, device="cpu")
    assert after.config == before.config
    clip = 0.1 * torch.randn(960, generator=torch.Generator().manual_seed(0))
    change = (after.embed(audio=[clip]) - before.embed(audio=[clip])).abs().max()
    assert 1e-4 < float(change) < 5
    assert after.embed(text=["dog"]).shape == before.embed(text=["dog"]).shape  # its tokenizer came along
    texts = "text_model.layers.0.mlp.Wi.weight"
    assert not torch.equal(after.state_dict()[texts], before.state_dict()[texts])
    scale = "text_video_logit_scale"  # started from the published one, not from our own
    assert 0 < float((after.state_dict()[scale] - before.state_dict()[scale]).abs()) < 0.05


def test_the_frame_encoder_of_another_model_can_be_taken_over(tmp_path):
    config = composed("pretrain", f"vision_from={FIXTURE}")
    model, tokenizer = train.build(config)
    donor = peav.load(FIXTURE, device="cpu").video.vision.state_dict()
    assert all(torch.equal(value, donor[name]) for name, value in model.video.vision.state_dict().items())
    assert tokenizer is None and model.config.vision.image_size == (42, 42)


def test_the_same_caption_or_film_is_no_negative():
    batch = {"clip": match_keys(["0", "1", "0"], "clip"), "caption_audio": ["rain", "Rain", "wind"]}
    keys = train.keys_of(batch)
    assert torch.equal(keys["text_audio"][0], keys["text_audio"][1])
    assert not torch.equal(keys["text_audio"][0], keys["text_audio"][2])
    assert all(torch.equal(keys[name], batch["clip"]) for name in ("audio", "video", "audio_video", "audio_plus_text"))
    assert "text_video" not in keys


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["pairs=[audio_vidio]"], "unknown pair 'audio_vidio'"), (["model.audio.num_heads=5"], "model: hidden_size 32"),
     (["codec=nowhere"], "the codec cannot be loaded"), (["codec.latent_dim=80"], "codec: give a folder, or"),
     (["data.toy=false"], "data.manifests is empty"), (["save_dtype=int8"], "save_dtype int8"),
     (["bestrq.stack=0"], "bestrq: stack=0"), (["init=nowhere"], "nowhere"),
     (["+pair_weights.text=2"], "weight of 'text'"), ([f"init={FIXTURE.parent}/pe_a_frame_model"], "PE-A-Frame")],
    ids=["pair", "sizes", "no_codec", "codec_sizes", "no_data", "dtype", "bestrq", "init", "weights", "frames"])
def test_what_cannot_be_trained_is_said(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        short(tmp_path, "loop.steps=1", *overrides)


def test_toys_are_enough_for_every_kind():
    assert len(KINDS) == 36 and len(set(KINDS)) == 36
