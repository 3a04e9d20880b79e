"""Ranks, recalls and accuracies against hand-made cases and brute force."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from peav.errors import UserError
from peav.evaluation import classification, retrieval
from peav.evaluation.embeddings import Embeddings
from peav.evaluation.manifest import Item
from peav.evaluation.ranking import dual_softmax, rank, ranks_of
from peav.evaluation.sets import EvaluationSet
from peav.evaluation.store import Store

WHAT = EvaluationSet("mine", title="mine")


def by_permutation(scores: list[float], relevant: list[bool], k: int) -> tuple[float, float]:
    """R@k and expected rank of one query, over every order that sorting by score may give."""
    hits, places = [], []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            place = next(i for i, candidate in enumerate(order) if relevant[candidate])
            hits.append(place < k)
            places.append(place + 1)
    return float(np.mean(hits)), float(np.mean(places))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.booleans()), min_size=1, max_size=6), st.integers(1, 7))
def test_ties_count_as_the_mean_over_all_orders(pairs, k):
    scores, relevant = [float(score) for score, _ in pairs], [right for _, right in pairs]
    relevant[0] = relevant[0] or not any(relevant)
    ranks = ranks_of(torch.tensor([scores]), torch.tensor([relevant]))
    expected = by_permutation(scores, relevant, k)
    assert (ranks.recall(k), ranks.median()) == pytest.approx(expected)


def test_without_ties_it_is_the_place_in_the_sorted_list():
    scores = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    right = torch.arange(40) % 30
    places = 1 + (scores.argsort(1, descending=True) == right[:, None]).int().argmax(1).numpy()
    ranks = ranks_of(scores, torch.nn.functional.one_hot(right, 30).bool())
    for k in (1, 5, 10):
        assert ranks.recall(k) == pytest.approx((places <= k).mean())
    assert ranks.median() == np.median(places)


def test_embedding_everything_alike_is_guessing():
    alike = torch.randn(1, 513, generator=torch.Generator().manual_seed(1)).expand(1000, 513)
    ranks = rank(alike[:100], alike, lambda a, b: torch.eye(1000, dtype=torch.bool)[a:b])
    assert ranks.tied.tolist() == [1000] * 100
    assert ranks.recall(1) == pytest.approx(1 / 1000) and ranks.recall(10) == pytest.approx(10 / 1000)
    assert ranks.median() == 500.5


def test_one_of_several_right_answers_is_enough():
    ranks = ranks_of(torch.tensor([[0.9, 0.8, 0.7, 0.1]]), torch.tensor([[False, False, True, True]]))
    assert [ranks.recall(k) for k in (1, 2, 3)] == [0, 0, 1] and ranks.median() == 3


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([[0.0, float("nan")]], [[True, False]], "not finite"),
        ([[0.0, 1.0]], [[False, False]], "query 0 has no right answer"),
        ([[0.0, 1.0]], [[True]], "give \\[A, B\\] both"),
    ],
    ids=["nan", "nothing right", "shapes"],
)
def test_what_cannot_be_ranked_is_refused(scores, relevant, message):
    with pytest.raises(ValueError, match=message):
        ranks_of(torch.tensor(scores), torch.tensor(relevant))


def test_dual_softmax_takes_from_a_candidate_that_is_near_to_everything():
    # Candidate 0 is a hub: it wins for every query, though it belongs to the first alone.
    scores = torch.tensor([[0.9, 0.1, 0.1], [0.8, 0.7, 0.1], [0.8, 0.1, 0.7]])
    right = torch.eye(3, dtype=torch.bool)
    assert ranks_of(scores, right).recall(1) == pytest.approx(1 / 3)
    assert ranks_of(dual_softmax(scores, 20.0), right).recall(1) == 1


def test_dual_softmax_is_the_product_of_both_softmaxes():
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(2)).double()
    product = (3 * scores).softmax(1) * (3 * scores).softmax(0)
    torch.testing.assert_close(dual_softmax(scores, 3.0).exp(), product)
    with pytest.raises(ValueError, match="above 0"):
        dual_softmax(scores, 0.0)


@pytest.mark.parametrize("temperature", [None, 4.0], ids=["plain", "dual"])
def test_chunks_change_nothing(temperature):
    generator = torch.Generator().manual_seed(3)
    queries, candidates = torch.randn(23, 6, generator=generator), torch.randn(17, 6, generator=generator)
    right = torch.rand(23, 17, generator=generator) < 0.2
    right[:, 0] = True
    scores = queries.double() @ candidates.double().T
    whole = ranks_of(scores if temperature is None else dual_softmax(scores, temperature), right)
    for chunk in (1, 5, 100):
        parts = rank(queries, candidates, lambda a, b: right[a:b], temperature=temperature, chunk=chunk)
        for name in ("above", "tied", "right"):
            assert getattr(parts, name).tolist() == getattr(whole, name).tolist()


class Given:
    """A model whose embeddings of sounds and texts are written down."""

    modalities = frozenset({"audio", "text"})
    device = torch.device("cpu")
    scale = 10.0

    def __init__(self, **vectors: list[float]) -> None:
        self.vectors = vectors
        self.asked: list[str] = []

    def embed(self, *, text: list[str], text_for: str = "audio") -> Tensor:
        assert text_for == "audio"
        self.asked += text
        return torch.tensor([self.vectors[words.replace(" ", "_")] for words in text])

    def logits(self, name: str, rows: Tensor, columns: Tensor) -> Tensor:
        assert name == "text_audio"
        return self.scale * rows @ columns.T - 3


class Known(Embeddings):
    """Items are embedded as the model's vector of their name."""

    def media(self, kind, items):
        return [torch.tensor(self.model.vectors[item.id]) if item.id in self.model.vectors else None for item in items]


