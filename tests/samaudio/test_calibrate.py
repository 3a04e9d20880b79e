"""Presence: the regression on data whose answer is known, and what the model makes of it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from samaudio.calibrate import logistic
from samaudio.mask import MaskOutput
from samaudio.model import MaskModel, Query


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
