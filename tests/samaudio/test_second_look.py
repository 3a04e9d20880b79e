"""A second look knows what the first one left over."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from peav.codec import DACVAE, CodecConfig, lapped_init_
from peav.config import PEAVConfig
from peav.model import PEAV
from peav.rest import rest_query
from peav.transformer import TransformerConfig
from samaudio import train
from samaudio.mask import MaskConfig, MaskOutput, MaskSeparator
from samaudio.model import FIRST, LEFT_OVER, OTHER_SIDE, SEVERAL, SINGLE, MaskModel, Query, unexplained

CODEC = CodecConfig(
    sample_rate=8_000, stem_kernel=160, stem_stride=80, encoder_dim=80, encoder_rates=(), latent_dim=80,
    codebook_dim=80, decoder_dim=80, decoder_rates=(), final_tanh=False,
)  # fmt: skip
SIZES = {"width": 16, "dilations": (1, 2), "attention_every": 2, "num_heads": 2, "hint_dim": 16}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def model() -> MaskModel:
    torch.manual_seed(0)
    codec = lapped_init_(DACVAE(CODEC))
    embedder = PEAV(PEAVConfig(CODEC, TransformerConfig(32, 1, 2, 64), output_dim=16, log_input=True, normalise=True,
                               frames=True))  # fmt: skip
    embedder.use_codec(codec)
    separator = MaskSeparator(MaskConfig(80, 16, hypotheses=2, rest=3, **SIZES))
    for names in separator.names:
        names.copy_(F.normalize(torch.randn(3, 16), dim=-1))
    torch.nn.init.normal_(separator.rest_query[2].weight)
    torch.nn.init.normal_(separator.rest_hints.weight)
    return MaskModel(codec, embedder, separator, {}).eval()


def query() -> Query:
    return Query(F.normalize(torch.randn(16), dim=-1), F.normalize(torch.randn(16), dim=-1))


def look(model: MaskModel, latent: torch.Tensor, asked: Query):
    return model.look(latent, asked, model.ask(latent, asked))


@pytest.mark.parametrize(
    ("left_over", "several"), [(0.0, 0), (SINGLE, 0), ((SINGLE + SEVERAL) / 2, 0.5), (SEVERAL, 1), (math.inf, 1)])
def test_it_is_told_what_the_first_one_left_over(model, monkeypatch, left_over, several):
    monkeypatch.setattr("samaudio.model.unexplained", lambda *_: left_over)
    latent, asked = model.encode(torch.randn(2, 8_000)), query()
    first, found = model.ask(latent, asked), look(model, latent, asked)
    left = latent - first.target[:, 0]
    heard = F.normalize(model.embedder.head("audio", model.embedder.audio(left).pooled).mean(0, keepdim=True), dim=-1)
    rest = rest_query(heard, model.separator.names, asked.clip[None])
    target = model.ask(latent, asked, rest=rest).target
    # The rest is asked for as well, and told of the target.
    other = model.ask(latent, Query(rest[0][0], rest[1][0]), rest=(asked.clip[None], asked.frame[None])).target[:, :1]
    two = (1 - OTHER_SIDE) * target + OTHER_SIDE * (latent[:, None] - other)
    # One query cannot stand for several sounds.
    wanted = several * (FIRST * first.target + (1 - FIRST) * target) + (1 - several) * two
    torch.testing.assert_close(found.target, wanted)
    torch.testing.assert_close(found.residual, latent[:, None] - wanted)
    assert (found.target - first.target).abs().max() > 1e-4
    assert found.presence.equal(first.presence) and found.activity.equal(first.activity)


def test_the_true_rest_makes_two_sides_agree(model):
    """With masks that are right from both sides, joining them changes nothing."""
    latent, asked = model.encode(torch.randn(1, 8_000)), query()
    model.separator.forward = lambda latent, clip, *_, **__: half(latent)
    found = model.look(latent, asked, half(latent))
    torch.testing.assert_close(found.target[:, 0], latent / 2)


def test_of_two_sounds_little_is_left_unexplained_at_any_level():
    two, third = torch.randn(2, 1, 80, 100), torch.randn(1, 80, 100)
    for gain in (0.3, 1.0, 3.0):
        a, b = gain * two[0], two[1]
        assert unexplained(a + b, 0.95 * a, 0.95 * b) < 0.1 * SEVERAL
        assert unexplained(a + b + third * gain**0.5, a, b) > 2 * SEVERAL
    assert unexplained(two[0], two[0], 0 * two[1]) == math.inf


def half(latent: torch.Tensor) -> MaskOutput:
    target = latent[:, None] / 2
    nothing = torch.zeros(1, latent.shape[-1])
    return MaskOutput(target, latent[:, None] - target, nothing, nothing[:, 0], torch.ones(1, 1))


def test_where_nothing_is_left_over_there_is_no_second_look(model):
    for mask in model.separator.masks:
        mask.weight.zero_()
        mask.bias.fill_(20.0)  # everything is the target
    latent, asked = model.encode(torch.randn(1, 8_000)), query()
    calls = []
    model.separator.register_forward_hook(lambda *_: calls.append(1))
    found = look(model, latent, asked)
    assert (latent - found.target[:, 0]).square().sum() < LEFT_OVER * latent.square().sum() and len(calls) == 1


def test_a_span_alone_may_be_looked_at_twice(model):
    latent = model.encode(torch.randn(1, 8_000))
    assert look(model, latent, Query(torch.full((16,), torch.nan))).target.isfinite().all()


def test_a_separator_that_knows_no_names_looks_once(model):
    model.separator = MaskSeparator(MaskConfig(80, 16, hypotheses=2, **SIZES)).eval()
    latent, asked = model.encode(torch.randn(1, 8_000)), query()
    assert look(model, latent, asked).target.equal(model.ask(latent, asked).target)


def test_training_tells_what_inference_will_hear(model):
    """The true rest, encoded, is what a perfect first look leaves over."""
    latent, asked = model.encode(torch.randn(3, 8_000)), Query(F.normalize(torch.randn(3, 16), dim=-1),
                                                               F.normalize(torch.randn(3, 16), dim=-1))
    frames = train.frames_of(model, latent, asked)
    rest = model.encode(torch.randn(3, 8_000))
    clip, agreement = train.listen_to_rest(model, rest, frames, asked)
    heard = model.embedder.head("audio", model.embedder.audio(rest).pooled)
    wanted = rest_query(heard, model.separator.names, asked.clip)
    torch.testing.assert_close(clip, wanted[0])
    torch.testing.assert_close(agreement, (frames * wanted[1][:, None] * 16).transpose(1, 2))
    hidden, _ = train.listen_to_rest(model, rest, frames, asked, drop=1.0)
    assert hidden.isnan().all()


def test_a_separator_is_grown_from_one_of_another_size(model):
    """Presence and what fits is kept, whatever the number of hypotheses."""
    old = MaskSeparator(MaskConfig(80, 16, hypotheses=2, detail=8, **SIZES)).eval()
    torch.nn.init.normal_(old.detail.leave.weight)
    for K in (1, 4):
        new = MaskSeparator(MaskConfig(80, 16, hypotheses=K, detail=8, **SIZES)).eval()
        train._start_from(new, old)
        latent, asked = model.encode(torch.randn(1, 8_000)).clone(), F.normalize(torch.randn(1, 16), dim=-1)
        before, after = old(latent, asked), new(latent, asked)
        torch.testing.assert_close(after.target[:, 0], before.target[:, 0])
        torch.testing.assert_close(after.presence, before.presence)
        torch.testing.assert_close(after.confidence[:, : min(K, 2)], before.confidence[:, : min(K, 2)])


def test_further_hypotheses_learn_alone():
    """Steps that grow hypotheses leave the first one and presence bit by bit as they were."""
    torch.manual_seed(0)
    separator = MaskSeparator(MaskConfig(80, 16, hypotheses=3, detail=8, **SIZES))
    torch.nn.init.normal_(separator.detail.leave.weight)
    latent, asked = torch.randn(2, 80, 12), F.normalize(torch.randn(2, 16), dim=-1)
    before = separator(latent, asked)
    optimizer = torch.optim.AdamW(train._only_further_hypotheses(separator), lr=0.01, weight_decay=0.0)
    with torch.enable_grad():
        for _ in range(3):
            out = separator(latent, asked)
            optimizer.zero_grad()
            (out.target.square().mean() + out.presence.sum() + out.confidence[:, 2].sum()).backward()
            optimizer.step()
    after = separator(latent, asked)
    assert after.target[:, 0].equal(before.target[:, 0]) and after.presence.equal(before.presence)
    assert after.activity.equal(before.activity)
    for k in (1, 2):
        assert (after.target[:, k] - before.target[:, k]).abs().max() > 1e-3
    assert (after.confidence - before.confidence).abs().max() > 1e-3


def _answer(target: torch.Tensor, confidence: torch.Tensor) -> MaskOutput:
    Q, _, _, frames = target.shape
    return MaskOutput(target, -target, torch.zeros(Q, frames), torch.zeros(Q), confidence)


def test_the_best_further_hypothesis_learns_most_and_the_first_not_at_all():
    torch.manual_seed(0)
    true, latent = torch.randn(2, 8, 5), torch.randn(2, 8, 5)
    off = torch.tensor([[0.01, 0.5, 0.1, 1.0], [2.0, 0.2, 1.5, 0.9]])  # distance of each hypothesis from the truth
    guess = (true[:, None] + off[..., None, None] * torch.randn(2, 4, 8, 5)).requires_grad_()
    with torch.enable_grad():
        terms = train.further_losses(_answer(guess, torch.zeros(2, 4)), true, latent)
        terms["further"].backward()
    norms = (guess.grad * (guess - true[:, None])).detach().abs().sum((2, 3))
    assert norms[:, 0].eq(0).all()
    assert norms.argmax(1).tolist() == [2, 1]
    assert (norms[:, 1:] > 0).all()
    sure = torch.full((2, 4), -20.0)
    sure[0, 0] = sure[1, 1] = 20.0  # the truly best of all four
    assert train.further_losses(_answer(guess, sure), true, latent)["confidence"] < 1e-6
    assert train.further_losses(_answer(guess[:, :1], sure[:, :1]), true, latent) == {}


def test_silence_is_no_perfect_answer_where_something_sounds():
    true, latent = torch.randn(1, 8, 5), torch.randn(1, 8, 5)
    silent, right = (_answer(x.expand(1, 2, 8, 5), torch.zeros(1, 2)) for x in (torch.zeros(1), true[:, None]))
    wrong, quiet = (train.further_losses(out, true, latent)["further"] for out in (silent, right))
    assert quiet == pytest.approx(-30) and wrong == pytest.approx(0, abs=0.01)
    assert train.further_losses(silent, torch.zeros(1, 8, 5), latent)["further"] == pytest.approx(-13, abs=0.1)
