"""Mixtures and the questions about them: sums, levels, seeds, and what is never asked."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from peav.captions import overlap
from samaudio.mixtures import MixtureSampler, Recipe, activity, gain_for_snr


class Plain(torch.utils.data.Dataset):
    """A sampler as torch's loader wants it."""

    def __init__(self, sampler: MixtureSampler, count: int):
        self.sampler, self.count = sampler, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> np.ndarray:
        return self.sampler[i].stems


def mixtures(store, count: int = 30, questions: int = 1, seed: int = 0, **recipe):
    sampler = MixtureSampler(store, Recipe(**{"seconds": 0.5, **recipe}), seed, questions)
    return [sampler[i] for i in range(count)]


def test_stems_add_up_to_the_mixture(store):
    for mixture in mixtures(store, sources=(0, 1, 1), absent=0.0, questions=2):
        assert mixture.stems.dtype == np.float32 and mixture.stems.shape[1] == 4_000
        for question in mixture.questions:
            others = [s for i, s in enumerate(mixture.stems) if i != question.stem]
            assert np.abs(mixture.target(question) + sum(others) - mixture.samples).max() < 1e-6
            assert mixture.labels[question.stem] == question.label


@pytest.mark.parametrize("snr", [-10.0, 0.0, 3.5])
def test_the_first_stem_is_at_the_level_asked_for(store, snr):
    for mixture in mixtures(store, sources=(0, 1, 1), snr_db=(snr, snr)):
        first, rest = mixture.stems[0].astype(np.float64), mixture.stems[1:].sum(0).astype(np.float64)
        assert 10 * np.log10(np.sum(first**2) / np.sum(rest**2)) == pytest.approx(snr, abs=0.01)


def test_gain_for_a_known_ratio():
    # Energy 8 against 2: at 20 dB the residual must have 0.08, a fifth of its amplitude.
    assert gain_for_snr(np.full(2, 2.0), np.full(2, 1.0), 20.0) == pytest.approx(0.2)


def test_peaks_are_as_asked(store):
    for mixture in mixtures(store, peak=(0.2, 0.4)):
        assert 0.2 - 1e-4 <= np.abs(mixture.samples).max() <= 0.4 + 1e-4


def test_the_number_of_sources_follows_the_recipe(store):
    assert {len(m.stems) for m in mixtures(store, sources=(1.0,))} == {1}
    counts = [len(m.stems) for m in mixtures(store, 300, sources=(0.25, 0.75), seconds=0.05)]
    assert counts.count(1) / 300 == pytest.approx(0.25, abs=0.075)  # three standard deviations


def test_labels_of_a_mixture_never_answer_the_same_prompt(store):
    for mixture in mixtures(store, 150, sources=(0, 0, 1), seconds=0.05, plausible=0.0):
        assert not [pair for pair in combinations(mixture.labels, 2) if overlap(*pair)]


def test_absent_questions_name_nothing_that_is_there(store):
    for mixture in mixtures(store, 100, absent=1.0, seconds=0.05):
        (question,) = mixture.questions
        assert question.stem is None and not mixture.target(question).any()
        assert not any(overlap(question.label, label) for label in mixture.labels)
        assert question.phrase and store.clips[question.example].label == question.label


def test_absent_questions_come_as_often_as_asked(store):
    asked = [q.stem is None for m in mixtures(store, 400, absent=0.3, seconds=0.05) for q in m.questions]
    assert np.mean(asked) == pytest.approx(0.3, abs=0.07)  # three standard deviations


def test_questions_about_one_mixture_name_different_stems(store):
    for mixture in mixtures(store, sources=(0, 1), absent=0.0, questions=3):
        stems = [q.stem for q in mixture.questions]
        assert sorted(stems[:2]) == [0, 1] and stems[2] is None  # the third has nothing left to name


def test_examples_are_other_clips_of_the_same_label(store):
    for mixture in mixtures(store, absent=0.0):
        (question,) = mixture.questions
        assert store.clips[question.example].label == question.label
        assert question.example != mixture.clips[question.stem]


def test_a_pool_of_one_family_asks_for_something_unknown(store):
    class OnlyHats:
        sample_rate, clips = store.sample_rate, store.clips
        __getitem__ = store.__getitem__

        def by_label(self):
            return {k: v for k, v in store.by_label().items() if "hi-hat" in k}

    for mixture in mixtures(OnlyHats(), 10, absent=1.0):
        assert mixture.questions[0].label == "silence" and mixture.questions[0].example is None


def test_a_number_gives_the_same_mixture_in_any_order(store):
    forwards = mixtures(store, 6)
    sampler = MixtureSampler(store, Recipe(seconds=0.5), seed=0)
    for i in (5, 2, 0):
        again = sampler[i]
        assert np.array_equal(again.stems, forwards[i].stems)
        assert (again.labels, again.questions) == (forwards[i].labels, forwards[i].questions)


def test_another_seed_gives_other_mixtures(store):
    one, other = mixtures(store, 3, seed=0), mixtures(store, 3, seed=1)
    assert not any(a.stems.shape == b.stems.shape and np.allclose(a.stems, b.stems)
                   for a, b in zip(one, other, strict=True))  # fmt: skip


def test_workers_give_what_one_process_gives(store):
    plain = Plain(MixtureSampler(store, Recipe(seconds=0.2), seed=0), 6)
    loader = torch.utils.data.DataLoader(plain, batch_size=None, num_workers=2)
    for i, stems in enumerate(loader):
        # Workers use one thread; torch's resampling rounds differently with several (2e-7 seen).
        np.testing.assert_allclose(np.asarray(stems), plain[i], rtol=0, atol=5e-6)
    assert i == 5


# --- where a stem sounds --------------------------------------------------------------------------


def test_activity_of_a_known_stem():
    target = np.zeros(95, dtype=np.float32)  # ten frames, the last one cut
    target[20:30] = 1.0
    target[50:60] = 0.05  # -26 dB: heard
    target[70:80] = 0.005  # -46 dB: not
    assert np.flatnonzero(activity(target, 10)).tolist() == [2, 5]
    assert np.flatnonzero(activity(target, 10, floor_db=-50.0)).tolist() == [2, 5, 7]
    assert np.flatnonzero(activity(0.001 * target, 10)).tolist() == [2, 5]


def test_silence_is_never_active():
    found = activity(np.zeros(25, dtype=np.float32), 10)
    assert found.tolist() == [False, False, False]
