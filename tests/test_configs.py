"""Every shipped configuration composes, and every value in it reaches the code that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from judge.model import JudgeConfig
from peav.codec import CodecConfig
from peav.config import PEAVConfig
from peav.training import Loop, as_dict
from peav.transformer import TransformerConfig
from peav.vision import VisionConfig
from samaudio.drawn import Recipe as FilmRecipe
from samaudio.mask import MaskConfig
from samaudio.mixtures import Recipe
from samaudio.pulse import RATE, PulseConfig
from samaudio.visual.outline import OutlineConfig

CONFIGS = Path(__file__).parent.parent / "configs"
SOUND = ("codec", "embedder", "separator", "judge")
EYES = ("vision", "video", "pointing", "pulse", "outline")  # need pictures, which do not come with the project
TASKS = SOUND + EYES
SHIPPED = [(task, overrides) for task in TASKS for overrides in ((), (f"+debug={task}",))]
IDS = [f"{task}{'_debug' if overrides else ''}" for task, overrides in SHIPPED]


def composed(task: str, *overrides: str) -> DictConfig:
    with initialize_config_module("configs", version_base="1.3"):
        return compose(task, overrides=list(overrides))


def paths(node: DictConfig, above: str = "") -> Iterator[str]:
    for name in node:
        child = None if OmegaConf.is_missing(node, name) else node[name]
        yield f"{above}{name}"
        if isinstance(child, DictConfig):
            yield from paths(child, f"{above}{name}.")


def test_no_file_is_left_out():
    # The public sets are no Hydra configurations; tests/peav/test_evaluation_manifest.py reads each of them. The two
    # stages of a PE-AV share one overlay; tests/peav/test_train_peav.py goes through those three files.
    found = {path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "evaluation"}
    files = {path.relative_to(CONFIGS).as_posix() for path in found}
    overlays = {f"debug/{task}.yaml" for task in TASKS}
    films = {"peav_pretrain.yaml", "peav_finetune.yaml", "debug/peav.yaml"}
    assert files == {f"{task}.yaml" for task in TASKS} | overlays | films | {"loop/default.yaml"}


@pytest.mark.parametrize(("task", "overrides"), SHIPPED, ids=IDS)
def test_values_fit_the_code_they_feed(task, overrides):
    config = composed(task, *overrides)
    loop = Loop(**config.loop)
    assert loop.steps > 0 and loop.warmup < loop.steps or overrides
    if task == "codec":
        codec = CodecConfig.from_dict(as_dict(config.codec))
        assert codec.hop_length == config.codec.stem_stride and not codec.final_tanh
    elif task == "embedder":
        tower = TransformerConfig(**config.tower)
        made = PEAVConfig(codec=CodecConfig(), audio=tower, **config.embedder)
        assert made.output_dim == config.embedder.output_dim
    elif task == "judge":
        towers = (TransformerConfig(**config.transformer), TransformerConfig(**config.finetune_transformer))
        judge = JudgeConfig(CodecConfig(), *towers, **config.judge)
        assert judge.presence and judge.match == config.judge.match
    elif task in ("vision", "video", "pointing"):
        assert all(side > 0 for side in config.close_up)
        if task != "pointing":
            vision = VisionConfig.from_dict(as_dict(config.vision if task == "vision" else config.vision_tower))
            assert vision.image_size[0] % vision.patch_size[0] == 0
        if task != "vision":
            assert FilmRecipe(**as_dict(config.recipe)).alike == config.recipe.alike
        if task == "video":
            assert TransformerConfig(**config.video).hidden_size and TransformerConfig(**config.audio_video).hidden_size
    elif task == "pulse":
        assert PulseConfig(**as_dict(config.pulse)).dilations == tuple(config.pulse.dilations)
        assert FilmRecipe(**as_dict(config.recipe)).fps == RATE and config.loop.batch_size <= config.memory
    elif task == "outline":
        assert OutlineConfig(**as_dict(config.outline)).widths == tuple(config.outline.widths)
        assert list(FilmRecipe(**as_dict(config.recipe)).size) == list(config.recipe.size) and config.largest > 1.2
    else:
        sizes = MaskConfig(latent_dim=480, query_dim=256, **as_dict(config.separator))
        assert sizes.dilations == tuple(config.separator.dilations)
        recipe = Recipe(**as_dict(config.recipe))
        assert sum(recipe.sources) == pytest.approx(1) and recipe.snr_db[0] < recipe.snr_db[1]
        assert config.loop.batch_size % config.data.questions == 0


def test_the_loop_states_every_field_and_the_same_defaults():
    stated = OmegaConf.load(CONFIGS / "loop" / "default.yaml")
    fields = {field.name: field for field in dataclasses.fields(Loop)}
    assert set(stated) == set(fields)
    for name, field in fields.items():
        if field.default is dataclasses.MISSING:
            assert OmegaConf.is_missing(stated, name)
        else:
            assert stated[name] == field.default, name


@pytest.mark.parametrize("task", TASKS)
def test_an_overlay_changes_only_names_that_exist(task):
    base, overlay = composed(task), OmegaConf.load(CONFIGS / "debug" / f"{task}.yaml")
    assert set(paths(overlay)) <= set(paths(base))
    assert set(paths(composed(task, f"+debug={task}"))) == set(paths(base))


@pytest.mark.parametrize("task", SOUND)
def test_overlays_need_no_recordings_and_follow_one_another(task):
    config = composed(task, f"+debug={task}")
    sources = config.data.collections if task == "judge" else config.data.manifests
    assert config.data.toy and not sources and config.loop.workers == 0
    if task != "codec":
        assert config.codec == f"{composed('codec', '+debug=codec').folder}/model"
    if task == "separator":
        assert config.embedder == f"{composed('embedder', '+debug=embedder').folder}/model"


@pytest.mark.parametrize("task", EYES)
def test_overlays_of_eyes_follow_one_another(task):
    config = composed(task, f"+debug={task}")
    assert config.loop.workers == 0
    if task in ("video", "pointing"):
        assert config.init == f"{composed('separator', '+debug=separator').folder}/model"
    if task == "video":
        assert config.vision == f"{composed('vision', '+debug=vision').folder}/model"
    if task == "pointing":
        assert config.embedder == f"{composed('video', '+debug=video').folder}/model"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_a_file_opens_with_what_it_is_for(path):
    assert path.read_text().startswith("#")


def test_a_misspelt_override_is_refused():
    with pytest.raises(Exception, match="lrr"):
        composed("codec", "loop.lrr=1")
