"""The network: the published one's numbers, and what must not change a score."""

from __future__ import annotations

import json

import pytest
import torch
from judge_fakes import FIXTURE, small, words
from safetensors.torch import load_file
from torch import Tensor

from judge.features import joint_log_features, token_mask, tokens
from judge.model import SCORES, JudgeConfig, JudgeModel
from judge.published import load_published

TOLERANCE = 2e-5  # of max(1, largest value); the reference against itself stays below 1e-5


@pytest.fixture(scope="module")
def published() -> JudgeModel:
    return load_published(FIXTURE)


@pytest.fixture(scope="module")
def given() -> dict[str, Tensor]:
    return load_file(FIXTURE / "inputs.safetensors")


@pytest.fixture(scope="module")
def wanted() -> dict[str, Tensor]:
    return load_file(FIXTURE / "outputs.safetensors")


def close(got: Tensor, want: Tensor) -> bool:
    assert got.shape == want.shape
    return float((got - want).abs().max()) <= TOLERANCE * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("case", ["full", "padded", "ragged"])
@torch.inference_mode()
def test_every_number_of_the_published_network_is_matched(published, given, wanted, case):
    seen = {}
    hooks = [
        published.transformer.register_forward_hook(lambda m, i, o: seen.update(audio_hidden=o.frames)),
        published.finetune_transformer.register_forward_pre_hook(lambda m, i: seen.update(finetune_input=i[0])),
        published.text_proj1.register_forward_hook(lambda m, i, o: seen.update(text_features=o)),
    ]
    text = published.text_states(given["input_ids"], given["attention_mask"])
    mixture, target = (published.latents(given[f"{case}.{name}_values"]) for name in ("input", "separated"))
    mask = given.get(f"{case}.padding_mask")
    out = published(mixture, target, text, None if mask is None else mask[:, :: published.codec.hop_length])
    for hook in hooks:
        hook.remove()
    seen["text_hidden_cls"] = text
    seen["codec_features"] = torch.cat((mixture, target))
    seen["frame_scores"] = (out.frames - published.mean) / published.std
    for name, got in seen.items():
        assert close(got, wanted[f"debug.{case}.{name}"]), name
    for i, name in enumerate(SCORES):
        assert close(out.scores[:, i : i + 1], wanted[f"{case}.{name}"]), name


@torch.inference_mode()
def test_published_padding_takes_part_unless_it_is_masked(published, given):
    """The shorter clip's scores, with and without more padding behind it."""
    text = published.text_states(given["input_ids"], given["attention_mask"])
    latents = [published.latents(given[f"full.{name}_values"]) for name in ("input", "separated")]
    longer = [torch.nn.functional.pad(z, (0, 5)) for z in latents]
    mask = torch.arange(20).expand(2, -1) < 15
    alone = published(*latents, text).scores
    assert not torch.allclose(published(*longer, text, mask).scores, alone, atol=1e-3)
    assert torch.allclose(published(*longer, text, mask, masked=True).scores, alone, atol=1e-5)


