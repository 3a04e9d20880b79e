"""Scenes for the embedder: what is true of them, token by token."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from peav import captions
from peav.clips import ClipStore
from peav.scenes import ABSENT_TEXTS, NO, UNSURE, YES, SceneBatches, SceneRecipe, SceneSampler, Sound, truth
from peav.vocabulary import ABSENT, SYNONYMS
from peav.wording import phrasings

RATE, TOKEN = 8_000, 400
LABELS = ("violin", "cello", "rain", "dog barking")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ClipStore:
    folder = tmp_path_factory.mktemp("clips")
    draw = np.random.default_rng(0)
    with (folder / "manifest.jsonl").open("w") as file:
        for number, label in enumerate(LABELS * 2):
            name = f"{number}.wav"
            soundfile.write(folder / name, 0.3 * draw.standard_normal(RATE), RATE)
            row = {"path": name, "label": label, "captions": [f"some {label}"], "group": str(number)}
            file.write(json.dumps(row | {"split": "train", "seconds": 1.0}) + "\n")
    return ClipStore([folder / "manifest.jsonl"], RATE, folder / "cache", progress=False)


def sound(label: str, start: int, stop: int, level: float = 1.0, tokens: int = 10) -> Sound:
    samples = np.zeros(tokens * TOKEN, dtype=np.float32)
    samples[start * TOKEN : stop * TOKEN] = level
    return Sound(samples, label, label)


def rows(*texts: str | None, scene: list[Sound]) -> list[list[int]]:
    return truth(scene, texts, TOKEN).tolist()


def test_a_text_is_true_while_its_sound_lasts():
    assert rows("rain", scene=[sound("rain", 2, 5)]) == [[NO] * 2 + [YES] * 3 + [NO] * 5]


def test_a_related_text_is_neither_true_nor_false_while_the_sound_lasts():
    assert rows("cello", scene=[sound("violin", 2, 5)]) == [[NO] * 2 + [UNSURE] * 3 + [NO] * 5]


def test_other_texts_and_those_of_nothing_are_false():
    assert rows("dog barking", None, scene=[sound("rain", 0, 10)]) == [[NO] * 10] * 2


def test_each_sound_of_a_scene_has_its_own_truth():
    scene = [sound("rain", 0, 6), sound("dog barking", 4, 8)]
    assert rows("rain", "dog barking", scene=scene) == [[YES] * 6 + [NO] * 4, [NO] * 4 + [YES] * 4 + [NO] * 2]


def test_what_is_drowned_or_nearly_over_is_not_asked():
    quiet = sound("rain", 0, 10)
    quiet.samples[5 * TOKEN :] *= 10 ** (-36 / 20)  # between still sounding (30 dB) and over (42 dB)
    assert rows("rain", scene=[quiet]) == [[YES] * 5 + [UNSURE] * 5]
    drowned = [sound("rain", 0, 10, level=0.05), sound("dog barking", 0, 3)]  # 26 dB below the dog
    assert rows("rain", scene=drowned) == [[UNSURE] * 3 + [YES] * 7]


def test_a_louder_truth_wins_over_a_related_sound():
    scene = [sound("violin", 0, 4), sound("cello", 2, 6)]
    assert rows("cello", scene=scene) == [[UNSURE] * 2 + [YES] * 4 + [NO] * 4]


def test_batches_are_seeded_and_as_stated(store):
    make = SceneBatches(store, SceneRecipe(seconds=1.0, behind=1.0), 6, TOKEN, seed=3)
    batch, again, other = make(0), make(0), make(1)
    torch.testing.assert_close(batch["audio"], again["audio"])
    assert batch["phrases"] == again["phrases"] != other["phrases"]
    B, T = batch["audio"].shape
    Q = len(batch["phrases"])
    assert (B, T) == (6, RATE) and len(batch["labels"]) == 6
    assert batch["named"].shape == (6, Q) and batch["active"].shape == (6, Q, RATE // TOKEN)
    assert batch["audio"].abs().max() <= 0.9 + 1e-4


def test_the_last_texts_are_of_sounds_that_are_nowhere(store):
    batch = SceneBatches(store, SceneRecipe(seconds=1.0), 4, TOKEN, seed=0)(0)
    assert (batch["named"][:, -ABSENT_TEXTS:] == NO).all() and (batch["active"][:, -ABSENT_TEXTS:] == NO).all()
    nowhere = (*ABSENT, *phrasings()[1])
    assert all(any(name in phrase for name in nowhere) for phrase in batch["phrases"][-ABSENT_TEXTS:])


def test_a_scenes_own_text_names_it_and_related_ones_are_not_asked(store):
    for number in range(6):
        batch = SceneBatches(store, SceneRecipe(seconds=1.0, behind=0.0), 8, TOKEN, seed=1)(number)
        assert (batch["named"].diagonal() == YES).all()
        for i, a in enumerate(batch["labels"]):
            for j, b in enumerate(batch["labels"]):
                expected = YES if i == j else UNSURE if captions.overlap(a, b) else NO
                assert batch["named"][i, j] == expected


def test_a_gated_sound_keeps_its_energy_and_is_shorter(store):
    sampler = SceneSampler(store, SceneRecipe(seconds=1.0, gate=1.0, behind=0.0, change=0.0))
    quiet = []
    for seed in range(20):
        (one,) = sampler.scene(np.random.default_rng(seed), random.Random(seed))
        quiet.append(float(np.mean(one.samples == 0)))
    assert np.mean(np.array(quiet) > 0.15) > 0.8


def test_second_sounds_are_as_far_below_as_asked(store):
    sampler = SceneSampler(store, SceneRecipe(seconds=1.0, gate=0.0, behind=1.0, below=(10.0, 10.0)))
    found = 0
    for seed in range(12):
        sounds = sampler.scene(np.random.default_rng(seed), random.Random(seed))
        if len(sounds) == 2:
            first, second = (float(np.sum(s.samples**2)) for s in sounds)
            assert 10 * np.log10(first / second) == pytest.approx(10, abs=0.1)
            assert not captions.overlap(sounds[0].label, sounds[1].label)
            found += 1
    assert found > 3


def test_absent_names_are_nowhere_in_the_vocabulary():
    known = {name for label, others in SYNONYMS.items() for name in (label, *others)}
    assert not known & set(ABSENT)
    pool = Path(__file__).parents[3] / "shared" / "sounds" / "manifest.jsonl"
    if pool.is_file():
        labels = {json.loads(line)["label"] for line in pool.read_text().splitlines()}
        assert not labels & set(ABSENT)
