"""AUROC, average precision and event F1 against hand-made cases, brute force and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peav.errors import UserError
from peav.evaluation import frames
from peav.evaluation.detection import Counts, auroc, average_precision, frame_truth, match_spans
from peav.evaluation.embeddings import Embeddings
from peav.evaluation.manifest import Event, Item
from peav.evaluation.sets import EvaluationSet
from peav.evaluation.store import Store

RATE, HOP = 1_000, 40  # Hz; samples in a frame
WHAT = EvaluationSet("mine", labels={"low": "low", "high": "high"})


@pytest.mark.parametrize(
    ("scores", "truth", "area"),
    [
        ([0.1, 0.4, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.4, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
        ([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1], 0.875),
    ],
    ids=["perfect", "upside down", "alike", "one draw of four pairs"],
)
def test_auroc_of_hand_made_cases(scores, truth, area):
    assert auroc(np.array(scores), np.array(truth)) == pytest.approx(area)


def test_auroc_and_average_precision_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores, truth = generator.integers(0, 8, 50) / 8, generator.random(50) < 0.3  # many equal scores
        assert auroc(scores, truth) == pytest.approx(sklearn.roc_auc_score(truth, scores))
        assert average_precision(scores, truth) == pytest.approx(sklearn.average_precision_score(truth, scores))


def test_auroc_is_the_chance_that_a_positive_scores_higher():
    generator = np.random.default_rng(1)
    scores, truth = generator.integers(0, 5, 30).astype(float), generator.random(30) < 0.5
    pairs = [(p > n) + 0.5 * (p == n) for p, n in itertools.product(scores[truth], scores[~truth])]
    assert auroc(scores, truth) == pytest.approx(np.mean(pairs))


def test_what_has_no_answer_is_not_a_number():
    assert np.isnan(auroc(np.array([1.0, 2.0]), np.array([True, True])))
    assert np.isnan(average_precision(np.array([1.0]), np.array([False])))
    assert np.isnan(Counts().f1)
    with pytest.raises(ValueError, match="not finite"):
        auroc(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(ValueError, match="give both with 1 axes"):
        auroc(np.ones((2, 2)), np.ones((2, 2)))


@pytest.mark.parametrize(
    ("found", "true", "counts"),
    [
        ([(1.0, 2.0)], [(1.0, 2.0)], (1, 0, 0)),
        ([(1.2, 2.2)], [(1.0, 2.0)], (1, 0, 0)),
        ([(1.21, 2.0)], [(1.0, 2.0)], (0, 1, 1)),
        ([(1.0, 2.21)], [(1.0, 2.0)], (0, 1, 1)),
        ([(1.0, 8.9)], [(1.0, 11.0)], (0, 1, 1)),
        ([(1.0, 9.0)], [(1.0, 11.0)], (1, 0, 0)),
        ([(1.0, 2.0), (1.05, 2.0)], [(1.0, 2.0)], (1, 1, 0)),
        ([], [(1.0, 2.0)], (0, 0, 1)),
    ],
    ids=["same", "on the collar", "late", "long", "beyond a fifth", "a fifth of its length", "twice", "missed"],
)
def test_a_span_is_right_within_the_collar(found, true, counts):
    assert match_spans(found, true) == Counts(*counts)


def most_matches(found, true):
    """The largest set of pairs within the collar, by trying every assignment."""

    def fits(a, b):
        return abs(a[0] - b[0]) <= 0.2 + 1e-9 and abs(a[1] - b[1]) <= max(0.2, 0.2 * (b[1] - b[0])) + 1e-9

    padded = [*true, *[None] * len(found)]
    orders = set(itertools.permutations(padded, len(found)))
    return max(sum(b is not None and fits(a, b) for a, b in zip(found, order, strict=True)) for order in orders)


spans = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 8)).map(lambda t: (t[0] / 10, (t[0] + t[1]) / 10)), max_size=4
)


@settings(max_examples=80, deadline=None)
@given(spans, spans)
def test_as_many_spans_as_possible_are_matched(found, true):
    right = most_matches(found, true)
    assert match_spans(found, true) == Counts(right, len(found) - right, len(true) - right)


def test_a_frame_is_on_when_its_middle_is():
    assert frame_truth([(0.05, 0.13), (0.17, 0.2)], 5, 0.04).tolist() == [False, True, True, False, True]


class Ears:
    """Log-odds of "low" and "high": whether a frame is louder or softer than 0.5, plus what came before it."""

    device = torch.device("cpu")
    modalities = frozenset({"audio", "text"})
    has_clips, has_frames = False, True
    sample_rate, frame_seconds = RATE, HOP / RATE
    reach = 3  # frames that it listens back

    def __init__(self) -> None:
        self.heard: list[int] = []

    def frame_logits(self, audio, text):
        (clip,) = audio
        self.heard.append(len(clip))
        padded = torch.nn.functional.pad(clip, (0, -len(clip) % HOP))
        level = padded.view(-1, HOP).abs().mean(1)
        before = torch.nn.functional.pad(level, (self.reach, 0)).unfold(0, self.reach + 1, 1).mean(1)
        high = 20 * (level - 0.5) + 1e-3 * before
        return [torch.stack([{"high": high, "low": -high}[name] for name in text])]


def clip(path, seconds: float, loud: list[tuple[float, float]]) -> Item:
    samples = np.full(round(seconds * RATE), 0.1, dtype=np.float32)
    for start, end in loud:
        samples[round(start * RATE) : round(end * RATE)] = 0.9
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return Item(path.name, audio=path, events=tuple(Event("high", *span) for span in loud))


@pytest.fixture
def small(monkeypatch):
    """Rates of 1 kHz, which are too low for the gate of recordings."""
    import peav.media.info

    monkeypatch.setattr(peav.media.info, "MIN_RATE", 100)


def test_spans_and_frames_of_a_perfect_model(tmp_path, small):
    items = [clip(tmp_path / "a.wav", 2.0, [(0.4, 0.8), (1.2, 1.6)]), clip(tmp_path / "b.wav", 1.0, [])]
    everything, low, high = frames.evaluate_frames(items, Embeddings(Ears(), Store()), WHAT)
    assert everything.counts == {"items": 2, "frames": 75, "classes": 2}
    assert high.name == "high" and high.values == {"AUROC": 1.0, "event F1": 1.0}
    # "low" is never true, yet found everywhere.
    assert np.isnan(low.values["AUROC"]) and low.values["event F1"] == 0
    assert everything.values["AUROC, class mean"] == 1
    assert everything.values["event F1"] == pytest.approx(2 * 2 / (2 * 2 + 4))


def test_the_micro_auroc_pools_classes_and_clips(tmp_path, small):
    items = [clip(tmp_path / "a.wav", 1.0, [(0.0, 0.4)])]
    ears = Ears()
    everything, *_ = frames.evaluate_frames(items, Embeddings(ears, Store()), WHAT)
    logits = frames.class_logits(items[0], Embeddings(ears, Store()), ["low", "high"], WHAT)
    truth = np.zeros_like(logits, dtype=bool)
    truth[1, :10] = True
    assert everything.values["AUROC"] == pytest.approx(auroc(logits.ravel(), truth.ravel()))


def test_a_clip_longer_than_a_window_is_still_right_everywhere(tmp_path, small):
    item = clip(tmp_path / "a.wav", 75.0, [(1.6, 2.4), (27.2, 33.2), (70.0, 74.96)])
    ears = Ears()
    everything, *_ = frames.evaluate_frames([item], Embeddings(ears, Store()), EvaluationSet("s"))
    assert len(ears.heard) == 3 and max(ears.heard) == 30 * RATE
    assert everything.counts["frames"] == 75 * 25 and everything.values["AUROC"] == everything.values["event F1"] == 1


def test_digital_silence_is_below_everything(tmp_path, small):
    loud = clip(tmp_path / "a.wav", 1.0, [(0.0, 0.4)])
    soundfile.write(tmp_path / "s.wav", np.zeros(RATE), RATE)
    silent = Item("s", audio=tmp_path / "s.wav", events=())
    everything, *_ = frames.evaluate_frames([loud, silent], Embeddings(Ears(), Store()), EvaluationSet("s"))
    assert everything.counts["frames"] == 50 and everything.values["AUROC"] == everything.values["event F1"] == 1


def test_the_threshold_is_the_models_unless_one_is_given(tmp_path, small):
    item = clip(tmp_path / "a.wav", 1.0, [(0.0, 0.4)])
    ears = Ears()
    ears.frame_threshold = 1.0  # so that nothing is above it
    embeddings, what = Embeddings(ears, Store()), EvaluationSet("s")
    assert frames.evaluate_frames([item], embeddings, what)[0].values["event F1"] == 0
    assert frames.evaluate_frames([item], embeddings, what, threshold=0.5)[0].values["event F1"] == 1


def test_an_excerpt_is_heard_alone(tmp_path, small):
    whole = clip(tmp_path / "a.wav", 3.0, [(1.0, 2.0)])
    part = Item("part", audio=whole.audio, events=(Event("high", 0.0, 1.0),), start=1.0, end=2.5)
    everything, *_ = frames.evaluate_frames([part], Embeddings(Ears(), Store()), EvaluationSet("s"))
    assert everything.counts["frames"] == 38 and everything.values["AUROC"] == everything.values["event F1"] == 1


def test_without_events_there_is_nothing_to_find(tmp_path, small):
    item = clip(tmp_path / "a.wav", 1.0, [])
    with pytest.raises(UserError, match="no item has an event"):
        frames.evaluate_frames([item], Embeddings(Ears(), Store()), EvaluationSet("s"))
