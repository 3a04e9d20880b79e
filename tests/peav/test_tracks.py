"""Tracks: one label over time, accounted for by events."""

from __future__ import annotations

import numpy as np
import pytest

from peav.tracks import TrackSampler, scene_of

T = 12_000  # samples; longer than any clip of the pool


@pytest.fixture
def plain(store) -> TrackSampler:
    return TrackSampler(store, change=0.0)


@pytest.mark.parametrize("change", [0.0, 0.7], ids=["unchanged", "changed"])
def test_tracks_have_unit_energy_and_the_length_asked_for(store, change):
    sampler, rng = TrackSampler(store, change=change), np.random.default_rng(0)
    for length in (T, 500):
        for label in ("rain", "violin"):
            samples = sampler.track(label, length, rng).samples
            assert samples.shape == (length,) and samples.dtype == np.float32
            assert np.sum(samples.astype(np.float64) ** 2) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("length", [T, 500], ids=["longer_than_clips", "shorter_than_clips"])
def test_events_account_for_every_sample(store, plain, length):
    counts = set()
    for seed in range(8):
        track = plain.track("flute", length, np.random.default_rng(seed))
        canvas = np.zeros(length)
        for event in track.events:
            assert store.clips[event.clip].label == track.label == "flute"
            clip = store[event.clip][event.start : event.start + event.length]
            canvas[event.at : event.at + event.length] += event.gain * clip
        assert np.abs(canvas / np.sqrt(np.sum(canvas**2)) - track.samples).max() < 1e-5
        assert track.clip == track.events[0].clip
        counts.add(len(track.events))
    assert max(counts) > 1 or length == 500


def test_tracks_depend_on_the_generator_alone(store):
    sampler = TrackSampler(store)
    one, again, other = (sampler.track("rain", T, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.samples, again.samples) and one.events == again.events
    assert not np.allclose(one.samples, other.samples)


def test_labels_are_drawn_by_the_power_of_their_number_of_clips(store):
    class Uneven:  # rain has eight clips, violin has two
        sample_rate = store.sample_rate

        def by_label(self):
            return {"rain": list(range(8)), "violin": [8, 9]}

    for power, share in ((0.0, 1 / 2), (0.5, 2 / 3), (1.0, 4 / 5)):
        sampler, rng = TrackSampler(Uneven(), power), np.random.default_rng(0)
        drawn = [sampler.draw_label(rng) for _ in range(2_000)]
        assert drawn.count("rain") / 2_000 == pytest.approx(share, abs=0.035)  # three standard deviations


@pytest.mark.parametrize(
    ("label", "scene"),
    [("man speaking", "speech"), ("dog barking", "everyday"), ("sea waves", "everyday"), ("violin", "music"),
     ("snare drum", "music"), ("crash cymbal", "music")],
    ids=lambda name: name.replace(" ", "_"),
)  # fmt: skip
def test_scenes(label, scene):
    assert scene_of(label) == scene
