"""Wordings of labels, and which labels may answer the same prompt."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from peav.captions import OVERLAPPING, PLAYED, SYNONYMS, draw, overlap, wordings
from peav.wording import phrasings

NAMES = sorted(set().union(*OVERLAPPING, SYNONYMS, {"percussion loop", "drum loop", "rain", "helicopter"}))
CAPTIONS = ("it pours on a tin roof", "a wet afternoon")


def test_overlap_is_symmetric_and_reflexive():
    assert all(overlap(name, name) for name in NAMES)
    assert all(overlap(a, b) == overlap(b, a) for a, b in combinations(NAMES, 2))


@pytest.mark.parametrize(
    ("a", "b"),
    [("hi-hat", "closed hi-hat"), ("open hi-hat", "hi-hat pedal"), ("guitar", "electric guitar"),
     ("person speaking", "woman speaking"), ("drum kit", "snare drum"), ("drums", "hi-hat"),
     ("drum kit", "drums"), ("strings", "cello"), ("brass section", "tuba")],
    ids=lambda name: name.replace(" ", "_"),
)  # fmt: skip
def test_labels_that_may_answer_the_same_prompt(a, b):
    assert overlap(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [("cello", "flute"), ("violin", "person speaking"), ("snare drum", "hi-hat"), ("rain", "dog barking"),
     ("drum kit", "violin"), ("kick drum", "snare drum")],
    ids=lambda name: name.replace(" ", "_"),
)  # fmt: skip
def test_labels_that_are_each_others_negative(a, b):
    assert not overlap(a, b)


@pytest.mark.parametrize("played", [True, False], ids=["played", "not_played"])
@pytest.mark.parametrize("label", ["rain", "violin", "unheard of"])
def test_every_draw_is_a_known_wording(label, played):
    known = set(wordings(label, CAPTIONS, played))
    rng = random.Random(0)
    drawn = {draw(rng, label, CAPTIONS, played) for _ in range(1_000)}
    assert drawn <= known
    assert label in drawn and set(CAPTIONS) <= drawn and len(drawn) > 8  # and many of them come up


def test_every_wording_holds_the_label_a_synonym_or_is_a_caption():
    for label, others in SYNONYMS.items():
        for phrase in wordings(label, CAPTIONS):
            known = phrase in CAPTIONS or phrase in phrasings()[0][label]
            assert known or any(word in phrase for word in (label, *others))


def test_nobody_plays_the_rain():
    rng = random.Random(0)
    drawn = {draw(rng, "rain", (), played=False) for _ in range(2_000)} | set(wordings("rain", (), played=False))
    assert not [phrase for phrase in drawn if any(word in phrase for word in PLAYED)]
    assert any("playing" in phrase for phrase in wordings("violin"))


def test_the_plain_label_comes_most_often():
    rng = random.Random(0)
    drawn = [draw(rng, "violin", CAPTIONS) for _ in range(4_000)]
    # 35 % outright, and 35 % * 1/4 (synonyms) * 3/15 (bare templates) on the way through a template
    assert drawn.count("violin") / len(drawn) == pytest.approx(0.3675, abs=0.03)
    assert sum(phrase in CAPTIONS for phrase in drawn) / len(drawn) == pytest.approx(0.3, abs=0.03)


def test_draws_depend_on_the_generator_alone():
    first, second = ([draw(random.Random(7), "cello", CAPTIONS) for _ in range(5)] for _ in range(2))
    assert first == second
