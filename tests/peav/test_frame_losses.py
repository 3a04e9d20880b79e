"""PE-A-Frame's loss, worked out by hand, with the negatives of a clip and of a batch."""

from __future__ import annotations

import math

import pytest
import torch

from peav.frame_losses import FrameLoss, draw_negatives, frame_contrastive
from peav.losses import match_keys

SCALE, BIAS = torch.tensor(2.0), torch.tensor(-1.0)


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


# Two clips of two frames, one text each.
FRAMES = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, 0.0]]])
TEXT = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
TARGETS = torch.tensor([[[1, 0]], [[0, 1]]])
# Logits of the first text: 1, -1 in its clip, 1, 3 in the other; of the second: 1, -1 in its clip, -1, 1 in the other.


def test_local_by_hand():
    by_hand = (softplus(-1) + softplus(-1) + softplus(1) + softplus(1)) / 4
    assert float(frame_contrastive(FRAMES, TEXT, TARGETS, SCALE, BIAS)) == pytest.approx(by_hand, rel=1e-6)


def test_global_by_hand():
    local = softplus(-1) + softplus(-1) + softplus(1) + softplus(1)
    others = softplus(1) + softplus(3) + softplus(-1) + softplus(1)  # all negatives
    found = frame_contrastive(FRAMES, TEXT, TARGETS, SCALE, BIAS, negatives="global")
    assert float(found) == pytest.approx((local + others) / 4, rel=1e-6)


def test_inactive_frames_are_minus_one_and_not_zero():
    frames = FRAMES.clone().requires_grad_()
    frame_contrastive(frames, TEXT, TARGETS, SCALE, BIAS).backward()
    # The second frame of the first clip is a negative of its text, with logit -1.
    assert float(frames.grad[0, 1, 0]) == pytest.approx(2 * torch.sigmoid(torch.tensor(-1.0)).item() / 4)


def test_padding_counts_neither_as_frame_nor_as_text():
    frames = torch.cat((FRAMES, torch.full((2, 1, 2), 9.0)), 1)
    text = torch.cat((TEXT, torch.full((2, 1, 2), 9.0)), 1)
    targets = torch.nn.functional.pad(TARGETS, (0, 1, 0, 1), value=1)
    masks = {"frame_mask": torch.tensor([[1, 1, 0]] * 2), "text_mask": torch.tensor([[1, 0]] * 2)}
    for negatives in ("local", "global"):
        found = frame_contrastive(frames, text, targets, SCALE, BIAS, negatives=negatives, **masks)
        wanted = frame_contrastive(FRAMES, TEXT, TARGETS, SCALE, BIAS, negatives=negatives)
        assert float(found) == pytest.approx(float(wanted), rel=1e-6)


def test_texts_that_all_clips_are_labelled_with():
    text, targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[[1, 0], [0, 0]], [[0, 0], [0, 1]]])
    found = frame_contrastive(FRAMES, text, targets, SCALE, BIAS)
    rows = [(1, 1), (-1, 0), (-1, 0), (1, 0), (1, 0), (3, 0), (1, 0), (-1, 1)]  # logit and target
    assert float(found) == pytest.approx(sum(softplus(-x if y else x) for x, y in rows) / 4, rel=1e-6)


def test_the_same_caption_in_another_clip_is_unknown():
    keys = match_keys(["rain", "Rain"])
    local = frame_contrastive(FRAMES, TEXT, TARGETS, SCALE, BIAS)
    found = frame_contrastive(FRAMES, TEXT, TARGETS, SCALE, BIAS, negatives="global", keys=keys)
    assert float(found) == pytest.approx(float(local), rel=1e-6)
    other = frame_contrastive(FRAMES, TEXT, TARGETS, SCALE, BIAS, negatives="global", keys=match_keys(["rain", "sea"]))
    assert float(other) > float(local) + 1


@pytest.mark.parametrize("negatives", ["local", "global"])
def test_chunks_change_neither_value_nor_gradients(negatives):
    torch.manual_seed(0)
    frames, text = torch.randn(5, 4, 3, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    targets, keys = torch.rand(5, 2, 4) < 0.5, match_keys(list("abcadefghi")).view(5, 2)
    results = []
    for size in (None, 2):
        inputs = [x.clone().requires_grad_() for x in (frames, text)]
        loss = FrameLoss(2.0, -1.0, size).double()
        value = loss(*inputs, targets, negatives=negatives, keys=keys)
        value.backward()
        results.append([value.detach(), *(x.grad for x in (*inputs, *loss.parameters()))])
    for whole, chunked in zip(*results, strict=True):
        assert torch.allclose(whole, chunked, rtol=1e-12, atol=1e-14)


def test_the_local_question_is_drawn_as_often_as_asked_and_alike_everywhere():
    drawn = [draw_negatives(step, 0.7) for step in range(1000)]
    assert drawn.count("local") == pytest.approx(700, abs=50) and set(drawn) == {"local", "global"}
    assert drawn == [draw_negatives(step, 0.7) for step in range(1000)]
    assert drawn != [draw_negatives(step, 0.7, seed=1) for step in range(1000)]
    assert {draw_negatives(step, 1.0) for step in range(9)} == {"local"}


def test_its_scale_goes_to_a_model():
    model = torch.nn.Module()
    model.text_frame_logit_scale = torch.nn.Parameter(torch.zeros(1))
    model.text_frame_logit_bias = torch.nn.Parameter(torch.zeros(1))
    FrameLoss(4.0, -3.0).export_to(model)
    assert float(model.text_frame_logit_scale) == pytest.approx(4) and float(model.text_frame_logit_bias) == -3


@pytest.mark.parametrize(
    ("change", "message"),
    [({"negatives": "all"}, "negatives='all'"), ({"text": TEXT[0], "negatives": "global"}, "negatives='global'"),
     ({"targets": TARGETS[:, :, :1]}, r"targets \(2, 1, 1\)"), ({"frame_mask": torch.ones(2, 3)}, r"masks \(2, 3\)")],
    ids=["unknown", "shared", "targets", "mask"])  # fmt: skip
def test_what_does_not_fit_is_refused(change, message):
    given = {"frames": FRAMES, "text": TEXT, "targets": TARGETS, "scale": SCALE, "bias": BIAS} | change
    with pytest.raises(ValueError, match=message):
        frame_contrastive(**given)
