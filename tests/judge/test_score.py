"""Scores and rankings, with an embedder and a network whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch
from judge_fakes import RATE, TOKEN, Ears, Eyes, Network, tone

import judge
from judge.verdict import Curve, Listener, Tally
from peav import media
from peav.errors import UserError

LOW, HIGH = tone(200), tone(3_000)
MIX = LOW + HIGH


@pytest.fixture
def ears() -> judge.Judge:
    return judge.Judge(Ears())


@pytest.fixture
def both() -> judge.Judge:
    return judge.Judge(Ears(), Network())


# -- similarity alone ---------------------------------------------------------------------------------------------


def test_similarity_is_the_cosine_of_target_and_prompt(ears):
    assert ears.score(MIX, LOW, " Low", sample_rate=RATE).similarity == pytest.approx(1.0, abs=1e-3)
    assert ears.score(MIX, LOW, "high", sample_rate=RATE).similarity == pytest.approx(0.0, abs=1e-2)
    assert ears.score(MIX, MIX, "high", sample_rate=RATE).similarity == pytest.approx(math.sqrt(0.5), abs=1e-2)


def test_what_is_not_measured_is_none(ears):
    score = ears.score(MIX, LOW, "low", sample_rate=RATE).to_dict()
    assert {name for name, value in score.items() if value is None} == {
        "overall", "recall", "precision", "faithfulness", "presence",
    }  # fmt: skip


def test_an_example_is_a_prompt(both):
    scores = [both.score(MIX, target, judge.Example(tone(300), RATE), sample_rate=RATE) for target in (LOW, HIGH)]
    assert [round(score.similarity, 2) for score in scores] == [1.0, 0.0]
    assert scores[0].overall is None and "in words" in scores[0].notes[-1]


def test_a_video_is_a_prompt_for_an_embedder_that_sees():
    red = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    red[:, 0] = 200
    seeing = judge.Judge(Eyes())
    assert seeing.score(MIX, LOW, judge.Video(red), sample_rate=RATE).similarity == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(UserError, match="does not see"):
        judge.Judge(Ears()).score(MIX, LOW, judge.Video(red), sample_rate=RATE)
    with pytest.raises(UserError, match=r"shape \[3, 4, 4\]"):
        seeing.score(MIX, LOW, judge.Video(red[0]), sample_rate=RATE)


# -- with the network ---------------------------------------------------------------------------------------------


def test_the_network_fills_the_other_fields_within_their_scale(both):
    score = both.score(MIX, LOW, "low", sample_rate=RATE)
    assert score.overall == pytest.approx(5 * math.sqrt(0.5), abs=1e-3)
    assert (score.recall, score.precision, score.faithfulness) == (1.0, 1.0, 3.0)  # recall 0.8 is shown as 1
    assert score.presence == pytest.approx(1.0) and score.notes == ()
    assert score.curve is not None and score.curve.values.shape == (RATE // TOKEN, 4)
    assert both.score(MIX, 2 * MIX, "low", sample_rate=RATE).overall == 5.0


def test_long_recordings_are_judged_in_windows_of_one_grid():
    network = Network(window_seconds=2.01)  # not a whole number of tokens
    long = torch.cat([MIX] * 7)[: 7 * RATE - 100]
    score = judge.Judge(Ears(), network).score(long, 0.5 * long, "low", sample_rate=RATE)
    assert [n for batch in network.heard for n in batch] == [16_000, 16_000, len(long) - 32_000]
    assert score.overall == pytest.approx(2.5, abs=1e-3)
    assert len(score.curve.values) == math.ceil(len(long) / TOKEN)


def test_windows_count_by_what_is_heard():
    quiet = 0.3 * MIX  # nothing is present there, says the network
    mixture = torch.cat([MIX, quiet, quiet, quiet])
    target = torch.cat([LOW, torch.zeros(3 * RATE)])
    network = Network(window_seconds=1.0)
    score = judge.Judge(Ears(), network).score(mixture, target, "low", sample_rate=RATE)
    assert score.overall == pytest.approx(5 * math.sqrt(0.5), abs=1e-3)
    missed = judge.Judge(Ears(), network).score(torch.cat([MIX, MIX, quiet, quiet]), target, "low", sample_rate=RATE)
    assert missed.overall == pytest.approx(5 * math.sqrt(0.5) / 2, abs=1e-3)  # silent although it is present
    assert score.presence == pytest.approx(1.0)


def test_a_silent_target_is_judged_but_is_similar_to_nothing(both):
    score = both.score(MIX, 0 * LOW, "low", sample_rate=RATE)
    assert score.overall == 1.0 and math.isnan(score.similarity)
    assert score.notes == ("the target is silent",)
    without = judge.Judge(Ears(), Network(presence=False)).score(MIX, 0 * LOW, "low", sample_rate=RATE)
    assert (without.overall, without.presence) == (1.0, None)


def test_a_silent_mixture_is_not_judged(both):
    score = both.score(0 * MIX, LOW, "low", sample_rate=RATE)
    assert (score.overall, score.presence) == (None, 0.0) and both.network.heard == []
    assert score.notes == ("the mixture is silent, so there is nothing to judge by",)
    assert bool(score.curve.values.isnan().all())


def test_a_batch_scores_as_its_items_do(both):
    items = [(MIX, LOW, "low"), (MIX, HIGH[:-400], "high"), (torch.cat([MIX] * 12), torch.cat([LOW] * 12), "low")]
    together = both.score(items, sample_rate=RATE)
    assert sorted(len(batch) for batch in both.network.heard) == [1, 3]  # the long one's second window is alone
    for score, item in zip(together, items, strict=True):
        assert score.to_dict() == pytest.approx(both.score(*item, sample_rate=RATE).to_dict())
    assert both.score([]) == []


def test_progress_is_told_in_seconds(both):
    told = []
    mixture, target = (torch.cat([x] * 12) for x in (MIX, LOW))
    both.score(mixture, target, "low", sample_rate=RATE, progress=lambda *a: told.append(a))
    assert told == [(10.0, 12.0), (12.0, 12.0)]


def test_a_listener_hears_chunks_as_a_whole_recording(both):
    listener = both.listener("low", targets=2)
    rate = 2 * RATE
    for _ in range(2):
        mixture = media.resample(MIX, RATE, rate).expand(2, -1)
        listener.add(mixture, [mixture, 0.5 * mixture], rate)
    first, second = listener.finish()
    assert (first.scores[0], second.scores[0]) == (pytest.approx(5.0), pytest.approx(2.5))
    assert judge.Judge(Ears()).listener("low", 2) is None
    assert Listener(both.network, torch.ones(1), 1).finish()[0].scores is None


# -- files, rates, lengths ----------------------------------------------------------------------------------------


def test_files_and_samples_score_alike_and_say_how_they_were_heard(both, tmp_path):
    stereo = torch.stack([media.resample(x, RATE, 12_000) for x in (MIX, MIX)])
    soundfile.write(tmp_path / "mix.wav", stereo.T.numpy(), 12_000, subtype="FLOAT")
    soundfile.write(tmp_path / "low.wav", LOW.numpy(), RATE, subtype="FLOAT")
    score = both.score(tmp_path / "mix.wav", str(tmp_path / "low.wav"), "low")
    assert score.notes == ("the mixture was mixed to mono from 2 channels and resampled from 12000 to 8000 Hz",)
    samples = both.score(stereo.numpy(), LOW.numpy(), "low", sample_rate=(12_000, RATE))
    assert samples.to_dict() == pytest.approx(score.to_dict())
    assert score.overall == pytest.approx(both.score(MIX, LOW, "low", sample_rate=RATE).overall, abs=0.02)


@pytest.mark.parametrize(
    ("length", "note"),
    [
        (RATE - 800, "the target is 100 ms shorter than the mixture and was filled up with silence"),
        (RATE + 800, "the target is 100 ms longer than the mixture and was cut"),
    ],
)
def test_small_differences_in_length_are_mended_and_told(both, length, note):
    score = both.score(MIX, tone(200, 2.0)[:length], "low", sample_rate=RATE)
    assert score.notes == (note,)
    assert both.network.heard == [[RATE]]


def keep_lengths_untold(monkeypatch) -> None:
    """As of files whose headers do not say how long they are."""
    probe = media.probe

    def without_length(path):
        return type("Info", (), {**vars(probe(path)), "seconds": None, "frames": None})()

    monkeypatch.setattr(media, "probe", without_length)


@pytest.mark.parametrize(("seconds", "more"), [(0.5, "shorter"), (2.0, "longer")])
def test_lengths_that_no_header_tells_are_checked_on_the_way(both, tmp_path, monkeypatch, seconds, more):
    soundfile.write(tmp_path / "mix.wav", MIX.numpy(), RATE)
    soundfile.write(tmp_path / "low.wav", tone(200, seconds).numpy(), RATE)
    keep_lengths_untold(monkeypatch)
    with pytest.raises(UserError, match=rf"low.wav is more than 0.25 s {more} than .*mix.wav; give a target"):
        both.score(tmp_path / "mix.wav", tmp_path / "low.wav", "low")


def test_lengths_must_agree_within_what_encoders_pad(ears):
    ears.score(MIX, LOW[: -RATE // 5], "low", sample_rate=RATE)
    with pytest.raises(UserError, match=r"the mixture lasts 1\.00 s but the target 0\.50 s; give a target"):
        ears.score(MIX, LOW[: RATE // 2], "low", sample_rate=RATE)


@pytest.mark.parametrize(
    ("target", "prompt", "rate", "message"),
    [
        (LOW, " ", RATE, "prompt is empty"),
        (LOW, "x" * 2_000, RATE, "2000 characters"),
        (LOW, None, RATE, "None is no prompt"),
        (LOW, judge.Example(0 * LOW, RATE), RATE, "example of nothing"),
        (LOW, judge.Example(LOW), RATE, "the example is given as samples"),
        (LOW, "low", None, "sample_rate"),
        (LOW, "low", 12.5, "sample_rate 12.5"),
        (LOW * math.nan, "low", RATE, "not a number"),
        (LOW[:0], "low", RATE, r"shape \[0\]"),
        (LOW.view(1, 1, -1), "low", RATE, "shape"),
        (LOW.to(torch.int16), "low", RATE, "type torch.int16"),
        ("none.wav", "low", RATE, "no such file"),
    ],
    ids=["prompt", "long", "none", "silent example", "example rate", "rate", "odd rate", "NaN", "empty", "shape",
         "integers", "file"],
)  # fmt: skip
def test_mistakes_are_named(ears, target, prompt, rate, message):
    with pytest.raises(UserError, match=message):
        ears.score(MIX, target, prompt, sample_rate=rate)


# -- ranking ------------------------------------------------------------------------------------------------------


def test_rank_puts_the_best_first_and_silence_last(ears):
    ranking = ears.rank(MIX, [0 * LOW, HIGH, LOW, MIX], "low", sample_rate=RATE)
    assert [index for index, _ in ranking] == [2, 3, 1, 0]
    assert math.isnan(ranking[-1][1].similarity)
    assert ranking[0][1].ranking > ranking[1][1].ranking > ranking[2][1].ranking


def test_rank_goes_by_the_weights(both):
    targets = [0.3 * LOW, LOW, HIGH]
    by_network = both.rank(MIX, targets, "low", sample_rate=RATE, weights=judge.RankWeights(similarity=0.0))
    assert [index for index, _ in by_network] == [1, 2, 0]
    by_similarity = judge.RankWeights(overall=0.0, similarity=1.0)
    assert [index for index, _ in both.rank(MIX, targets, "low", sample_rate=RATE, weights=by_similarity)][-1] == 2


def test_ranking_tells_candidates_apart_beyond_the_ends_of_the_scale(both):
    """Both are shown as 5.0."""
    ranking = both.rank(MIX, [2 * MIX, 3 * MIX], "low", sample_rate=RATE)
    assert [(index, score.overall) for index, score in ranking] == [(1, 5.0), (0, 5.0)]


def test_ranking_nothing_is_refused(ears):
    with pytest.raises(UserError, match="no targets"):
        ears.rank(MIX, [], "low", sample_rate=RATE)


# -- curves -------------------------------------------------------------------------------------------------------


def test_a_curve_by_the_second_is_the_mean_of_what_is_known():
    values = torch.tensor([[1.0], [3.0], [math.nan], [5.0], [math.nan]]).expand(-1, 4)
    curve = Curve(values, 0.5).every(1.0)
    assert curve.values[:, 0].tolist() == pytest.approx([2.0, 5.0, math.nan], nan_ok=True)
    assert curve.to_dict()["precision"][:2] == [2.0, 5.0]
    assert Curve(values, 2.0).every(1.0).step == 2.0


def test_what_lies_far_below_the_mixture_is_not_heard():
    network = Network(window_seconds=1.0, presence=False)
    tally = Tally(network, 1)
    for gain in (1.0, 1e-4):
        targets = [gain * MIX]
        tally.add(MIX, targets, network.judge([MIX], targets, torch.ones(1, 1)))
    assert tally.finish()[0].scores[0] == pytest.approx(5.0)


def test_samples_are_read_as_numpy_or_torch(both):
    assert both.score(np.asarray(MIX), LOW, "low", sample_rate=RATE) == both.score(MIX, LOW, "low", sample_rate=RATE)