def item(name: str, *captions: str, labels: tuple[str, ...] = ()) -> Item:
    return Item(name, audio=Path(f"{name}.wav"), captions=captions, labels=labels)


def found(items: list[Item], model: Given, what: EvaluationSet = WHAT, **options) -> dict[str, SimpleNamespace]:
    embeddings = Known(model, Store())
    match = options.pop("match", None) or retrieval.match_of(what, items)
    directions = retrieval.directions_of(what, items, embeddings, match)
    figures = retrieval.retrieve(items, embeddings, directions, what, match, **options)
    return {one.name: SimpleNamespace(**one.counts, values=one.values, recall=one.values["R@1"]) for one in figures}


def test_every_caption_is_a_query_and_any_of_an_items_captions_is_right():
    model = Given(a=[1, 0.0], b=[0, 1.0], one=[0.9, 0.1], two=[0.2, 0.8], three=[0.1, 0.9])
    figures = found([item("a", "one", "two"), item("b", "three")], model)
    assert set(figures) == {"text->audio", "audio->text"}
    # "two" finds the wrong sound; "a" finds "one" first, "b" finds "three".
    assert figures["text->audio"].recall == pytest.approx(2 / 3) and figures["text->audio"].queries == 3
    assert figures["audio->text"].recall == 1 and figures["audio->text"].candidates == 3


def test_the_same_words_of_another_item_are_wrong_unless_texts_are_matched():
    model = Given(a=[1, 0.0], b=[0, 1.0], hello=[1, 0.0], bye=[0, 1.0])
    items = [item("a", "hello"), item("b", "hello", "bye")]
    alone = found(items, model)
    assert alone["text->audio"].recall == pytest.approx(2 / 3) and alone["text->audio"].queries == 3
    # "a" is as near to its own "hello" as to that of "b": a draw.
    assert alone["audio->text"].recall == pytest.approx((0.5 + 1) / 2)
    worded = found(items, model, match="text")
    assert worded["text->audio"].queries == worded["audio->text"].candidates == 2
    assert worded["text->audio"].recall == worded["audio->text"].recall == 1


def test_items_of_overlapping_classes_are_right_for_each_other_when_classes_are_matched():
    model = Given(a=[1, 0.0], b=[0.6, 0.8], c=[0, 1.0], guitar=[1, 0.0], acoustic_guitar=[0.5, 0.5], rain=[0, 1.0])
    items = [item("a", labels=("guitar",)), item("b", labels=("acoustic guitar",)), item("c", "rain", labels=("rain",))]
    figures = found(items, model, match="label")
    assert figures["text->audio"].queries == 3 and figures["text->audio"].recall == 1
    # "b" is nearest to "rain" (0.8) before "acoustic guitar" (0.7) and "guitar" (0.6).
    assert figures["audio->text"].recall == pytest.approx(2 / 3)


def test_shared_classes_beside_captions_are_matched_by_themselves():
    shared = [item("a", "x", labels=("dog",)), item("b", "y", labels=("dog",))]
    assert retrieval.match_of(WHAT, shared) == "label"
    assert retrieval.match_of(WHAT, [item("a", "x", labels=("dog",)), item("b", "y", labels=("cat",))]) == "item"
    assert retrieval.match_of(EvaluationSet("s", match="item"), shared) == "item"


