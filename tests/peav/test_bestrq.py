"""BEST-RQ: labels that mean something, spans of the right size, and a loss that looks at masked frames alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from peav.bestrq import BestRQ, BestRQConfig, RandomProjectionQuantizer, draw_spans

SMALL = BestRQConfig(codebook_size=32, codebook_dim=4, mask_probability=0.1, mask_length=3)


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- labels ----------------------------------------------------------------------------------------


def test_a_label_is_the_nearest_entry():
    quantizer = RandomProjectionQuantizer(6, BestRQConfig(codebook_size=16, codebook_dim=3, num_codebooks=2))
    x = features(2, 5, 6)
    labels = quantizer(x)
    assert labels.shape == (2, 5, 2)
    for c in range(2):
        projected = nn.functional.normalize(x @ quantizer.projection[c], dim=-1)
        distances = torch.cdist(projected, quantizer.codebook[c].expand(2, -1, -1))
        assert torch.equal(labels[..., c], distances.argmin(-1))
    assert not torch.equal(labels[..., 0], labels[..., 1])


def test_it_is_frozen_and_the_same_everywhere():
    torch.manual_seed(1)
    one = RandomProjectionQuantizer(6, SMALL)
    torch.manual_seed(2)
    two = RandomProjectionQuantizer(6, SMALL)
    assert not list(one.parameters()) and torch.equal(one(features(1, 50, 6)), two(features(1, 50, 6)))
    other = RandomProjectionQuantizer(6, BestRQConfig(codebook_size=32, codebook_dim=4, seed=1))
    assert not torch.equal(one(features(1, 50, 6)), other(features(1, 50, 6)))


def test_labels_are_spread_over_the_codebook():
    # Features far from zero would all get the label of their mean, were they not centred.
    bestrq = BestRQ(6, 8, SMALL)
    x = 5 + features(4, 100, 6)
    groups, _ = bestrq.groups(x)
    assert len(bestrq.quantizer(groups).unique()) > 24 > 4 > len(bestrq.quantizer(x).unique())


def test_labels_depend_neither_on_level_nor_on_the_batch():
    bestrq = BestRQ(6, 8, SMALL)
    short = features(1, 7, 6)
    alone = bestrq.quantizer(bestrq.groups(short)[0])
    batch = torch.cat((100 + nn.functional.pad(10 * short, (0, 0, 0, 5)), features(1, 12, 6, seed=1)))
    mask = torch.arange(12) < torch.tensor([[7], [12]])
    groups, valid = bestrq.groups(batch, mask)
    assert torch.equal(bestrq.quantizer(groups)[:1, :7], alone) and torch.equal(valid, mask)


# --- masks -----------------------------------------------------------------------------------------


def test_spans_have_their_length_and_their_number():
    torch.manual_seed(0)
    hidden = draw_spans(torch.ones(200, 100, dtype=torch.bool), 0.04, 10)
    # A frame stays if none of the ten places from which a span would reach it starts one; fewer at the beginning.
    assert float(hidden[:, 10:].float().mean()) == pytest.approx(1 - 0.96**10, abs=0.02)
    assert float(hidden[:, 0].float().mean()) == pytest.approx(0.04, abs=0.04)
    for row in hidden[:, :-10].int():
        runs = "".join(map(str, row.tolist())).split("0")
        # Spans may overlap, and one that reaches beyond the end is cut, but none is shorter inside.
        assert all(len(run) >= 10 for run in runs[:-1] if run)


def test_padding_is_never_hidden():
    valid = torch.arange(20) < torch.tensor([[5], [20], [1]])
    assert not (draw_spans(valid, 0.9, 3) & ~valid).any()


def test_hidden_frames_become_noise_and_others_stay():
    bestrq = BestRQ(4, 8, BestRQConfig(noise=0.1))
    x = 3 + 2 * features(8, 500, 4)
    hidden = torch.zeros(8, 500, dtype=torch.bool)
    hidden[:, 100:300] = True
    masked = bestrq.hide(x, hidden)
    assert torch.equal(masked[~hidden], x[~hidden])
    # A tenth of the features' deviation, around their mean.
    assert float(masked[hidden].mean()) == pytest.approx(3, abs=0.1)
    assert float(masked[hidden].std()) == pytest.approx(0.2, abs=0.06)


# --- the loss --------------------------------------------------------------------------------------


class Oracle(nn.Module):
    """A tower that has seen the unmasked features and passes the right answer through, as a one-hot vector."""

    def __init__(self, bestrq: BestRQ, x: Tensor) -> None:
        super().__init__()
        self.answer = nn.functional.one_hot(bestrq.quantizer(bestrq.groups(x)[0])[..., 0], 32).float()

    def forward(self, masked: Tensor, mask: Tensor | None) -> Tensor:
        return self.answer


def test_the_right_guess_costs_nothing_and_no_idea_the_logarithm_of_the_codebook():
    x, bestrq = features(3, 40, 6), BestRQ(6, 32, SMALL)
    with torch.no_grad():
        bestrq.guess.weight.copy_(50 * torch.eye(32))
        bestrq.guess.bias.zero_()
        assert float(bestrq(x, Oracle(bestrq, x))) < 1e-6
        bestrq.guess.weight.zero_()
    assert float(bestrq(x, Oracle(bestrq, x)).detach()) == pytest.approx(math.log(32), rel=1e-5)


def test_only_hidden_frames_are_asked():
    torch.manual_seed(0)
    x, bestrq = features(2, 30, 6), BestRQ(6, 5, SMALL)
    seen = {}

    def tower(masked: Tensor, mask: Tensor | None) -> Tensor:
        seen["hidden"] = (masked != x).any(-1)
        seen["out"] = torch.zeros(2, 30, 5, requires_grad=True)
        return seen["out"]

    bestrq(x, tower).backward()
    asked = seen["out"].grad.abs().sum(-1) > 0
    assert torch.equal(asked, seen["hidden"]) and 0 < int(asked.sum()) < 60


def test_it_can_be_learned_from_the_neighbours():
    """Frames come in runs of six, so what is hidden can be read off what is around it."""
    torch.manual_seed(0)
    config = BestRQConfig(codebook_size=16, codebook_dim=4, mask_probability=0.1, mask_length=3)
    x = features(64, 6, 5).repeat_interleave(6, 1)
    bestrq, conv = BestRQ(5, 32, config), nn.Sequential(nn.Conv1d(5, 64, 7, padding=3), nn.ReLU(), nn.Conv1d(64, 32, 1))

    def tower(masked: Tensor, mask: Tensor | None) -> Tensor:
        return conv(masked.transpose(1, 2)).transpose(1, 2)

    optimizer = torch.optim.Adam([*conv.parameters(), *bestrq.parameters()], 1e-2)
    losses = []
    for _ in range(80):
        loss = bestrq(x, tower)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < 0.7 * math.log(16)


@pytest.mark.parametrize("frames", [21, 6], ids=["one_per_frame", "one_per_group"])
def test_stacked_frames_share_a_label(frames):
    """Groups of four; a tower that stacks them itself and one that does not both fit."""
    config = BestRQConfig(stack=4, codebook_size=8, codebook_dim=3, num_codebooks=2, mask_probability=1.0)
    bestrq = BestRQ(3, 5, config)
    x = features(2, 21, 3)
    mask = torch.arange(21) < torch.tensor([[21], [14]])
    groups, valid = bestrq.groups(x, mask)
    assert groups.shape == (2, 6, 12)
    assert valid.sum(1).tolist() == [5, 3]  # 21 and 14 frames have 5 and 3 whole groups

    out = torch.zeros(2, frames, 5, requires_grad=True)
    loss = bestrq(x, lambda masked, m: out, mask)
    loss.backward()
    reached = (out.grad.abs().sum(-1) > 0).sum(1).tolist()
    assert reached == ([20, 12] if frames == 21 else [5, 3])


def test_nothing_hidden_costs_nothing_and_keeps_the_graph():
    bestrq = BestRQ(3, 5, BestRQConfig(mask_probability=1e-9))
    out = torch.zeros(1, 4, 5, requires_grad=True)
    loss = bestrq(features(1, 4, 3), lambda masked, mask: out)
    loss.backward()
    assert float(loss.detach()) == 0 and float(out.grad.abs().sum()) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda b: b(features(4, 3), lambda x, m: x), r"features \(4, 3\) and mask None"),
     (lambda b: b(features(1, 4, 3), lambda x, m: x[:, :3]), "the tower made 3 frames of 4"),
     (lambda b: BestRQConfig(mask_length=0), "mask_length=0"),
     (lambda b: BestRQConfig(mask_probability=0.0), r"mask_probability=0.0; give a number above 0")],
    ids=["shape", "frames", "length", "probability"])  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(BestRQ(3, 3, SMALL))
