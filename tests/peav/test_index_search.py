"""Search against a plain matrix product, and faiss against that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from peav.errors import UserError
from peav.index import Index, approximate, search
from peav.index.settings import Settings
from peav.index.shards import Entry
from peav.index.store import writing

E = 8


def make(folder: Path, counts: dict[str, int], window: float | None = None, batch: int = 50) -> np.ndarray:
    """An index with so many rows for each file, and its live vectors in order."""
    rng = np.random.default_rng(0)
    made = []
    with writing(folder) as writer:
        writer.begin(Settings("m", E, "/sounds", window=window))
        for number, (path, rows) in enumerate(counts.items()):
            vectors = (rng.standard_normal((rows, E)) * rng.uniform(0.1, 4)).astype(np.float32)
            spans = (None, *((10.0 * i, 10.0 * (i + 1)) for i in range(rows - 1))) if rows else ()
            writer.put(Entry(path, 1, number, f"{number}", 10.0 * rows, spans), vectors)
            made.append(vectors)
            if number % batch == batch - 1:
                writer.commit()
        writer.commit()
    return np.concatenate(made)


def query(seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(E).astype(np.float32)


def cosine(vectors: np.ndarray, q: np.ndarray) -> np.ndarray:
    return vectors @ q / np.linalg.norm(vectors, axis=1) / np.linalg.norm(q)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "a.index"


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_the_nearest_are_those_of_a_plain_product(folder, monkeypatch, score):
    monkeypatch.setattr(search, "_BLOCK_BYTES", 7 * 4 * E)  # seven rows at a time
    vectors = make(folder, {f"f{i}": 1 for i in range(120)})
    q = query()
    scores = cosine(vectors, q) if score == "cosine" else vectors @ q
    order = np.argsort(-scores)
    index = Index.open(folder)
    assert (index.files, index.rows) == (120, 120)
    hits = index.search(torch.from_numpy(q), 15, score=score)
    assert [hit.path for hit in hits] == [f"f{i}" for i in order[:15]]
    assert [hit.score for hit in hits] == pytest.approx(scores[order[:15]].tolist(), rel=1e-5)
    assert all(hit.start is None and hit.end is None for hit in hits)
    assert len(index.search(q, 500)) == 120


def test_cosine_does_not_see_lengths_and_dot_does(folder):
    with writing(folder) as writer:
        writer.begin(Settings("m", 2, "/"))
        for path, vector in (("near", [0.1, 0.0]), ("far but long", [3.0, 4.0]), ("nothing", [0.0, 0.0])):
            writer.put(Entry(path, 1, 1, path, 1.0, (None,)), np.array([vector], dtype=np.float32))
        writer.commit()
    index = Index.open(folder)
    assert [hit.path for hit in index.search([1.0, 0.0])] == ["near", "far but long", "nothing"]
    assert [hit.path for hit in index.search([1.0, 0.0], score="dot")] == ["far but long", "near", "nothing"]
    assert index.search([1.0, 0.0])[0].score == pytest.approx(1.0)


def test_equals_come_in_the_order_of_the_index(folder):
    with writing(folder) as writer:
        writer.begin(Settings("m", 2, "/"))
        for i in range(50):
            writer.put(Entry(f"{i}", 1, 1, "", 1.0, (None,)), np.ones((1, 2), dtype=np.float32))
        writer.commit()
    assert [hit.path for hit in Index.open(folder).search([1.0, 1.0], 5)] == ["0", "1", "2", "3", "4"]


def test_windows_give_times_and_each_file_once(folder):
    counts = {"long": 40, "short": 2, "quiet": 0, "other": 5}
    vectors = make(folder, counts, window=10.0)
    starts = np.cumsum([0, *counts.values()])
    q = vectors[starts[0] + 7] * 3  # the seventh window of the long one
    index = Index.open(folder)
    hits = index.search(q, 3)
    assert (hits[0].path, hits[0].start, hits[0].end) == ("long", 60.0, 70.0)
    assert hits[0].score == pytest.approx(1.0)
    assert sorted(hit.path for hit in hits) == ["long", "other", "short"]
    scores = cosine(vectors, q)
    for hit in hits:
        first = starts[list(counts).index(hit.path)]
        own = scores[first + 1 : first + counts[hit.path]]  # without the row of the whole file
        assert hit.score == pytest.approx(own.max(), rel=1e-5)

    every = index.search(q, 5, per_file=False)
    windows = [row for name, rows, first in zip(counts, counts.values(), starts, strict=False) if rows
               for row in range(first + 1, first + rows)]  # fmt: skip
    best = sorted(windows, key=lambda row: -scores[row])[:5]
    assert [hit.row for hit in every] == best
    whole = index.search(q, 5, windows=False)
    assert [hit.score for hit in whole] == pytest.approx(sorted((scores[starts[i]] for i in (0, 1, 3)), reverse=True))
    assert all(hit.start is None for hit in whole)


def test_outdated_rows_are_never_found(folder):
    vectors = make(folder, {f"f{i}": 1 for i in range(20)}, batch=7)
    with writing(folder) as writer:
        writer.remove("f3")
        writer.put(Entry("f5", 1, 2, "", 1.0, (None,)), -vectors[5:6])
        writer.commit()
    index = Index.open(folder)
    assert index.files == 19
    for gone in (3, 5):
        assert index.search(vectors[gone], 1)[0].score < 0.999
    hits = index.search(vectors[5], 19)
    assert [hit.path for hit in hits].count("f5") == 1 and hits[-1].path == "f5"
    assert hits[-1].score == pytest.approx(-1.0)
    assert {entry.path for entry in index.entries()} == {f"f{i}" for i in range(20)} - {"f3"}


def test_a_row_of_the_index_is_a_query(folder):
    vectors = make(folder, {"a": 4, "b": 3, "quiet": 0}, window=10.0)
    index = Index.open(folder)
    assert index.find("a") == 0 and index.find("a", 12.0) == 2 and index.find("b", 0.0) == 5
    np.testing.assert_array_equal(index.vector(5), vectors[5])
    assert index.search(index.vector(5), 1)[0].path == "b"
    assert index.search(index.vector(5), 5, exclude="b")[0].path == "a"
    for path, time, told in (("c", None, "is not in the index; names are relative to /sounds"),
                             ("quiet", None, "is silent"), ("a", 99.0, "has no window at 99 s")):  # fmt: skip
        with pytest.raises(UserError, match=told):
            index.find(path, time)


def test_what_cannot_be_searched_is_told(folder):
    make(folder, {"a": 1})
    index = Index.open(folder)
    with pytest.raises(UserError, match=r"vectors of 8 numbers, the query has shape \[3\]; embed it with the packaged"):
        index.search(np.ones(3))
    with pytest.raises(UserError, match="zero or not finite"):
        index.search(np.zeros(E))
    with pytest.raises(UserError, match="has no windows; index with --window"):
        index.search(query(), windows=True)
    with pytest.raises(ValueError, match="choose cosine or dot"):
        index.search(query(), score="l2")


# -- faiss ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clustered(folder) -> np.ndarray:
    """Six thousand files in 60 heaps, so that there are cells to make."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((60, E))
    vectors = (centres[np.arange(6_000) % 60] + 0.15 * rng.standard_normal((6_000, E))).astype(np.float32)
    with writing(folder) as writer:
        writer.begin(Settings("m", E, "/"))
        for i, vector in enumerate(vectors):
            writer.put(Entry(f"{i}", 1, 1, "", 1.0, (None,)), vector[None])
        writer.commit()
    return vectors


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_faiss_gives_what_the_exact_search_gives(folder, clustered, score):
    pytest.importorskip("faiss")
    index = Index.open(folder)
    for seed in range(5):
        exact = index.search(query(seed), 10, score=score, approximate=False)
        near = index.search(query(seed), 10, score=score, approximate=True)
        assert [hit.row for hit in near] == [hit.row for hit in exact]
        assert [hit.score for hit in near] == pytest.approx([hit.score for hit in exact], rel=1e-5)
    made = approximate._open[approximate._path(index, score, False)]
    assert made.nlist > 100 and made.nprobe < made.nlist  # and it did look at a part only


