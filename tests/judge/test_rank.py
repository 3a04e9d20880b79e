"""The ranking formula, and the weights it goes by."""

from __future__ import annotations

import math

import pytest

from judge.rank import RankWeights, normalised, order, ranking
from peav.errors import UserError


def test_every_measure_counts_in_its_own_deviations():
    found = ranking({"overall": [1.0, 3.0], "similarity": [0.4, 0.2]}, {"overall": 1.0, "similarity": 0.5})
    assert found == pytest.approx([-1 + 0.5, 1 - 0.5])


def test_scale_and_offset_of_a_measure_do_not_matter():
    values = [0.1, 0.9, 0.4]
    assert normalised(values) == pytest.approx(normalised([7 + 100 * value for value in values]))
    assert sum(normalised(values)) == pytest.approx(0.0)


def test_candidates_that_hardly_differ_are_not_told_apart_by_noise():
    nearly_alike = {"overall": [3.0, 3.001], "similarity": [0.5, 0.1]}
    assert order(ranking(nearly_alike, {"overall": 1.0, "similarity": 0.5}), [False, False]) == [0, 1]
    assert ranking({"overall": [3.0, 3.0]}, {"overall": 1.0}) == [0.0, 0.0]
    assert ranking({"overall": [3.0]}, {"overall": 1.0}) == [0.0]


def test_unknown_values_count_as_the_worst():
    found = ranking({"similarity": [math.nan, 0.2, 0.6]}, {"similarity": 1.0})
    assert found[0] == found[1] < found[2]
    assert ranking({"similarity": [math.nan] * 2, "overall": [2, 3]}, {"similarity": 9.0, "overall": 1.0})[0] == -1.0


def test_measures_and_weights_without_each_other_are_left_out():
    assert ranking({"overall": [1.0, 2.0], "confidence": [9.0, 1.0]}, {"overall": 1.0, "recall": 5.0}) == [-1.0, 1.0]
    with pytest.raises(ValueError, match="one value for each"):
        ranking({"overall": [1.0], "similarity": [1.0, 2.0]}, {"overall": 1.0})


def test_silent_candidates_come_last_and_the_first_of_equals_first():
    assert order([1.0, 5.0, 1.0, 0.0], [False, True, False, False]) == [0, 2, 3, 1]


def test_weights_are_read_from_text():
    weights = RankWeights.parse("overall=2, similarity=-0.5")
    assert weights == RankWeights(overall=2.0, similarity=-0.5)
    assert weights.to_dict()["precision"] == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loudness=1", "weight 'loudness=1' is not understood"),
        ("overall", "weight 'overall' is not understood"),
        ("overall=nan", "not understood"),
        ("overall=inf", "weight of overall is inf"),
        ("overall=0", "all ranking weights are 0"),
    ],
)
def test_wrong_weights_are_named(text, message):
    with pytest.raises(UserError, match=message):
        RankWeights.parse(text)
