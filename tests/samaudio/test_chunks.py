"""Cutting into chunks and joining them loses nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samaudio.chunks import Cutting, OverlapAdd, chunks, ramp, weights

CUTTINGS = st.tuples(st.integers(2, 60), st.integers(1, 30)).filter(lambda p: 2 * p[1] <= p[0])


def cut(wave: torch.Tensor, cutting: Cutting, block: int = 7):
    return list(chunks(wave.split(block, dim=-1), cutting))


@settings(max_examples=200, deadline=None)
@given(pair=CUTTINGS, length=st.integers(1, 500), block=st.integers(1, 200))
def test_any_length_comes_back_as_it_was(pair, length, block):
    cutting = Cutting(*pair)
    wave = torch.arange(2.0 * length).view(2, length)
    join = OverlapAdd(cutting.overlap)
    joined = torch.cat([join.push(c.samples, c.last) for c in cut(wave, cutting, block)], dim=-1)
    torch.testing.assert_close(joined, wave, rtol=1e-6, atol=0)


@settings(max_examples=100, deadline=None)
@given(pair=CUTTINGS, length=st.integers(1, 500))
def test_a_constant_stays_constant_to_the_last_bit(pair, length):
    cutting = Cutting(*pair)
    wave = torch.full((1, length), 0.1)
    join = OverlapAdd(cutting.overlap)
    joined = torch.cat([join.push(c.samples, c.last) for c in cut(wave, cutting)], dim=-1)
    assert joined.equal(wave)


@settings(max_examples=100, deadline=None)
@given(pair=CUTTINGS, length=st.integers(1, 500))
def test_weights_sum_to_one(pair, length):
    cutting = Cutting(*pair)
    total = torch.zeros(length)
    for chunk in cut(torch.zeros(1, length), cutting):
        total[chunk.start : chunk.stop] += weights(chunk, cutting.overlap)
    assert total.equal(torch.ones(length))


@settings(max_examples=200, deadline=None)
@given(pair=CUTTINGS, length=st.integers(1, 500))
def test_the_last_chunk_is_no_scrap(pair, length):
    cutting = Cutting(*pair)
    found = cut(torch.zeros(1, length), cutting)
    sizes = [c.samples.shape[-1] for c in found]
    assert all(size == cutting.size for size in sizes[:-1])
    assert sizes[-1] <= cutting.longest
    assert sizes[-1] > cutting.size / 2 or len(found) == 1
    assert [c.first for c in found] == [True] + [False] * (len(found) - 1)
    assert [c.last for c in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].stop == length


def test_the_blocks_it_arrives_in_do_not_matter():
    wave, cutting = torch.randn(2, 1_000), Cutting(100, 20)
    for one, other in zip(cut(wave, cutting, 3), cut(wave, cutting, 999), strict=True):
        assert one.start == other.start and one.samples.equal(other.samples)


def test_a_short_recording_is_one_chunk():
    (chunk,) = cut(torch.randn(1, 1), Cutting(100, 20))
    assert chunk.first and chunk.last and weights(chunk, 20).equal(torch.ones(1))


def test_edges_of_chunks_are_context_only():
    fade = ramp(160)
    assert fade[:20].eq(0).all() and fade[-20:].eq(1).all() and fade.diff().ge(0).all()


def test_joining_holds_no_more_than_the_overlap():
    join = OverlapAdd(20)
    for chunk in cut(torch.randn(1, 10_000), Cutting(100, 20)):
        join.push(chunk.samples, chunk.last)
        assert join._tail is None or join._tail.untyped_storage().nbytes() == 4 * 20


@pytest.mark.parametrize("size, overlap", [(10, 6), (10, 0), (1, 1)])
def test_impossible_cuttings_are_refused(size, overlap):
    with pytest.raises(ValueError, match="cannot overlap"):
        Cutting(size, overlap)


def test_twelve_seconds_share_two():
    assert Cutting.of_seconds(44_100) == Cutting(12 * 44_100, 2 * 44_100)
