"""Presence: the regression on data whose answer is known, and what the model makes of it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from samaudio.calibrate import logistic
from samaudio.mask import MaskOutput
from samaudio.model import MaskModel


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


def test_presence_joins_the_most_certain_channel_and_the_level_taken_out():
    latent = torch.ones(2, 3, 4)
    out = MaskOutput(0.1 * latent[:, None], 0.9 * latent[:, None], torch.zeros(2, 4), torch.tensor([-3.0, 1.0]),
                     torch.zeros(2, 1))
    assert MaskModel.evidence(latent, out).tolist() == pytest.approx([1.0, -20.0], abs=1e-4)
    weights = {"head": 2.0, "level": 0.1, "bias": 0.5}
    model = SimpleNamespace(settings={"presence": weights}, evidence=MaskModel.evidence)
    assert MaskModel._presence(model, latent, out) == pytest.approx(1 / (1 + math.exp(-0.5)))
