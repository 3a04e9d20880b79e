"""The pairwise sigmoid loss, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F_
from torch.utils._python_dispatch import TorchDispatchMode

from peav.losses import match_keys, matches, sharded_sigmoid_contrastive, sigmoid_contrastive

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


# --- by chunks, and with keys ----------------------------------------------------------------------


def batch(rows: int = 7, width: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    a, b = torch.randn(2, rows, width, dtype=torch.float64, requires_grad=True).unbind()
    return a.detach().requires_grad_(), b.detach().requires_grad_(), SCALE.double().requires_grad_(), BIAS.double(
    ).requires_grad_()


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_chunks_change_neither_value_nor_gradients(chunk_size):
    keys = match_keys(["a", "b", "a", "c", "d", "e", "b"])
    found = []
    for size in (None, chunk_size):
        inputs = batch()
        loss = sigmoid_contrastive(*inputs, same=matches(keys, keys), keys=keys, chunk_size=size)
        loss.backward()
        found.append([loss.detach(), *(x.grad for x in inputs)])
    for whole, chunked in zip(*found, strict=True):
        assert torch.allclose(whole, chunked, rtol=1e-12, atol=1e-14)


class LargestTensor(TorchDispatchMode):
    """Most elements that any operation gave back."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.most = max(self.most, out.numel())
        return out


@pytest.mark.parametrize(("chunk_size", "most"), [(None, 64 * 64), (8, 8 * 64)], ids=["whole", "chunked"])
def test_logits_of_all_pairs_never_exist_at_once(chunk_size, most):
    inputs = batch(rows=64, width=2)
    keys = match_keys([str(i) for i in range(64)])
    with LargestTensor() as seen:  # the backward pass included
        sigmoid_contrastive(*inputs, keys=keys, chunk_size=chunk_size).backward()
    assert seen.most == most


def test_keys_leave_out_what_same_leaves_out():
    a, b, scale, bias = (x.detach() for x in batch())
    keys = match_keys(["dog", "rain", "Dog ", "wind", "rain", "sea", "dog"])
    same = torch.tensor([[i == j or {i, j} in ({0, 2}, {0, 6}, {2, 6}, {1, 4}) for j in range(7)] for i in range(7)])
    by_keys = sigmoid_contrastive(a, b, scale, bias, keys=keys)
    assert float(by_keys) == pytest.approx(float(sigmoid_contrastive(a, b, scale, bias, same)), rel=1e-12)
    assert float(by_keys) < float(sigmoid_contrastive(a, b, scale, bias))


def test_labels_match_where_they_overlap_and_none_matches_nothing():
    keys = match_keys([{"dog", "rain"}, {"rain", "wind"}, {"wind"}, None, ()])
    assert keys.shape == (5, 2)
    wanted = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)
    found = matches(keys, keys)
    assert torch.equal(found[:3, :3], wanted) and not found[3:].any() and not found[:, 3:].any()


def test_items_of_different_kinds_never_match():
    assert not matches(match_keys(["a dog"], "audio"), match_keys(["a dog"], "video")).any()
    assert matches(match_keys(["a dog"], "audio"), match_keys(["A  dog\n"], "audio")).all()


def test_keys_are_the_same_in_every_process():
    # Python's own hash is not.
    assert match_keys(["a dog"], "audio").tolist() == [[8731342588117853792]]


def test_too_many_labels_are_refused():
    with pytest.raises(ValueError, match="an item has 2 labels, but size=1"):
        match_keys([["a", "b"]], size=1)


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk_size=0"):
        sigmoid_contrastive(A, B, SCALE, BIAS, chunk_size=0)


def test_keys_of_another_batch_are_refused():
    with pytest.raises(ValueError, match="keys has 3 rows for 2 embeddings"):
        sigmoid_contrastive(A, B, SCALE, BIAS, keys=match_keys(["a", "b", "c"]))


def test_half_precision_is_added_up_in_single():
    a = torch.nn.functional.normalize(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    exact = sigmoid_contrastive(a, a, SCALE * 5, BIAS * 10)
    with torch.autocast("cpu", torch.bfloat16):
        inside = sigmoid_contrastive(a, a, SCALE * 5, BIAS * 10)
    assert inside.dtype == torch.float32 and float(inside) == float(exact)


def test_alone_the_sharded_loss_is_the_plain_one():
    a, b, scale, bias = (x.detach() for x in batch())
    keys = match_keys(["a", "b", "a", "c", "d", "e", "b"])
    plain = sigmoid_contrastive(a, b, scale, bias, keys=keys)
    assert torch.equal(sharded_sigmoid_contrastive(a, b, scale, bias, keys=keys, chunk_size=3), sigmoid_contrastive(
        a, b, scale, bias, keys=keys, chunk_size=3))
    assert float(sharded_sigmoid_contrastive(a, b, scale, bias, keys=keys)) == float(plain)
