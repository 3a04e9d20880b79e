"""The pairwise sigmoid loss, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F_

from peav.losses import sigmoid_contrastive

A = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
B = torch.tensor([[1.0, 0.5], [1.0, 1.0]])
SCALE, BIAS = torch.tensor(2.0), torch.tensor(-1.0)
# a @ b.T is [[1, 1], [1, 2]], so the logits are [[1, 1], [1, 3]].


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def test_two_by_two_by_hand():
    by_hand = (softplus(-1) + softplus(1) + softplus(1) + softplus(-3)) / 2
    assert float(sigmoid_contrastive(A, B, SCALE, BIAS)) == pytest.approx(by_hand, rel=1e-6)


def test_negatives_are_minus_one_and_not_zero():
    logits = A @ B.T * SCALE + BIAS
    mistake = -F_.logsigmoid(torch.eye(2) * logits).sum() / 2
    assert abs(float(sigmoid_contrastive(A, B, SCALE, BIAS) - mistake)) > 0.5


def test_negatives_push_apart_as_far_as_they_are_believed():
    a, b = torch.eye(2).requires_grad_(), torch.eye(2)
    sigmoid_contrastive(a, b, SCALE, BIAS).backward()
    # Entry (0, 1) of a only meets b's second row, a negative with logit -1.
    assert float(a.grad[0, 1]) == pytest.approx(2 * torch.sigmoid(torch.tensor(-1.0)).item() / 2)
    assert float(a.grad[0, 0]) == pytest.approx(-2 * torch.sigmoid(torch.tensor(-1.0)).item() / 2)


def test_pairs_that_match_too_are_left_out():
    same = torch.tensor([[True, True], [False, True]])
    by_hand = (softplus(-1) + softplus(1) + softplus(-3)) / 2  # without entry (0, 1)
    assert float(sigmoid_contrastive(A, B, SCALE, BIAS, same)) == pytest.approx(by_hand, rel=1e-6)


def test_a_pair_left_out_has_no_gradient():
    a, b = torch.eye(2).requires_grad_(), torch.eye(2)
    sigmoid_contrastive(a, b, SCALE, BIAS, torch.ones(2, 2, dtype=torch.bool)).backward()
    assert float(a.grad[0, 1]) == 0 and float(a.grad[1, 0]) == 0 and float(a.grad[0, 0]) < 0


def test_better_matches_cost_less():
    aligned = sigmoid_contrastive(torch.eye(3), torch.eye(3), torch.tensor(10.0), torch.tensor(-5.0))
    shuffled = sigmoid_contrastive(torch.eye(3), torch.eye(3).roll(1, 0), torch.tensor(10.0), torch.tensor(-5.0))
    assert float(aligned) < 0.1 < float(shuffled)


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (3, 3)), ((2, 3), (2, 4)), ((3,), (3,))], ids=["rows", "widths", "vectors"])
def test_other_shapes_are_refused(a, b):
    with pytest.raises(ValueError, match=r"must both be \[B, E\]"):
        sigmoid_contrastive(torch.zeros(a), torch.zeros(b), SCALE, BIAS)
