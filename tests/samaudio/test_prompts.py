"""What counts as a prompt, and what is said about the rest."""

from __future__ import annotations

import pytest
import torch

import samaudio
from peav.errors import UserError
from samaudio.prompts import Example, Span, Text, as_prompts, describe


def test_words_are_a_prompt():
    assert as_prompts("guitar") == (Text("guitar"),)


def test_a_list_describes_one_sound():
    assert as_prompts(["dog", Span(2.0, 3.5)]) == (Text("dog"), Span(2.0, 3.5))


@pytest.mark.parametrize("empty", ["", "   ", [], ["guitar", "\n"]])
def test_an_empty_prompt_is_refused(empty):
    with pytest.raises(UserError, match="name the sound"):
        as_prompts(empty)


def test_an_endless_prompt_is_refused():
    with pytest.raises(UserError, match="1001 characters"):
        Text("a" * 1_001)


@pytest.mark.parametrize("thing", [3, None, b"guitar"])
def test_other_things_are_no_prompts(thing):
    with pytest.raises(UserError, match="no prompt"):
        as_prompts([thing])


@pytest.mark.parametrize(
    "start, end, says",
    [
        (3.2, 2.9, "ends before it starts"),
        (1.0, 1.0, "ends before"),
        (-1.0, 2.0, "two times"),
        (0.0, float("nan"), "two"),
    ],
    ids=["backwards", "empty", "negative", "nan"],
)
def test_impossible_spans_are_refused(start, end, says):
    with pytest.raises(UserError, match=says):
        Span(start, end)


def test_an_example_in_memory_needs_its_rate():
    with pytest.raises(UserError, match="sample_rate"):
        Example(torch.zeros(1, 10))


@pytest.mark.parametrize(
    "prompts, name",
    [
        (["dog", Span(2.0, 3.5)], "dog"),
        ([Span(2.0, 3.5), Span(4, 5)], "span 2-3.5s 4-5s"),
        ([Example("dog.wav")], "example"),
    ],
)
def test_descriptions(prompts, name):
    assert describe(as_prompts(prompts)) == name


def test_prompts_are_at_hand_in_the_package():
    assert samaudio.Text is Text and samaudio.Span is Span and samaudio.Example is Example
