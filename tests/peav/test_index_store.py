"""The index on the disk: what it holds after every way to stop a writer, and who may write it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from peav.errors import UserError
from peav.index import disk, store
from peav.index.settings import Settings, check_model, check_same
from peav.index.shards import SUFFIXES, Entry
from peav.index.store import open_shards, writing

E = 3
SETTINGS = Settings(model="abc123", output_dim=E, root="/sounds")


def vectors(seed: int, rows: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, E)).astype(np.float32)


def entry(path: str, seed: int = 0, rows: int = 2) -> Entry:
    spans = (None, *((float(i), i + 1.0) for i in range(rows - 1))) if rows else ()
    return Entry(path, 100 + seed, 10**18 + seed, f"{seed:032x}", rows - 1.0, spans)


def put(writer: store.Writer, path: str, seed: int, rows: int = 2) -> None:
    writer.put(entry(path, seed, rows), vectors(seed, rows))


def content(folder: Path) -> dict[str, tuple[int, list]]:
    """Seed and vectors of every file, by what stands on the disk."""
    found = {}
    _, shards = open_shards(folder)
    for shard in shards:
        for _, row, item in shard.entries():
            assert item.path not in found, "a file is there twice"
            for place in range(len(item.spans)):
                assert shard.row(row + place) == (item, place)
            found[item.path] = item.size - 100, shard.vectors[row : row + len(item.spans)].tolist()
    return found


def expected(seeds: Mapping[str, int], rows: int = 2) -> dict[str, tuple[int, list]]:
    return {path: (seed, vectors(seed, rows).tolist()) for path, seed in seeds.items()}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """A killed process loses nothing that it wrote; only a power cut would, and that cannot be tried here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "a.index"


def begin(folder: Path, **seeds: int) -> None:
    with writing(folder) as writer:
        writer.begin(SETTINGS)
        for path, seed in seeds.items():
            put(writer, path, seed)
        writer.commit()


def test_what_is_committed_is_there_and_nothing_else(folder):
    begin(folder, a=1, b=2)
    with writing(folder) as writer:
        put(writer, "c", 3)
        assert set(writer.entries) == {"a", "b", "c"}  # not committed
    assert content(folder) == expected({"a": 1, "b": 2})
    with writing(folder) as writer:
        assert writer.settings == SETTINGS
        put(writer, "b", 5)
        writer.remove("a")
        put(writer, "quiet", 4, rows=0)
        put(writer, "gone", 4)
        writer.remove("gone")
        writer.commit()
        assert set(writer.entries) == {"b", "quiet"}
        np.testing.assert_array_equal(writer.vectors("b"), vectors(5))
    assert content(folder) == expected({"b": 5}) | {"quiet": (4, [])}


def test_odd_names_survive(folder):
    odd = ["ä ö/ü.wav", 'quote".wav', "line\nbreak.wav", os.fsdecode(b"caf\xe9.wav")]
    with writing(folder) as writer:
        writer.begin(SETTINGS)
        for i, path in enumerate(odd):
            put(writer, path, i)
        writer.commit()
    assert set(content(folder)) == set(odd)


def test_merging_keeps_what_counts(folder, monkeypatch):
    begin(folder, a=1)
    seeds = {"a": 1}
    for i in range(12):
        with writing(folder) as writer:
            put(writer, f"f{i % 7}", i)
            writer.commit()
        seeds[f"f{i % 7}"] = i
    assert len(open_shards(folder)[1]) == 13
    _, before = open_shards(folder)
    with writing(folder) as writer:
        writer.compact()
        assert len(open_shards(folder)[1]) == 1
        assert content(folder) == expected(seeds)
        put(writer, "late", 40)  # and it goes on after it
        writer.commit()
    assert content(folder) == expected(seeds | {"late": 40})
    assert len(list(folder.glob("*.npy"))) == 2 * 2
    # Whoever had it open still reads all of it.
    assert sum(1 for shard in before for _ in shard.entries()) == len(seeds)
    monkeypatch.setattr(store, "SHARD_BYTES", 4 * E * 4)  # four rows
    with writing(folder) as writer:
        put(writer, "f1", 50)
        writer.commit()
        writer.compact(force=True)
    assert content(folder) == expected(seeds | {"late": 40, "f1": 50})
    assert [shard.info.rows for shard in open_shards(folder)[1]] == [2, 2, 4, 4, 4, 2]


def test_removing_everything_leaves_an_empty_index(folder):
    begin(folder, a=1)
    with writing(folder) as writer:
        writer.remove("a")
        writer.commit()
        writer.compact()
    assert content(folder) == {} and open_shards(folder)[1] == []


# -- stopped at any point -------------------------------------------------------------------------------------------


def killed_at(step: int) -> None:
    """Arrange that the process ends in its `step`-th change of the disk: half through a file, or after the change."""
    count = 0
    originals = {name: getattr(disk, name) for name in ("write_whole", "remove")}
    rename = Path.replace

    def dying(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments):
            nonlocal count
            count += 1
            if count == step and name == "write_whole":
                arguments[0].write_bytes(b"{half")  # a file that was begun
                os._exit(9)
            done = work(*arguments)
            if count == step:
                os._exit(9)
            return done

        return wrapped

    for name, work in originals.items():
        setattr(disk, name, dying(name, work))
    Path.replace = dying("replace", rename)  # type: ignore[method-assign]


