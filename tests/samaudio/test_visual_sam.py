"""SAM by transformers, with tiny models of random weights: that clicks reach it, and what comes back. Not quality."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from visual_films import FPS, RED, H, W, disc, draw, scrolling

from peav.errors import UserError
from samaudio.prompts import Box, Click
from samaudio.viewer import Viewer
from samaudio.visual import track
from samaudio.visual.sam import Sam, load

SMALL = {  # transformers fixes the memory's width to 64
    "memory_attention_hidden_size": 128, "memory_attention_num_layers": 1, "memory_attention_rope_feat_sizes": [8, 8],
    "memory_attention_feed_forward_hidden_size": 32, "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64, "mask_downsampler_embed_dim": 128, "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 32, "memory_fuser_num_layers": 1, "num_maskmem": 3,
    "max_object_pointers_in_encoder": 4,
}  # fmt: skip
DECODER = {
    "hidden_size": 128, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
}  # fmt: skip


def sam2():
    trunk = transformers.Sam2HieraDetConfig(
        hidden_size=12, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[12, 24, 48, 96],
        num_attention_heads_per_stage=[1, 2, 4, 8], global_attention_blocks=[3],
    )  # fmt: skip
    eye = transformers.Sam2VisionConfig(
        backbone_config=trunk, backbone_channel_list=[96, 48, 24, 12], fpn_hidden_size=128,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    return transformers.Sam2VideoModel(transformers.Sam2VideoConfig(
        vision_config=eye, image_size=128, mask_decoder_config=DECODER,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128, "mask_input_channels": 4}, **SMALL,
    ))  # fmt: skip


def sam3():
    trunk = transformers.Sam3ViTConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=112,
        window_size=4, global_attn_indexes=[0], pretrain_image_size=56,
    )  # fmt: skip
    eye = transformers.Sam3VisionConfig(backbone_config=trunk, fpn_hidden_size=128)
    return transformers.Sam3TrackerVideoModel(transformers.Sam3TrackerVideoConfig(
        vision_config=eye, mask_decoder_config=DECODER, image_size=112,
        prompt_encoder_config={"hidden_size": 128, "image_size": 112, "mask_input_channels": 4}, **SMALL,
    ))  # fmt: skip


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("film") / "film.mp4", 12, scrolling(),
                lambda i: [(disc(40 + 5 * i, 50, 12), RED)])


@pytest.fixture(scope="module", params=[sam2, sam3])
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    where = tmp_path_factory.mktemp("weights") / request.param.__name__
    model = request.param()
    with torch.no_grad():  # the object is always there, so that masks are not empty
        head = model.mask_decoder.pred_obj_score_head
        head.proj_out.bias.fill_(5.0)
    model.save_pretrained(where)
    return where


def test_clicks_become_masks_in_both_directions(film, folder):
    said: list[float] = []
    prompts = [Click(*film.click(5)), Click(*film.click(9)), Click(2, 2, film.times[7], positive=False)]
    found = track(film.path, prompts, film.times, size=96, segmenter=folder, progress=said.append)
    assert found.masks.shape == (12, 54, 96) and found.masks.dtype == torch.bool
    assert found.segmenter == {"sam2": "SAM 2 (sam2)", "sam3": "SAM 3 (sam3)"}[folder.name]
    assert (found.confidence > 0.9).all()
    assert said == sorted(said) and said[-1] == 1.0


def test_the_place_that_was_clicked_reaches_the_model(film, folder):
    sam = load(folder)
    places = []
    before = sam.network.prompt_encoder.forward

    def spy(input_points, input_labels, **rest):
        if input_points is not None:
            places.append((input_points.flatten().tolist(), input_labels.flatten().tolist()))
        return before(input_points=input_points, input_labels=input_labels, **rest)

    sam.network.prompt_encoder.forward = spy
    track(film.path, [Click(W / 2, H / 4, 0.0), Box(W, H / 2, 0, H, 0.0)], [0.0], segmenter=sam)
    side = sam.side
    assert places[0][1] == [2, 3, 1]
    assert places[0][0] == pytest.approx([0, side / 2, side, side, side / 2, side / 4], abs=side * 0.02)


def test_what_is_long_past_is_forgotten(film, folder):
    sessions = []

    class Spied(Sam):
        def _session(self, *arguments):
            sessions.append(super()._session(*arguments))
            return sessions[-1]

    loaded = load(folder)
    spied = Spied(loaded.network, json.loads((folder / "config.json").read_text())["model_type"], "x")
    track(film.path, Click(*film.click(0)), film.times, segmenter=spied)
    kept = sessions[0].output_dict_per_obj[0]["non_cond_frame_outputs"]
    assert max(kept) == 11 and 4 <= len(kept) <= 5
    assert len(sessions[0].cache._vision_features) == 1


def test_an_object_the_model_does_not_see_has_no_mask(film, folder):
    sam = load(folder)
    with torch.no_grad():
        sam.network.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(-20.0)
    found = track(film.path, Click(*film.click(0)), [0.0, 5 / FPS], segmenter=sam)
    assert not found.visible.any() and (found.confidence < 0.1).all()


def test_wrong_folders_are_refused(tmp_path, folder):
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match="config.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="is a bert model"):
        load(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(UserError, match="no safetensors"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path)


def test_a_hub_id_is_fetched_wherever_it_was_typed(folder, monkeypatch):
    """Also by what the command and the page hand on, a `Viewer`."""
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(folder))
    for found in (load("maker/sam"), load(Path("maker/sam")), Viewer(None, "maker/sam").segmenter):
        assert found.used.endswith("(sam)")
    assert asked == ["maker/sam"] * 3


def test_it_goes_to_the_device_of_the_model_that_looks(folder):
    model = SimpleNamespace(device=torch.device("meta"))
    assert Viewer(model, folder).segmenter.network.device == model.device
    assert load(folder, "cpu").network.device == torch.device("cpu")


def test_pictures_are_prepared_as_in_training(folder):
    sam = load(folder)
    grey = sam.prepared(np.full((20, 40, 3), 128, np.uint8))
    assert grey.shape == (3, sam.side, sam.side)
    expected = (128 / 255 - 0.485) / 0.229 if sam.kind == "SAM 2" else (128 / 255 - 0.5) / 0.5
    assert float(grey[0].mean()) == pytest.approx(expected, abs=1e-4)


def test_the_published_layout_of_sam3_is_read(tmp_path):
    """One file for detector and tracker, which share the trunk."""
    torch.manual_seed(0)
    model = sam3()
    renamed = {}
    for name, value in model.state_dict().items():
        if name.startswith("vision_encoder.backbone."):
            name = f"detector_model.{name}"
        elif name.startswith("vision_encoder.neck."):
            name = name.replace("vision_encoder.neck.", "tracker_neck.")
        else:
            name = f"tracker_model.{name}"
        renamed[name] = value.clone()
    renamed["detector_model.anything"] = torch.zeros(1)
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    settings = {"model_type": "sam3_video", "tracker_config": model.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(settings, default=str))
    found = load(tmp_path).network.state_dict()
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_weights_of_another_model_are_refused(tmp_path, folder):
    model = sam2() if folder.name == "sam2" else sam3()
    model.save_pretrained(tmp_path)
    weights = {n: v.clone() for n, v in model.state_dict().items() if not n.startswith("memory_")}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks .* of the weights"):
        load(tmp_path)
