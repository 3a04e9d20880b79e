"""The benchmark: its list, its mixtures and its sums."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import soundfile
import torch

from benchmarks import frame_level, reranking
from benchmarks.separation import LIST, Answer, Item, auroc, markdown, measure, oracle, render, summary, unprocessed
from peav.captions import overlap
from samaudio.result import Candidate, Quality, Result, Scores

RATE = 8_000
LINE = {
    "id": 3, "seconds": 1.0, "absent": "rain",
    "stems": [
        {"label": "flute", "events": [{"path": "low.wav", "from": 0.1, "at": 0.0, "length": 0.4, "gain": 1.0},
                                      {"path": "low.wav", "from": 0.0, "at": 0.5, "length": 0.3, "gain": 2.0}]},
        {"label": "dog barking", "events": [{"path": "high.wav", "from": 0.0, "at": 0.25, "length": 9.0, "gain": 5.0}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A pool of two tones of one second; one is stored at another rate."""
    folder = tmp_path_factory.mktemp("tones")
    for name, frequency, rate in (("low", 200, RATE), ("high", 1_500, 2 * RATE)):
        wave = 0.2 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)
        soundfile.write(folder / f"{name}.wav", wave, rate)
    return folder


@pytest.fixture(scope="module")
def item(tones) -> Item:
    return render(LINE, tones, RATE, {})


def test_stems_have_equal_energy_and_the_mixture_half_the_full_scale(item):
    assert item.stems.shape == (2, RATE) and item.labels == ["flute", "dog barking"] and item.absent == "rain"
    first, second = item.stems.square().sum(1).tolist()
    assert first == pytest.approx(second, rel=1e-5)
    assert float(item.mixture.abs().max()) == pytest.approx(0.5)


def test_events_are_where_the_list_says(item):
    low, high = item.stems
    assert low[3_200:4_000].abs().max() == 0 and low[6_400:].abs().max() == 0
    assert high[:2_000].abs().max() == 0 and high[-100:].abs().max() > 0.01
    before, after = low[500:2_500].square().mean(), low[4_500:6_000].square().mean()
    assert float(after / before) == pytest.approx(4, rel=0.02)  # twice the gain
    spectrum = torch.fft.rfft(high).abs()
    assert int(spectrum.argmax()) == 1_500  # Hz, in one second


def test_each_file_is_read_once(tones):
    cache: dict = {}
    render(LINE, tones, RATE, cache)
    assert set(cache) == {"low.wav", "high.wav"}
    cache["low.wav"] = torch.ones(RATE)
    assert float(render(LINE, tones, RATE, cache).stems[0].min()) == 0


@pytest.mark.parametrize(
    ("positive", "negative", "wanted"),
    [([3, 4], [1, 2], 1.0), ([1, 2], [3, 4], 0.0), ([1, 1], [1, 1], 0.5), ([1, 3], [2, 2], 0.5),
     ([2, 3], [1, 2], 0.875), ([0.9], [0.1, 0.95, 0.5], 2 / 3)],
    ids=["apart", "swapped", "all_tied", "around", "one_tie", "uneven"],
)  # fmt: skip
def test_auroc_by_hand(positive, negative, wanted):
    assert auroc(positive, negative) == pytest.approx(wanted)


def test_the_mixture_itself_gains_nothing(item):
    result = summary(measure(unprocessed, [item, item], RATE), threshold=0.5)
    for name in ("si_sdri_mean", "si_sdri_median", "sdri_mean", "other_prompt_mean", "absent_prompt_mean"):
        assert result[name] == pytest.approx(0, abs=1e-5), name
    assert result["items"] == 4 and result["worse_than_mixture"] == 0
    assert result["presence_auroc"] == 0.5 and result["false_alarms"] == 1 and result["misses"] == 0
    assert result["real_time_factor"] is None


def test_the_ceiling_is_high_and_a_wrong_prompt_is_not(item):
    result = summary(measure(oracle, [item], RATE), threshold=0.5)
    assert result["si_sdri_mean"] > 20 and result["other_prompt_mean"] < -10
    assert result["presence_auroc"] == 1 and result["false_alarms"] == result["misses"] == 0
    assert {k: v["items"] for k, v in result["scenes"].items()} == {"everyday": 1, "music": 1}
    assert set(result["labels"]) == {"flute", "dog barking"}


def test_presence_and_speed_are_counted(item):
    def system(item, prompts, rate):
        return Answer([item.mixture] * 3, [0.9, 0.3, 0.7], seconds=0.5)

    result = summary(measure(system, [item], RATE), threshold=0.5)
    # There: 0.9 and 0.3; not there: 0.7.
    assert (result["misses"], result["false_alarms"], result["presence_auroc"]) == (0.5, 1.0, 0.5)
    assert result["real_time_factor"] == pytest.approx(3 * 1.0 / 0.5)


def test_the_page_states_the_figures(item):
    result = summary(measure(oracle, [item], RATE), threshold=0.5) | {"rate": RATE}
    page = markdown("oracle", result)
    assert f"| SI-SDRi, mean | {result['si_sdri_mean']:.2f} dB |" in page
    assert "2 questions on 1 mixtures" in page and "| flute | 1 |" in page


