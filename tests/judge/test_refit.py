"""Overall learned anew from numbers that are computed once."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from judge import refit
from judge.estimate import CLIP, MORE
from judge.model import JudgeConfig, JudgeModel
from peav.errors import UserError
from peav.transformer import TransformerConfig

sys.path.insert(0, str(Path(__file__).parent))
from test_estimate import CODEC  # noqa: E402

TOWER = TransformerConfig(16, 1, 2, 32)


def judge(**more) -> JudgeModel:
    torch.manual_seed(0)
    settings = JudgeConfig(CODEC, TOWER, TOWER, bottleneck_dim=16, bands=4, estimate=4, listen=False, presence=True)
    return JudgeModel(replace(settings, **more)).requires_grad_(False).eval()


def known(count: int) -> refit.Numbers:
    """SI-SDR that follows from two of the numbers, one of them by its square; the scale is that of `judge.targets`."""
    clip = torch.randn(count, len(CLIP) + len(MORE))
    si_sdr = 8 * clip[:, 0] + 6 * clip[:, len(CLIP)].square() - 4  # one of CLIP, one of MORE
    return refit.Numbers(clip, (1 + (si_sdr + 15) / 10).clamp(1, 5), si_sdr, torch.rand(count) < 0.7)


def test_overall_is_learned_and_holds_for_what_was_not_seen():
    model = judge(overall=16)
    before = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("overall_head")}
    refit.learn(model, known(4000), steps=600)
    # The other half says nothing here: it moves no rank, and halves the scale.
    model.clip_head[2].weight.zero_()
    model.clip_head[2].bias.zero_()
    before |= {name: model.state_dict()[name] for name in ("clip_head.2.weight", "clip_head.2.bias")}
    unseen = known(1000)
    found = refit.quality(model, refit.Numbers(unseen.clip, 3 + (unseen.overall - 3) / 2, unseen.si_sdr, unseen.own))
    assert found["spearman_si_sdr"] > 0.95 and found["error"] < 0.2
    # What else the Judge tells is as it was.
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_both_heads_decide_overall_and_nothing_else_changes():
    model = judge(overall=16)
    clip = torch.randn(2, len(CLIP) + len(MORE))
    out = type("Out", (), {"frames": torch.randn(2, 5, 16), "pooled": torch.randn(2, 16)})()
    model.presence_head.bias.fill_(30.0)  # surely there
    one, _ = model.told(out, clip)
    other, _ = model.told(out, torch.cat((clip[:, : len(CLIP)], clip[:, len(CLIP):] + 1), dim=1))
    torch.testing.assert_close(one[..., 1:], other[..., 1:])
    assert (one[..., 0].mean(1) - other[..., 0].mean(1)).abs().min() > 1e-3
    both = (model.overall_of(clip)[:, 0] + model.clip_head(clip[:, : len(CLIP)])[:, 0]) / 2
    torch.testing.assert_close(one[..., 0].mean(1), both * model.std[0] + model.mean[0])


def test_a_judge_that_compares_with_nothing_has_nothing_to_learn_from():
    with pytest.raises(ValueError, match="needs an estimator"):
        judge(overall=16, estimate=0, listen=True)


def test_a_judge_without_an_estimator_is_refused(tmp_path):
    from judge import checkpoints
    from peav.codec import DACVAE, lapped_init_

    codec = lapped_init_(DACVAE(CODEC))
    codec.save_pretrained(tmp_path / "codec", torch.float32)
    plain = judge(estimate=0, listen=True)
    plain.use_codec(codec)
    checkpoints.save(plain, tmp_path / "judge", torch.float32)
    with pytest.raises(UserError, match="compares with no separator"):
        refit.refit(tmp_path / "judge", tmp_path)
