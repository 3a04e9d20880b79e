"""What the Judge says while a recording is being separated, and that it chooses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from fake import RATE, FakeModel, tone

from judge.model import SCORES, JudgeOutput
from judge.rank import ranking
from peav import media
from samaudio import Separator, Span, rank
from samaudio.rank import best
from samaudio.result import UNJUDGED, Quality, Scores

TOKEN = 160


class Network(torch.nn.Module):
    """Likes targets that are near half of the mixture's level: of "low" and its leaks, the last one. Recall tells the
    length that was heard, precision the first number of the words."""

    sample_rate = RATE
    config = SimpleNamespace(token_samples=TOKEN, presence=False)
    frame_seconds = TOKEN / RATE

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def text_vectors(self, texts):
        self.asked += texts
        return torch.tensor([[float(len(text))] for text in texts])

    def judge(self, mixtures, targets, text):
        found = []
        for mixture, target, words in zip(mixtures, targets, text, strict=True):
            level = float(target.square().mean() / mixture.square().mean())
            row = torch.tensor([5 - 8 * abs(level - 0.625), len(target) / RATE, float(words[0]), 9.0])
            frames = row.repeat(1, -(-len(target) // TOKEN), 1)
            found.append(JudgeOutput(row[None], frames, None))
        return found


@pytest.fixture
def mixture() -> torch.Tensor:
    return (tone(300, 2.0, RATE) + tone(3_000, 2.0, RATE))[None]


@pytest.fixture
def separator() -> Separator:
    return Separator(FakeModel(confidence=(1 / 3, 1 / 3, 1 / 3)), "fake", Network())


def test_scores_come_with_every_separation(separator, mixture):
    result = separator.separate(mixture, "low", sample_rate=RATE)
    quality = result.scores.quality
    level = float(result.target.square().mean() / mixture.square().mean())
    assert quality.overall == pytest.approx(5 - 8 * abs(level - 0.625), abs=1e-3)
    assert quality.recall == pytest.approx(2.0, abs=0.01) and quality.precision == pytest.approx(3.0)
    assert quality.faithfulness == 5.0  # people are shown 1 to 5
    told = result.to_dict()
    assert set(SCORES) < set(told["scores"]) and told["scores"]["overall"] == pytest.approx(quality.overall, abs=1e-4)


@pytest.fixture
def no_order(monkeypatch):
    """Candidates are ranked by what is heard alone, not by which is the first."""
    monkeypatch.setattr(rank, "WITH_JUDGE", {"overall": 1.0, "similarity": 0.1})
    monkeypatch.setattr(rank, "ALONE", {"similarity": 1.0, "confidence": 1.0})


def test_the_first_candidate_has_to_be_clearly_behind(separator, mixture):
    """The packaged weights: the first of three is passed over only for one that is better by far."""
    judged = separator.separate(mixture, "low", sample_rate=RATE, candidates=3)
    assert judged.chosen == 0
    behind = {"overall": [1.0, 4.0, 2.2], "recall": [1.0, 4.0, 2.2], "order": rank.order(3)}
    values = ranking(behind, rank.WITH_JUDGE)
    assert values.index(max(values)) == 1
    near = {"overall": [3.0, 3.2, 2.0], "recall": [3.0, 3.2, 2.0], "order": rank.order(3)}
    values = ranking(near, rank.WITH_JUDGE)
    assert values.index(max(values)) == 0
    assert rank.order(3) == [1.0, 0.0, 0.0]


def test_the_judge_chooses_among_candidates(separator, mixture, no_order):
    judged = separator.separate(mixture, "low", sample_rate=RATE, candidates=3)
    alone = Separator(separator.model, "fake").separate(mixture, "low", sample_rate=RATE, candidates=3)
    overall = [candidate.quality.overall for candidate in judged.candidates]
    assert judged.chosen == overall.index(max(overall)) == 2 and alone.chosen == 1
    torch.testing.assert_close(judged.target, judged.candidates[2].target)
    assert judged.scores.quality == judged.candidates[2].quality


def test_files_are_judged_alike(separator, mixture, tmp_path, no_order):
    media.write(tmp_path / "mix.wav", mixture, RATE)
    found = separator.separate_file(tmp_path / "mix.wav", ["low"], tmp_path / "out", candidates=3)[0]
    wanted = separator.separate(tmp_path / "mix.wav", "low", candidates=3)
    assert found.chosen == wanted.chosen == 2
    assert found.scores.quality.overall == pytest.approx(wanted.scores.quality.overall, abs=1e-3)


def test_long_recordings_are_judged_chunk_by_chunk(separator):
    long = torch.cat([tone(300, 6.0, RATE) + tone(3_000, 6.0, RATE), torch.zeros(3 * RATE)])[None]
    quality = separator.separate(long, "low", sample_rate=RATE, chunk_seconds=2.0).scores.quality
    assert 1.0 < quality.overall <= 5.0 and quality.recall < 3.0


def test_what_is_not_there_is_not_judged(separator, mixture):
    result = separator.separate(mixture, "cat", sample_rate=RATE)
    assert not result.present and result.scores.quality == UNJUDGED
    assert result.to_dict()["scores"]["overall"] is None


def test_silence_is_not_judged(separator):
    result = separator.separate(torch.zeros(1, RATE), "low", sample_rate=RATE)
    assert result.scores.quality == UNJUDGED


def test_a_span_alone_names_nothing_to_judge_by(separator, mixture):
    result = separator.separate(mixture, Span(0.5, 1.0), sample_rate=RATE)
    assert result.scores.quality == UNJUDGED and not separator.network.asked


def test_words_are_judged_and_spans_are_not(separator, mixture):
    separator.separate(mixture, ["low", Span(0.5, 1.5)], sample_rate=RATE)
    assert separator.network.asked == ["low"]


def test_unknown_quality_is_none_in_json():
    told = Scores(0.5, 1.0, 0.25, Quality(overall=3.0)).to_dict()
    assert told["overall"] == 3.0 and told["recall"] is None


def test_without_a_judge_nothing_is_said(mixture):
    result = Separator(FakeModel(), "fake").separate(mixture, "low", sample_rate=RATE, candidates=3)
    assert all(math.isnan(candidate.quality.overall) for candidate in result.candidates)
    assert best(result.candidates) == result.chosen
