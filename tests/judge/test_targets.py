"""What separations deserve, where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from judge import degrade
from judge.targets import NAMES, RANGES, SILENT_DB, at_frames, block_samples, measure, to_scores

RATE = 8_000
SECONDS = 2.0
OVERALL, RECALL, PRECISION, FAITHFULNESS = range(4)


def noise(seed: int, seconds: float = SECONDS) -> Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


S, N = noise(0), noise(1)
N *= S.norm() / N.norm()


def judged(*outputs: Tensor, target: Tensor = S, mixture: Tensor = S + N):
    return measure(torch.stack(outputs), target, mixture, RATE)


@pytest.mark.parametrize("level", [-25.0, -10.0, 0.0])
def test_precision_is_what_leaks(level):
    found = judged(degrade.leak(S, N, level))
    assert found.db[0, PRECISION] == pytest.approx(-level, abs=0.5)
    assert found.si_sdr[0] == pytest.approx(-level, abs=0.5)
    assert found.scores[0, RECALL] == found.scores[0, FAITHFULNESS] == 5


@pytest.mark.parametrize("taken", [2.0, 6.0, 12.0])
def test_recall_is_what_is_left(taken):
    found = judged(degrade.suppress(S, taken))
    assert found.db[0, RECALL] == pytest.approx(-20 * math.log10(1 - 10 ** (-taken / 20)), abs=0.1)
    assert found.scores[0, PRECISION] == found.scores[0, FAITHFULNESS] == 5
    assert found.si_sdr[0] > 40  # which a factor does not change


def test_half_the_time_is_half_the_energy():
    found = judged(degrade.suppress_stretch(S, 0.0, 1.0, 80, RATE))
    assert found.db[0, RECALL] == pytest.approx(3, abs=0.4)
    assert found.db[0, OVERALL] == pytest.approx(0, abs=0.4)
    assert found.scores[0, PRECISION] > 4.9


@pytest.mark.parametrize("level", [-15.0, -5.0])
def test_faithfulness_is_what_was_added(level):
    found = judged(S + degrade.gain(level) * noise(7) * (S.norm() / noise(7).norm()))
    # Two gains fitted to each tile explain a few percent of any noise.
    assert found.db[0, FAITHFULNESS] == pytest.approx(-level, abs=1.0)
    assert found.scores[0, PRECISION] > found.scores[0, FAITHFULNESS]


def test_a_mask_may_change_over_time_without_being_an_artefact():
    slow = 0.6 + 0.4 * torch.sin(2 * math.pi * 0.5 * torch.arange(len(S)) / RATE)
    found = judged(slow * S)
    assert found.db[0, FAITHFULNESS] > 18 and found.scores[0, RECALL] < 4


def test_extremes():
    found = judged(S, S + N, N, 0 * S)
    assert found.scores[0].tolist() == [5, 5, 5, 5]
    assert found.scores[1].tolist() == pytest.approx([2.5, 5, 2, 5], abs=0.1)  # everything at 0 dB
    assert found.scores[2].tolist() == pytest.approx([1, 1, 1, 5], abs=0.1)  # the wrong sound, well cut
    assert found.scores[3, :2].tolist() == [1, 1] and bool(found.scores[3, 2:].isnan().all())
    assert found.si_sdr[3] == -60


def test_only_silence_is_right_where_nothing_is_asked_for():
    levels = (0.0, 10.0, 20.0, 40.0, SILENT_DB + 1)
    found = judged(*(degrade.suppress(S + N, level) for level in levels), target=0 * S)
    assert found.scores[:, OVERALL].tolist() == pytest.approx([1, 2, 3, 5, 5], abs=0.01)
    assert found.scores[:, PRECISION].tolist() == pytest.approx([1, 2, 3, 5, 5], abs=0.01)
    assert bool(found.scores[:4, RECALL].isnan().all()) and bool(found.si_sdr.isnan().all())
    assert found.scores[4].tolist() == [5, 5, 5, 5]


def test_the_level_of_everything_does_not_matter():
    y = degrade.leak(degrade.suppress(S, 3), N, -12)
    one, other = (measure(g * y[None], g * S, g * (S + N), RATE) for g in (1.0, 1e-3))
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-3)


def test_blocks_average_to_the_score_and_show_where():
    y = S.clone()
    y[: RATE // 2] = 0  # a quarter is missing
    y[RATE : RATE + RATE // 2] += N[RATE : RATE + RATE // 2]  # another quarter leaks
    found = judged(y, S, S + N)
    torch.testing.assert_close(found.blocks.mean(1), found.scores, rtol=0, atol=0.1)
    frames = at_frames(found.blocks, 50, 0.04, RATE)[0]
    missing, clean, leaking = frames[2:10], frames[17:21], frames[28:34]  # half a second blurs what is near an edge
    assert missing[:, RECALL].max() < clean[:, RECALL].min() - 1
    assert leaking[:, PRECISION].max() < clean[:, PRECISION].min() - 1
    assert leaking[:, OVERALL].mean() < clean[:, OVERALL].mean()


def test_frames_take_the_block_they_lie_in():
    blocks = torch.arange(4.0)[None, :, None].expand(1, 4, 4)
    seconds = block_samples(RATE) / RATE
    assert at_frames(blocks, 8, seconds / 2, RATE)[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert at_frames(blocks, 12, seconds / 2, RATE)[0, -1, 0] == 3  # beyond the end: the last one


def test_scores_are_linear_between_the_ends():
    low, high = (torch.tensor([RANGES[name][i] for name in NAMES]) for i in (0, 1))
    assert to_scores(low).tolist() == [1] * 4 and to_scores(high).tolist() == [5] * 4
    assert to_scores((low + high) / 2).tolist() == [3] * 4
    assert to_scores(low - 10).tolist() == [1] * 4 and to_scores(high + 10).tolist() == [5] * 4


@pytest.mark.parametrize(
    ("outputs", "target", "mixture", "message"),
    [(S[None], S[:-1], S, "outputs"), (S, S, S, "give \\[M, T\\]"), (S[None], S, 0 * S, "silent mixture")],
    ids=["lengths", "axes", "silent"],
)
def test_what_cannot_be_measured_is_refused(outputs, target, mixture, message):
    with pytest.raises(ValueError, match=message):
        measure(outputs, target, mixture, RATE)
