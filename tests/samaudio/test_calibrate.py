"""Presence: the regression on data whose answer is known, and what the model makes of it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from samaudio.calibrate import logistic
from samaudio.mask import MaskConfig, MaskOutput, MaskSeparator, hints_of
from samaudio.model import MaskModel, Query
from samaudio.train import frames_of, hear


def test_the_regression_finds_the_weights_that_made_the_data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 2, generator=generator) * torch.tensor([2.0, 5.0])
    odds = 1.5 * x[:, 0] - 0.4 * x[:, 1] + 0.3
    y = torch.rand(len(x), generator=generator) < odds.sigmoid()
    slope, bias = logistic(x, y, ridge=0.0)
    assert slope.tolist() == pytest.approx([1.5, -0.4], rel=0.06)
    # Weighting the classes alike moves the bias by the log-odds of the classes.
    assert bias == pytest.approx(0.3 - math.log(float(y.double().mean() / (1 - y.double().mean()))), abs=0.06)


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match="there and sounds that are not"):
        logistic(torch.randn(10, 2), torch.ones(10))


class Ears:
    """An embedder whose frame embeddings are the latent itself."""

    has_frames = True

    def audio(self, latent):
        return SimpleNamespace(frames=latent.transpose(1, 2))

    def head(self, name, frames):
        assert name == "frame"
        return frames

    def frame_pairs(self, frames, text):
        return torch.einsum("bfe,qe->bqf", frames, text)


def model(settings=None, embedder=None) -> MaskModel:
    made = MaskModel.__new__(MaskModel)
    torch.nn.Module.__init__(made)
    made.embedder, made.settings, made._last_frames = embedder, settings or {}, None
    return made


def test_presence_joins_the_most_certain_channel_and_the_level_taken_out():
    latent = torch.ones(2, 3, 4)
    out = MaskOutput(0.1 * latent[:, None], 0.9 * latent[:, None], torch.zeros(2, 4), torch.tensor([-3.0, 1.0]),
                     torch.zeros(2, 1))
    query = Query(torch.zeros(3))
    made = model({"presence": {"head": 2.0, "level": 0.1, "bias": 0.5}})
    assert made.evidence(latent, out, query).tolist() == pytest.approx([1.0, -20.0], abs=1e-4)
    assert made._presence(latent, out, query) == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_presence_hears_a_sound_that_is_there_for_a_moment():
    latent = torch.zeros(2, 3, 100)
    latent[:, 0] = 0.1
    latent[1, 1, 40:45] = 4.0
    out = MaskOutput(latent[:, None], latent[:, None], torch.zeros(2, 100), torch.zeros(2), torch.zeros(2, 1))
    made = model({"presence": {"head": 0.0, "frame": 1.0, "bias": 0.0}}, Ears())
    there, elsewhere = (Query(torch.zeros(3), torch.tensor(v)) for v in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0]))
    assert made.evidence(latent, out, there)[2] == pytest.approx(4.0)
    assert made.evidence(latent, out, elsewhere)[2] == pytest.approx(0.0)
    assert made._presence(latent, out, there) > 0.95 > 0.6 > made._presence(latent, out, elsewhere)


def test_frame_embeddings_of_a_chunk_are_made_once():
    made, calls = model(embedder=Ears()), []
    made.embedder.audio = lambda latent: calls.append(1) or SimpleNamespace(frames=latent.transpose(1, 2))
    first, second = torch.ones(1, 3, 4), torch.ones(1, 3, 4)
    for latent in (first, first, second, first):
        made._frames(latent)
    assert len(calls) == 3


# --- the same ears tell the separator where to look -----------------------------------------------


@pytest.fixture
def hinted() -> MaskModel:
    torch.manual_seed(0)
    made = model(embedder=Ears())
    config = MaskConfig(3, 3, width=8, dilations=(1, 1), num_heads=2, hypotheses=1, hint_dim=3)
    made.separator = MaskSeparator(config).eval()
    torch.nn.init.normal_(made.separator.hints.weight)
    return made


@pytest.mark.parametrize("named", [True, False], ids=["named", "span alone"])
def test_the_separator_is_told_what_the_embedder_hears(hinted, named):
    latent = torch.randn(2, 3, 12)
    frame = torch.tensor([0.0, 1.0, 0.0]) if named else torch.full((3,), torch.nan)
    query = Query(torch.randn(3), frame if named else None)
    hints = hints_of(latent.transpose(1, 2), frame.expand(2, -1))
    wanted = hinted.separator(latent, query.clip.expand(2, -1), hints=hints)
    torch.testing.assert_close(hinted.ask(latent, query).target, wanted.target)


def test_in_training_some_hints_are_hidden_whole(hinted):
    latent = torch.randn(40, 3, 12)
    query = Query(torch.randn(80, 3), torch.randn(80, 3))
    frames = frames_of(hinted, latent, query)
    plain, hidden = hear(frames, query), hear(frames, query, drop=0.5)
    assert plain.shape == (80, 6, 12) and plain.abs().amax((1, 2)).min() > 0
    gone = hidden.abs().amax((1, 2)) == 0
    assert 20 < int(gone.sum()) < 60
    torch.testing.assert_close(hidden[~gone], plain[~gone])


def test_two_questions_about_a_mixture_share_what_is_heard(hinted):
    latent, query = torch.randn(2, 3, 12), Query(torch.randn(4, 3), torch.randn(4, 3))
    hints = hear(frames_of(hinted, latent, query), query)
    torch.testing.assert_close(hints[0, :3], hints[1, :3])
    assert (hints[1, :3] - hints[2, :3]).abs().max() > 0.1
