"""Manifests: each mistake has its message. Stores: what is in the files, once."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from peav import clips, media
from peav.clips import ClipStore, read_manifest
from peav.errors import UserError

ROW = {"path": "a.wav", "label": "rain", "captions": ["rainfall"], "group": "g", "split": "train", "seconds": 1.0}


def manifest(folder, *rows):
    path = folder / "manifest.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows),
                    encoding="utf-8")  # fmt: skip
    return path


def test_a_manifest_is_read_in_order(tmp_path):
    rows = [ROW, ROW | {"path": "b/c.wav", "group": "h", "split": "valid", "source": "kept out"}]
    path = manifest(tmp_path, rows[0], "", rows[1])
    first, second = read_manifest(path)
    assert (first.label, first.captions, first.split, first.seconds) == ("rain", ("rainfall",), "train", 1.0)
    assert second.path == tmp_path / "b" / "c.wav"
    assert [c.path for c in read_manifest(path, "valid")] == [second.path]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{oops"], ":1 is not JSON"),
        ([ROW, "[1, 2]"], ":2 is no object"),
        ([{k: v for k, v in ROW.items() if k != "label"}], ":1 field 'label' is None"),
        ([ROW | {"captions": "rainfall"}], ":1 field 'captions' is 'rainfall'"),
        ([ROW | {"seconds": "1"}], ":1 field 'seconds' is '1'"),
        ([ROW | {"split": "test"}], ":1 split 'test'; expected 'train' or 'valid'"),
        ([ROW, ROW | {"split": "valid"}], ":2 group 'g' is in both splits"),
    ],
    ids=["not_json", "not_an_object", "missing_field", "captions_no_list", "seconds_text", "split", "group_twice"],
)
def test_mistakes_name_line_and_field(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read_manifest(manifest(tmp_path, *rows))


def test_a_group_in_both_splits_is_found_even_when_one_split_is_asked_for(tmp_path):
    with pytest.raises(UserError, match="both splits"):
        read_manifest(manifest(tmp_path, ROW, ROW | {"split": "valid"}), "train")


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl does not exist"):
        read_manifest(tmp_path / "nowhere.jsonl")


def test_labels_may_be_in_any_script(tmp_path):
    line = json.dumps(ROW | {"label": "Schlägel 鼓"}, ensure_ascii=False)
    assert read_manifest(manifest(tmp_path, line))[0].label == "Schlägel 鼓"


# --- the store ------------------------------------------------------------------------------------


def test_the_store_holds_what_is_in_the_files(pool, store):
    assert len(store) == 27 and {c.split for c in store.clips} == {"train"}
    for i in (0, 13, 26):
        wanted, _ = soundfile.read(store.clips[i].path, dtype="float32")
        assert store[i].dtype == np.float32 and len(store[i]) == len(wanted)
        # stored as 16 bits of the clip's own peak
        assert np.abs(store[i] - wanted).max() <= 0.51 * np.abs(wanted).max() / 32767


def test_quiet_clips_keep_their_precision(tmp_path):
    samples = 1e-4 * np.random.default_rng(0).standard_normal(4_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 8_000, subtype="FLOAT")
    store = ClipStore([manifest(tmp_path, ROW)], 8_000, tmp_path / "cache", progress=False)
    assert np.abs(store[0] - samples).max() < 1e-4 * np.abs(samples).max()


def test_other_rates_and_channels_are_brought_to_one(tmp_path):
    stereo = 0.1 * np.random.default_rng(0).standard_normal((3_000, 2))
    soundfile.write(tmp_path / "a.wav", stereo, 12_000, subtype="FLOAT")
    store = ClipStore([manifest(tmp_path, ROW)], 8_000, tmp_path / "cache", progress=False)
    mono = torch.from_numpy(stereo.mean(1, keepdims=True).T.astype(np.float32))
    wanted = media.resample(mono, 12_000, 8_000)[0].numpy()
    assert len(store[0]) == len(wanted) == 2_000
    assert np.abs(store[0] - wanted).max() < 1e-4


def test_a_store_is_built_once(pool, tmp_path, monkeypatch):
    folder = shutil.copytree(pool.parent, tmp_path / "pool")
    first = ClipStore([folder / pool.name], 8_000, tmp_path / "cache", progress=False)
    kept = [first[i] for i in range(len(first))]

    def refuse(path):
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(clips.media, "read", refuse)
    again = ClipStore([folder / pool.name], 8_000, tmp_path / "cache", progress=False)
    assert all(np.array_equal(again[i], kept[i]) for i in range(len(kept)))
    with pytest.raises(AssertionError, match="decoded again"):
        ClipStore([folder / pool.name], 4_000, tmp_path / "cache", progress=False)
    with (folder / pool.name).open("a") as file:
        file.write(json.dumps(ROW | {"path": "violin-0.wav"}) + "\n")
    with pytest.raises(AssertionError, match="decoded again"):
        ClipStore([folder / pool.name], 8_000, tmp_path / "cache", progress=False)


def test_an_interrupted_build_is_done_again(pool, tmp_path, monkeypatch):
    calls = []

    def fail_third(path):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(path)

    read = clips.media.read
    monkeypatch.setattr(clips.media, "read", fail_third)
    with pytest.raises(KeyboardInterrupt):
        ClipStore([pool], 8_000, tmp_path, progress=False)
    assert len(ClipStore([pool], 8_000, tmp_path, progress=False)) == 36


def test_manifests_are_joined(pool, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(80, 0.5), 8_000)
    both = ClipStore([pool, manifest(tmp_path, ROW)], 8_000, tmp_path / "cache", progress=False)
    assert len(both) == 37 and both.clips[36].captions == ("rainfall",)
    assert abs(both[36] - 0.5).max() < 1e-4


def test_clips_are_found_by_label(store):
    table = store.by_label()
    assert list(table) == sorted(table) and len(table) == 9
    assert all(store.clips[i].label == label for label, found in table.items() for i in found)
    assert sorted(i for found in table.values() for i in found) == list(range(27))
    assert store.by_label([26, 0]) == {store.clips[26].label: [26], store.clips[0].label: [0]}


@pytest.mark.parametrize("rows", [[], [ROW]], ids=["empty_manifest", "other_split"])
def test_a_store_without_clips_says_so(tmp_path, rows):
    soundfile.write(tmp_path / "a.wav", np.full(80, 0.5), 8_000)
    with pytest.raises(UserError, match="no clip of split 'valid'"):
        ClipStore([manifest(tmp_path, *rows)], 8_000, tmp_path / "cache", "valid", progress=False)
