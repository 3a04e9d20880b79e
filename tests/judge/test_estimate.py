"""What an output is compared with: the estimator's numbers where the answer is known."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F_

from judge import checkpoints
from judge.estimate import CLIP, MORE, Estimate, Estimator
from judge.grid import judge_grid
from judge.model import JudgeConfig, JudgeModel
from peav import checkpoints as parts
from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.config import PEAVConfig
from peav.errors import UserError
from peav.mask import MaskConfig, MaskSeparator
from peav.model import PEAV
from peav.transformer import TransformerConfig

D, BANDS = 64, 6
CODEC = CodecConfig(
    sample_rate=8_000, stem_kernel=128, stem_stride=64, encoder_dim=64, encoder_rates=(), latent_dim=64,
    codebook_dim=D, decoder_dim=64, decoder_rates=(), final_tanh=False,
)  # fmt: skip
TOWER = TransformerConfig(32, 1, 2, 64)


def embedder(**changes) -> PEAV:
    settings = {"output_dim": 16, "log_input": True, "normalise": True, "frames": True, "token_frames": 2} | changes
    made = PEAV(PEAVConfig(CODEC, TOWER, **settings))
    made.use_codec(lapped_init_(DACVAE(CODEC)))
    return made.eval()


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = MaskConfig(D, 16, width=16, dilations=(1, 2), num_heads=2, hypotheses=2, hint_dim=16)
        separator = MaskSeparator(sizes)
        torch.nn.init.normal_(separator.hints.weight, std=0.3)
        return Estimator(embedder(), separator)


@pytest.fixture
def mixture() -> torch.Tensor:
    return torch.randn(2, D, 11, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def text() -> torch.Tensor:
    return F_.normalize(torch.randn(2, 3, 384, generator=torch.Generator().manual_seed(2)), dim=-1)


def separated(estimator: Estimator, mixture: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """What the estimator takes out for its first prompt, ``[B, D, F]``."""
    captured = []
    hook = estimator.separator.register_forward_hook(lambda module, given, out: captured.append(out.target))
    estimator(mixture, mixture[:, None], text, BANDS, 2)
    hook.remove()
    return captured[0].unflatten(0, text.shape[:2])[:, 0, 0]


def clip(found: Estimate, name: str) -> torch.Tensor:
    return found.clip[..., CLIP.index(name)]


def test_shapes(estimator, mixture, text):
    found = estimator(mixture, mixture[:, None].repeat(1, 4, 1, 1), text, BANDS, 2)
    assert found.tokens.shape == (2, 3, 4, 6, Estimator.width(BANDS))
    assert found.clip.shape == (2, 3, 4, len(CLIP) + len(MORE))
    assert bool(found.tokens.isfinite().all()) and bool(found.clip.isfinite().all())
    assert float(found.clip.abs().max()) <= 4.0  # 40 dB


def test_the_estimate_itself_is_as_near_as_can_be(estimator, mixture, text):
    own = separated(estimator, mixture, text)
    noise = 0.1 * own.norm() * F_.normalize(torch.randn_like(own).flatten(), dim=0).view_as(own)
    found = estimator(mixture, torch.stack((own, own + noise, mixture - own), dim=1), text, BANDS, 2)
    near = clip(found, "output from estimate")[:, 0]
    assert float(near[:, 0].min()) > 3.9 and near[:, 1].mean() == pytest.approx(2.0, abs=0.15)
    assert float(near[:, 2].max()) < 1.5
    assert clip(found, "output like estimate")[:, 0, 0].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


def test_levels_are_those_of_the_outputs(estimator, mixture, text):
    outputs = torch.stack((mixture, 0.1 * mixture, torch.zeros_like(mixture)), dim=1)
    found = estimator(mixture, outputs, text, BANDS, 2)
    assert clip(found, "output")[0, 0].tolist() == pytest.approx([0.0, -2.0, -4.0], abs=1e-3)
    assert clip(found, "rest")[0, 0].tolist() == pytest.approx([-4.0, 20 * torch.tensor(0.9).log10().item() / 10, 0.0],
                                                               abs=1e-3)  # fmt: skip


def test_louder_recordings_are_judged_alike(estimator, mixture, text):
    outputs = torch.stack((0.5 * mixture, mixture.roll(1, -1)), dim=1)
    plain, louder = (estimator(gain * mixture, gain * outputs, text, BANDS, 2) for gain in (1.0, 30.0))
    torch.testing.assert_close(louder.clip, plain.clip, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(louder.tokens, plain.tokens, rtol=1e-3, atol=1e-3)


def test_every_prompt_and_output_has_its_own_row(estimator, mixture, text):
    outputs = torch.stack((0.5 * mixture, mixture.roll(1, -1)), dim=1)
    together = estimator(mixture, outputs, text, BANDS, 2)
    alone = estimator(mixture[1:], outputs[1:, 1:], text[1:, 2:], BANDS, 2)
    torch.testing.assert_close(together.clip[1, 2, 1], alone.clip[0, 0, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.tokens[1, 2, 1], alone.tokens[0, 0, 0], rtol=1e-4, atol=1e-4)
    assert float((together.clip[:, 0] - together.clip[:, 1]).abs().max()) > 0.01


def test_silence_is_finite(estimator, mixture, text):
    found = estimator(torch.zeros_like(mixture), torch.zeros_like(mixture)[:, None], text, BANDS, 2)
    assert bool(found.tokens.isfinite().all()) and bool(found.clip.isfinite().all())


def test_it_is_never_trained(estimator):
    assert not any(p.requires_grad for p in estimator.parameters())
    estimator.train()
    assert not any(module.training for module in estimator.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"frames": False}, "frame-level head"), ({"output_dim": 8}, "do not belong together")],
    ids=["no frames", "another width"],
)
def test_parts_that_do_not_fit_are_refused(estimator, changes, message):
    with pytest.raises(ValueError, match=message):
        Estimator(embedder(**changes), estimator.separator)


# --- in the Judge ---------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["listens", "compares only"])
def model(estimator, request) -> JudgeModel:
    torch.manual_seed(0)
    config = JudgeConfig(CODEC, TOWER, TOWER, bottleneck_dim=16, token_frames=2, log_input=True, residual=True,
                         bands=4, presence=True, estimate=BANDS, listen=request.param)  # fmt: skip
    made = JudgeModel(config)
    made.use_codec(lapped_init_(DACVAE(CODEC)))
    made.use_estimator(estimator)
    return made.eval()


@torch.no_grad()
def test_a_grid_equals_the_model_on_every_pair(model, mixture, text):
    outputs = torch.stack((0.5 * mixture, mixture.roll(1, -1)), dim=1)
    grid = judge_grid(model, mixture, outputs, text)
    for b, q, m in [(0, 0, 0), (1, 2, 1)]:
        one = model(mixture[b : b + 1], outputs[b, m][None], text[b, q][None])
        torch.testing.assert_close(grid.scores[b, q, m], one.scores[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grid.presence[b, q, m], one.presence[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_scores_hear_the_comparison(model, mixture, text, monkeypatch):
    plain = model(mixture, 0.5 * mixture, text[:, 0])
    real = model.estimated

    def further(*given):
        found = real(*given)
        return Estimate(found.tokens, found.clip - 1.0)

    monkeypatch.setattr(model, "estimated", further)
    other = model(mixture, 0.5 * mixture, text[:, 0])
    assert float((plain.scores - other.scores).abs().min()) > 1e-3
    assert float((plain.presence - other.presence).abs().min()) > 1e-3


def test_a_judge_that_only_compares_has_no_first_transformer(estimator):
    sizes = {"bottleneck_dim": 16, "token_frames": 2, "log_input": True, "bands": 4, "estimate": BANDS}
    listening, comparing = (
        JudgeModel(JudgeConfig(CODEC, TOWER, TOWER, listen=listen, **sizes)) for listen in (True, False)
    )
    names = {name.split(".")[0] for name, _ in listening.named_parameters()}
    left = {name.split(".")[0] for name, _ in comparing.named_parameters()}
    assert {"transformer", "data_proj", "text_proj1"} <= names - left
    with pytest.raises(ValueError, match="nothing to judge by"):
        JudgeConfig(CODEC, TOWER, TOWER, listen=False)
    with pytest.raises(ValueError, match="match=8 needs the first transformer"):
        JudgeConfig(CODEC, TOWER, TOWER, listen=False, match=8, **sizes)


@torch.no_grad()
def test_overall_is_what_the_clip_says_and_the_frames_say_when(model, mixture, text):
    model.presence_head.bias.fill_(9.0)
    out = model(mixture, 0.5 * mixture, text[:, 0])
    estimate = model.estimated(mixture, 0.5 * mixture[:, None], text[:, :1])
    direct = model.clip_head(estimate.clip[:, 0, 0, : len(CLIP)])
    torch.testing.assert_close(out.scores[:, 0], direct[:, 0] * model.std[0] + model.mean[0], rtol=1e-4, atol=1e-4)
    assert float(out.frames[..., 0].std(1).min()) > 1e-4


@torch.no_grad()
@pytest.mark.parametrize(("level", "overall"), [(1.0, 1.0), (0.1, 3.0), (0.0, 5.0)])
def test_of_a_sound_that_surely_is_not_there_only_silence_is_right(model, mixture, text, level, overall):
    model.presence_head.bias.fill_(-30.0)
    out = model(mixture, level * mixture, text[:, 0])
    assert out.scores[:, 0].tolist() == pytest.approx([overall] * 2, abs=1e-2)


def test_padding_is_refused(model, mixture, text):
    mask = torch.ones(2, 11, dtype=torch.bool)
    model(mixture, mixture, text[:, 0], mask)
    mask[1, 7:] = False
    with pytest.raises(ValueError, match="judges no padding"):
        model(mixture, mixture, text[:, 0], mask)


def test_without_its_estimator_it_says_so(model, mixture, text):
    model.estimator = None
    with pytest.raises(ValueError, match="no estimator yet"):
        model(mixture, mixture, text[:, 0])


@pytest.fixture
def whole(model, tmp_path):
    """The folder of a whole model with its Judge."""
    codec, estimator = lapped_init_(DACVAE(CODEC)), model.estimator
    codec.save_pretrained(tmp_path / "codec", torch.float16)
    parts.save(estimator.embedder, tmp_path / "embedder", torch.float32)
    estimator.separator.save(tmp_path / "separator", torch.float32)
    model.use_estimator(Estimator.load(tmp_path))
    checkpoints.save(model, tmp_path / "judge", torch.float32)
    return tmp_path


@torch.no_grad()
def test_a_judge_finds_its_estimator_in_the_whole_model(model, whole, mixture, text):
    again = checkpoints.load(whole / "judge")
    names = parts.read_part(whole / "judge", "judge")[1]
    assert not any(name.startswith(("codec.", "estimator.")) for name in names)
    wanted, found = (m(mixture, 0.5 * mixture, text[:, 0]).scores for m in (model, again))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_judge_that_lies_elsewhere_is_told_where(whole, tmp_path_factory):
    moved = shutil.copytree(whole / "judge", tmp_path_factory.mktemp("elsewhere") / "judge")
    assert checkpoints.load(moved, whole / "codec", whole).estimator is not None


def test_a_judge_keeps_its_own_separator_when_the_model_gets_another(model, whole):
    other = MaskSeparator(MaskConfig(D, 16, width=16, dilations=(1, 2), num_heads=2, hypotheses=2, hint_dim=16))
    other.save(whole / "separator")
    kept = checkpoints.load(whole / "judge").estimator.separator
    assert checkpoints.identity(kept) == checkpoints.identity(model.estimator.separator)
    shutil.rmtree(whole / "judge/separator")  # as those were saved that had none
    with pytest.raises(UserError, match="trained with another embedder or separator"):
        checkpoints.load(whole / "judge")


def test_another_embedder_is_refused(whole):
    torch.manual_seed(5)
    parts.save(embedder(), whole / "embedder", torch.float32)
    with pytest.raises(UserError, match="trained with another embedder or separator"):
        checkpoints.load(whole / "judge")


def test_a_model_without_frames_is_no_estimator(whole):
    parts.save(embedder(frames=False), whole / "embedder")
    with pytest.raises(UserError, match="frame-level head"):
        Estimator.load(whole)


def test_what_else_is_heard_is_asked_for(mixture, text):
    """The separator is asked twice: for the prompt, and for the names that fit what that leaves over."""
    torch.manual_seed(3)
    sizes = MaskConfig(D, 16, width=16, dilations=(1, 2), num_heads=2, hypotheses=2, hint_dim=16, rest=3)
    separator = MaskSeparator(sizes)
    with torch.no_grad():
        for names in separator.names:
            names.copy_(F_.normalize(torch.randn(3, 16), dim=-1))
    asking, captured = Estimator(embedder(), separator), []
    separator.register_forward_hook(lambda module, given, out: captured.append((given[1], out)))
    asking(mixture, mixture[:, None], text, BANDS, 2)
    (asked, _), (other_query, other) = captured
    assert (asked - other_query).abs().max() > 0.1
    without = mixture.repeat_interleave(3, 0) - other.target[:, 0]  # [B * Q, D, F]
    outputs = without.unflatten(0, (2, 3))[:, :1]  # the output is the mixture without the rest, for the first prompt
    found = asking(mixture, outputs, text, BANDS, 2).clip[:, :, 0]
    more = {name: found[..., len(CLIP) + i] for i, name in enumerate(MORE)}
    assert more["output from mixture without other"][:, 0].min() > 3.9  # 40 dB: the same
    assert more["rest from other"][:, 0].min() > 3.9
    level = 10 * (other.target[:, 0].square().sum((1, 2)) / mixture.square().sum((1, 2)).repeat_interleave(3)).log10()
    torch.testing.assert_close(more["other"].flatten(), level / 10, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(more["other presence"].flatten(), other.presence / 5, rtol=1e-3, atol=1e-4)