def test_the_cells_are_kept_until_the_index_changes(folder, clustered, monkeypatch):
    pytest.importorskip("faiss")
    index = Index.open(folder)
    first = index.search(query(), 3, approximate=True)
    (kept,) = folder.glob("*.faiss")
    approximate._open.clear()
    monkeypatch.setattr(approximate, "_made", lambda *arguments: pytest.fail("made again"))
    assert index.search(query(), 3, approximate=True) == first
    monkeypatch.undo()
    with writing(folder) as writer:
        writer.remove(first[0].path)
        writer.commit()
    found = Index.open(folder).search(query(), 2, approximate=True)
    assert [hit.path for hit in found] == [hit.path for hit in first[1:]]
    assert kept not in folder.glob("*.faiss") and len(list(folder.glob("*.faiss"))) == 1


def test_windows_go_through_faiss_too(folder):
    pytest.importorskip("faiss")
    vectors = make(folder, {"a": 30, "b": 30}, window=10.0)
    index = Index.open(folder)
    hit = index.search(vectors[35], 1, approximate=True)[0]
    assert (hit.path, hit.start, hit.row) == ("b", 40.0, 35)
    assert len(index.search(vectors[35], 10, approximate=True)) == 2


def test_faiss_is_for_many_rows(folder, monkeypatch):
    make(folder, {f"{i}": 1 for i in range(5)})
    index = Index.open(folder)
    assert not index.uses_faiss()
    monkeypatch.setattr(search, "MANY", 4)
    assert index.uses_faiss() and not index.uses_faiss(False)
    monkeypatch.setattr(approximate, "installed", lambda: False)
    assert not index.uses_faiss()
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r'pip install "samaudio\[index\]"'):
        index.search(query(), approximate=True)