def test_the_shipped_list_is_sound():
    lines = [json.loads(line) for line in LIST.read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(len(lines))) and len(lines) >= 100
    for line in lines:
        first, second = (stem["label"] for stem in line["stems"])
        assert not any(overlap(a, b) for a, b in ((first, second), (first, line["absent"]), (second, line["absent"])))
        for event in (event for stem in line["stems"] for event in stem["events"]):
            assert event["at"] >= 0 and event["at"] + event["length"] <= line["seconds"] + 1e-3
            assert event["from"] >= 0 and event["length"] > 0 and math.isfinite(event["gain"]) and event["gain"] > 0
            assert not event["path"].startswith(("/", ".."))


# --- choosing among candidates --------------------------------------------------------------------


def case(item: int, truth: list[float], **measures: list[float]) -> reranking.Case:
    known = {name: [0.0] * len(truth) for name in reranking.MEASURES} | measures
    return reranking.Case(item, truth, known)


def test_a_choice_is_worth_its_share_of_what_an_oracle_gains():
    cases = [case(0, [0.0, 4.0], overall=[1.0, 2.0]), case(1, [6.0, 0.0], overall=[1.0, 2.0]),
             case(2, [1.0, 3.0], overall=[3.0, 3.5])]  # fmt: skip
    found = reranking.choose(cases, {"overall": 1.0})
    assert found.gain == pytest.approx((2 - 3 + 1) / 3) and found.share == pytest.approx((2 - 3 + 1) / (2 + 3 + 1))
    turned = reranking.choose(cases, {"overall": -1.0})
    assert turned.gain == pytest.approx(-found.gain)


def test_the_search_finds_the_measure_that_tells():
    rng = np.random.default_rng(0)
    cases = []
    for item in range(40):
        truth = rng.normal(size=4)
        noise = rng.normal(size=4)
        cases.append(case(item, truth.tolist(), precision=(truth + 0.1 * noise).tolist(), confidence=noise.tolist()))
    found = reranking.summary(cases)
    assert found["searched_weights"]["precision"] > found["searched_weights"]["confidence"]
    shares = {name: choice["share"] for name, choice in found["choices"].items()}
    assert shares["oracle"] == pytest.approx(1.0) and shares["searched"] > 0.9
    assert shares["overall"] == shares["first"]  # says nothing, so the first of equals is taken
    assert "| oracle |" in reranking.markdown(found) and "100 %" in reranking.markdown(found)


def test_candidates_are_measured_against_their_stem(item):
    class Separator:
        model = type("Model", (), {"hypotheses": 2})

        def separate_many(self, mixture, prompts, *, sample_rate, candidates):
            assert candidates == 2 and prompts == item.labels
            return [Result(stem[None], mixture - stem, sample_rate, Scores(0.0, 1.0, 0.5), [], True, prompt,
                           [Candidate(0.0, 0.3, 0.5, Quality(3.0), target=mixture),
                            Candidate(0.0, 0.4, 0.5, Quality(4.0), target=stem[None] + 0.01 * mixture)], 0)
                    for prompt, stem in zip(prompts, item.stems, strict=True)]  # fmt: skip

    found = reranking.cases_of(Separator(), item, RATE)
    assert [len(c.si_sdr) for c in found] == [2, 2]
    for one in found:
        assert one.si_sdr[0] == pytest.approx(0.0, abs=1.0) and one.si_sdr[1] > 30
        assert one.measures["overall"] == [3.0, 4.0] and one.measures["similarity"] == [0.3, 0.4]


# --- when a sound is heard ------------------------------------------------------------------------


def heard(active: list[int], sure: float = 4.0, shift: int = 0) -> frame_level.Answer:
    """A model that is right, perhaps late by some frames; -1 where nothing can be said."""
    truth = np.array(active)
    return frame_level.Answer(np.roll(np.where(truth == 1, sure, -sure), shift), truth)


class Frames:
    frame_seconds = 0.04


def test_frames_that_are_right_score_full_marks_and_silence_has_no_spans():
    answers = [heard([0] * 20 + [1] * 30 + [0] * 10), heard([-1] * 5 + [1] * 25 + [0] * 30), heard([0] * 60)]
    found = frame_level.measure(Frames(), answers, answers)
    assert found["frame_auroc"] == found["span_f1"] == found["absent_without_a_span"] == 1.0
    assert found["starts_within_0.2_s"] == 1.0 and found["start_error_median_s"] < 0.2
    assert "| frame AUROC | 1.000 |" in frame_level.markdown(found)


def test_spans_that_come_late_are_counted_as_such():
    late = [heard([0] * 20 + [1] * 30 + [0] * 40, shift=10)]
    found = frame_level.measure(Frames(), late, late)
    assert found["span_f1"] == 0.0 and found["start_error_median_s"] == pytest.approx(0.4)
    assert 0.3 < found["frame_auroc"] < 0.95


def test_short_gaps_are_closed_in_truth_and_prediction():
    answer = heard([0] * 10 + [1] * 10 + [0] * 5 + [1] * 10 + [0] * 20 + [1] * 10 + [0] * 5)
    assert frame_level.true_spans(answer, 0.04) == frame_level.spans_of(answer, 0.5, 0.04)
    assert [round(end - start, 2) for start, end in frame_level.true_spans(answer, 0.04)] == [1.0, 0.4]