def test_an_item_without_sound_is_no_answer_and_its_captions_are_no_queries():
    model = Given(a=[1, 0.0], one=[1, 0.0], two=[1, 0.0])
    figures = found([item("a", "one"), item("gone", "two")], model)
    assert (figures["text->audio"].queries, figures["text->audio"].candidates) == (1, 1)
    with pytest.raises(UserError, match="no query has a right answer"):
        found([item("gone", "two")], model)


def test_the_dot_product_counts_length_and_the_cosine_does_not():
    model = Given(a=[1, 0.0], b=[3, 3.0], one=[1, 0.0], two=[0, 1.0])
    items = [item("a", "one"), item("b", "two")]
    assert found(items, model)["text->audio"].recall == 0.5
    assert found(items, model, cosine=True)["text->audio"].recall == 1


def test_dual_softmax_uses_the_models_own_scale():
    model = Given(a=[1, 0.0], b=[0.8, 0.3], one=[1, 0.0], two=[0.9, 0.4])
    items = [item("a", "one"), item("b", "two")]
    scores = torch.tensor([[1, 0.8], [0.9, 0.84]])
    expected = ranks_of(dual_softmax(scores, 10.0), torch.eye(2, dtype=torch.bool)).recall(1)
    plain, dual = found(items, model)["text->audio"].recall, found(items, model, dual=True)["text->audio"].recall
    assert plain == 0.5 and dual == expected == 1
    # Almost no temperature is almost no prior, and the plain order remains.
    assert found(items, model, dual=True, temperature=1e-6)["text->audio"].recall == pytest.approx(expected)
    # Scales that were never trained are 0 in some published files; then the dot product counts as it is.
    assert retrieval._scale(model, "audio", "text", 2) == pytest.approx(10.0)
    model.scale = 0.0
    assert retrieval._scale(model, "audio", "text", 2) == 1.0


def test_classes_are_averaged_over_templates_and_ranked():
    what = EvaluationSet("s", templates=("{}", "the {}"), labels={"Dog_bark": "dog", "cat": "cat", "cow": "cow"})
    model = Given(
        a=[1, 0, 0.0], b=[0, 1, 0.0], c=[0.0, 0.0, 1], dog=[1, 0.6, 0.0], the_dog=[1, 0.6, 0.0],
        cat=[0, 1.0, 0], the_cat=[0, 0, 0.0], cow=[0, 0, 1.0], the_cow=[0, 0, 1.0],
    )  # fmt: skip
    items = [item("a", labels=("Dog_bark",)), item("b", labels=("cat",)), item("c", labels=("cow",))]
    (figure,) = classification.classify(items, Known(model, Store()), ["audio"], what)
    # "b" scores 0.6 for dogs and (1 + 0) / 2 for cats.
    assert figure.values == pytest.approx({"top-1": 2 / 3, "top-5": 1.0})
    assert figure.counts == {"items": 3, "classes": 3}


def test_names_that_cannot_be_told_apart_get_a_figure_of_their_own():
    model = Given(a=[1, 0.0], guitar=[0.9, 0.1], acoustic_guitar=[1, 0.0], rain=[0, 1.0], c=[0, 1.0])
    items = [item("a", labels=("guitar",)), item("c", labels=("rain",)), item("b", labels=("acoustic guitar",))]
    (figure,) = classification.classify(items, Known(model, Store()), ["audio"], WHAT)
    assert figure.values["top-1"] == 0.5 and figure.values["top-1, similar names pass"] == 1


def test_several_classes_give_the_mean_average_precision():
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    names = [f"c{i}" for i in range(5)]
    truth = generator.random((30, 5)) < 0.3
    truth[:, 0] |= ~truth.any(1)
    vectors = {f"i{i}": row for i, row in enumerate(generator.standard_normal((30, 5)).tolist())}
    model = Given(**vectors, **dict(zip(names, np.eye(5).tolist(), strict=True)))
    labels = [tuple(name for name, on in zip(names, row, strict=True) if on) for row in truth]
    items = [item(f"i{i}", labels=own) for i, own in enumerate(labels)]
    (figure,) = classification.classify(items, Known(model, Store()), ["audio"], WHAT)
    assert figure.values["mAP"] == pytest.approx(
        sklearn.average_precision_score(truth, np.array(list(vectors.values())), average="macro"), abs=1e-6
    )


def test_a_class_that_the_set_does_not_know_is_an_error():
    what = EvaluationSet("s", title="S", labels={"dog": "dog"})
    with pytest.raises(UserError, match="class 'cat' is none of S"):
        classification.classes_of(what, [item("a", labels=("cat",))])