def in_child(work: Callable[[], object]) -> int:
    """Run in a process that may be killed without harm; its exit code."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rewrite(folder: Path) -> None:
    """Two commits and a merge; b and d change together."""
    with writing(folder) as writer:
        put(writer, "b", 12)
        put(writer, "d", 14)
        writer.remove("a")
        writer.commit()
        put(writer, "e", 15)
        writer.commit()
        writer.compact(force=True)


VALID = [
    expected({"a": 1, "b": 2, "c": 3}),
    expected({"b": 12, "c": 3, "d": 14}),
    expected({"b": 12, "c": 3, "d": 14, "e": 15}),
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_change_leaves_a_valid_index(tmp_path):
    original = tmp_path / "original"
    begin(original, a=1, b=2, c=3)
    seen, step = set(), 0
    while True:
        step += 1
        folder = tmp_path / str(step)
        shutil.copytree(original, folder)

        def work(folder=folder, step=step) -> None:
            killed_at(step)
            rewrite(folder)

        code = in_child(work)
        assert code in (0, 9)
        found = content(folder)
        assert found in VALID
        seen.add(VALID.index(found))
        rewrite(folder)  # the next run is not held up, and leaves nothing of the killed one
        assert content(folder) == VALID[2]
        names = {path.name for path in folder.iterdir()}
        shards = [shard.info.name for shard in open_shards(folder)[1]]
        assert names == {"index.json", "lock"} | {name + end for name in shards for end in SUFFIXES}
        if code == 0:
            break
    assert seen == {0, 1, 2} and step > 15


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_while_it_is_begun_is_no_obstacle(tmp_path):
    for step in range(1, 10):
        folder = tmp_path / str(step)

        def work(folder=folder, step=step) -> None:
            killed_at(step)
            begin(folder, a=1)

        in_child(work)
        begin(folder, a=1)
        assert content(folder) == expected({"a": 1})


def test_a_full_disk_is_one_line_and_keeps_what_was_there(folder, monkeypatch):
    begin(folder, a=1)

    def full(path, fill):
        raise OSError(28, "No space left on device")

    with writing(folder) as writer:
        put(writer, "b", 2)
        monkeypatch.setattr(disk, "write_whole", full)
        with pytest.raises(UserError, match="no space left.*what was committed is kept"):
            writer.commit()
        monkeypatch.undo()
        writer.commit()  # nothing was forgotten either
    assert content(folder) == expected({"a": 1, "b": 2})


def test_a_damaged_shard_is_told_and_mended(folder):
    begin(folder, a=1)
    with writing(folder) as writer:
        put(writer, "b", 2)
        writer.commit()
    first = min(folder.glob("*.jsonl"))
    first.write_bytes(first.read_bytes()[:-20])
    with pytest.raises(UserError, match="a shard is missing or damaged.*run peav index again"):
        open_shards(folder)
    with writing(folder) as writer:
        assert writer.mended == 1 and set(writer.entries) == {"b"}
    assert content(folder) == expected({"b": 2})


# -- one writer -----------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from peav.index.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_writers_are_told_apart_and_a_killed_one_is_forgotten(folder):
    begin(folder, a=1)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"is being written by process {holder.pid} on .* since"):
            with writing(folder):
                pass
        assert content(folder) == expected({"a": 1})  # reading needs no lock
    finally:
        holder.kill()
        holder.wait()
    assert json.loads((folder / "lock").read_text())["process"] == holder.pid  # its file is still there
    begin(folder, a=2)
    assert content(folder) == expected({"a": 2})
    assert (folder / "lock").read_text() == ""


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds thesis.txt, so it is no index"):
        with writing(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_index_that_was_never_begun_leaves_nothing(folder):
    with pytest.raises(UserError, match="no model"):
        with writing(folder):
            raise UserError("no model")
    assert not folder.exists()


def test_what_is_no_index_is_told(tmp_path, folder):
    with pytest.raises(UserError, match="is no index; make one"):
        open_shards(tmp_path)
    begin(folder, a=1)
    file = folder / "index.json"
    good = json.loads(file.read_text())
    for change, told in (
        ({"version": 99}, "version 99, this program reads 1"),
        ({"format": "other"}, "not that of an index"),
        ({"shards": [{"name": "../../etc", "entries": 1, "rows": 1, "dead": []}]}, "damaged"),
        ({"settings": {}}, "damaged"),
    ):
        file.write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=told):
            open_shards(folder)
    file.write_text("{")
    with pytest.raises(UserError, match="damaged; remove the folder"):
        open_shards(folder)


def test_nothing_is_unpickled(folder):
    begin(folder, a=1)
    np.save(next(path for path in folder.glob("*.npy") if ".rows" not in path.name), np.array([object()], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        open_shards(folder)


# -- mixing ---------------------------------------------------------------------------------------------------------


def test_two_models_are_never_mixed():
    check_model("i", SETTINGS, "abc123", None)
    with pytest.raises(UserError, match=r"with the packaged model \(abc123\), not big \(def\); leave --model away"):
        check_model("i", SETTINGS, "def", "big")
    own = Settings("abc123", E, "/sounds", model_name="big")
    with pytest.raises(UserError, match=r"made with big \(abc123\), not the packaged model \(def\); give --model big"):
        check_model("i", own, "def", None)
    with pytest.raises(UserError, match="its weights have changed"):
        check_model("i", own, "def", "big")


def test_an_index_goes_on_as_it_was_begun():
    check_same("i", SETTINGS, {"kind": None, "window": None, "root": "/sounds"})
    for wanted, told in (
        ({"kind": "video"}, "made with --embed audio, not video"),
        ({"window": 5.0}, "made without --window, not 5"),
        ({"root": "/films"}, "is the index of /sounds, not of /films; give another --out, or --moved"),
    ):
        with pytest.raises(UserError, match=told):
            check_same("i", SETTINGS, wanted)