def test_clips_of_any_lengths_score_as_if_they_were_alone():
    model = small()
    generator = torch.Generator().manual_seed(2)
    clips = [torch.randn(length, generator=generator) for length in (4_000, 1_000, 4_000, 4_100)]
    targets = [0.5 * clip for clip in clips[:3]] + [clips[3]]  # once the very same tensor
    text = words(model, 4)
    together = model.judge(clips, targets, text)
    for i, out in enumerate(together):
        alone = model.judge([clips[i]], [targets[i]], text[i : i + 1])[0]
        assert torch.allclose(out.scores, alone.scores, atol=1e-5)
        assert torch.allclose(out.presence, alone.presence, atol=1e-5)
        assert out.frames.shape == alone.frames.shape == (1, -(-len(clips[i]) // 320), 4)
        assert torch.allclose(out.frames.mean(1), out.scores, atol=1e-6)


def test_a_mixture_given_twice_is_encoded_once(monkeypatch):
    model = small()
    encoded = []
    encode = model.codec.encode_clips
    monkeypatch.setattr(model.codec, "encode_clips", lambda clips: encoded.append(len(clips)) or encode(clips))
    mixture = torch.randn(1_000)
    model.judge([mixture] * 3, [mixture * k for k in (0.1, 0.2, 0.3)], words(model, 3))
    assert encoded == [4]


@pytest.mark.parametrize("changes", [{}, {"log_input": False, "residual": False}], ids=["ours", "published inputs"])
@torch.inference_mode()
def test_masked_batches_score_as_single_clips(changes):
    model = small(**changes)
    latents = torch.randn(2, 2, 16, 9, generator=torch.Generator().manual_seed(3))
    latents[:, 1, :, 6:] = 0.0
    mask = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    text = words(model, 2)
    both = model(*latents, text, mask, masked=True)
    alone = model(*latents[:, 1:, :, :6], text[1:])
    assert torch.allclose(both.scores[1:], alone.scores, atol=1e-5)
    assert torch.allclose(both.frames[1:, :3], alone.frames, atol=1e-5)
    assert torch.allclose(both.presence[1:], alone.presence, atol=1e-5)


@torch.inference_mode()
def test_every_input_moves_the_scores():
    model = small()
    mixture, target = torch.randn(2, 1, 16, 8, generator=torch.Generator().manual_seed(4))
    text = words(model, 2)
    base = model(mixture, target, text[:1]).scores
    for changed in ((target, target, text[:1]), (mixture, mixture, text[:1]), (mixture, target, text[1:])):
        assert float((model(*changed).scores - base).abs().max()) > 1e-3


@torch.inference_mode()
def test_the_recordings_level_does_not_matter_but_the_targets_does():
    model = small()
    mixture, target = torch.randn(2, 1, 16, 8, generator=torch.Generator().manual_seed(5))
    text = words(model, 1)
    base = model(mixture, target, text).scores
    assert torch.allclose(model(0.01 * mixture, 0.01 * target, text).scores, base, atol=1e-4)
    assert not torch.allclose(model(mixture, 0.1 * target, text).scores, base, atol=1e-3)


def test_features_are_the_log_power_over_the_mixtures_mean():
    mixture, target = torch.full((1, 2, 4), 2.0), torch.full((1, 2, 4), 0.2)
    for power, found in zip((1.0, 0.01), joint_log_features(mixture, target), strict=True):
        assert torch.allclose(found, torch.tensor(power + 1e-6).log() / 3 + 2)
    silence = joint_log_features(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))[1]
    assert torch.allclose(silence, torch.tensor(1e-6).log() / 3 + 2)


def test_features_of_a_padded_clip_are_its_own():
    latents = torch.randn(2, 1, 3, 7, generator=torch.Generator().manual_seed(6))
    alone = joint_log_features(*latents)
    padded = joint_log_features(
        *torch.nn.functional.pad(latents, (0, 3), value=9.0), mask=torch.arange(10)[None] < 7
    )
    for one, other in zip(alone, padded, strict=True):
        assert torch.allclose(one, other[..., :7], atol=1e-6)
        assert torch.equal(other[..., 7:], other[..., 6:7].expand(-1, -1, 3))


def test_tokens_hold_their_frames_in_order():
    found = tokens(torch.arange(6.0).view(1, 2, 3), 2)
    assert found.tolist() == [[[0, 3, 1, 4], [2, 5, 2, 5]]]
    assert token_mask(torch.tensor([[True, True, True, False, False]]), 2).tolist() == [[True, True, False]]


def test_a_config_survives_json(published):
    for config in (published.config, small().config):
        assert JudgeConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda z, t: (z, z[..., :3], t), "latents of shapes"),
        (lambda z, t: (z[:, :2], z[:, :2], t), "latents of shapes"),
        (lambda z, t: (z, z, t[:, :5]), "text has shape"),
        (lambda z, t: (z, z, t, torch.ones(1, 3)), "mask has shape"),
    ],
    ids=["lengths", "channels", "text", "mask"],
)
def test_shapes_are_checked(arguments, message):
    model = small()
    with pytest.raises(ValueError, match=message):
        model(*arguments(torch.randn(1, 16, 8), words(model, 1)))
