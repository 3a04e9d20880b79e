"""A cluster of two processes, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from index_fakes import WORDS, load_tones, save, tone

from peav.errors import UserError
from peav.index import Index, build, workers

distributed = pytest.importorskip("distributed")


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    """Where the workers note what they do."""
    monkeypatch.setenv("TONES_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("TONES_SECONDS", "0.05")
    return tmp_path / "log"


@pytest.fixture
def cluster(log):
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


def notes(log: Path, what: str) -> list[int]:
    """Which processes noted it, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(what)]


def test_a_killed_worker_loses_nothing_and_doubles_nothing(tmp_path, cluster, log, monkeypatch):
    monkeypatch.setattr(workers, "TOGETHER", 3)
    names = {f"{kind}{i}.wav": kind for i in range(20) for kind in WORDS}
    for name, kind in names.items():
        save(tmp_path / "sounds" / name, tone(kind))
    killed: list[int] = []

    def kill() -> None:
        while len(set(notes(log, "embed"))) < 2 or len(notes(log, "embed")) < 8:
            time.sleep(0.01)
        killed.append(notes(log, "embed")[-1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    report = build(
        tmp_path / "sounds", tmp_path / "a.index", model=load_tones, scheduler=cluster.scheduler_address, window=10.0
    )
    killer.join(10)
    assert killed and notes(log, "embed").count(killed[0]) < 50  # it was in the middle

    assert sorted(report.added) == sorted(names) and not report.failed
    index = Index.open(tmp_path / "a.index")
    entries = list(index.entries())
    assert Counter(entry.path for entry in entries) == Counter(names.keys())
    assert index.rows == 2 * len(names)  # a whole file and a window each, none twice
    for entry in entries:
        vector = index.vector(index.find(entry.path))
        assert int(np.argmax(vector)) == WORDS[names[entry.path]]
    loads = notes(log, "load")
    assert len(loads) == len(set(loads)) <= 3 and os.getpid() not in loads  # once per process, the new one too
    assert set(notes(log, "embed")) <= set(loads)

    again = build(tmp_path / "sounds", tmp_path / "a.index", model=load_tones, scheduler=cluster.scheduler_address)
    assert again.unchanged == len(names) and again.rows == 2 * len(names)


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_CONNECT", 0.5)
    (tmp_path / "sounds").mkdir()
    with pytest.raises(UserError, match="127.0.0.1:9: no scheduler answers"):
        build(tmp_path / "sounds", tmp_path / "a.index", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "a.index").exists()


def test_without_dask_the_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UserError, match=r'pip install "samaudio\[batch\]"'):
        build(tmp_path, tmp_path / "a.index", scheduler="tcp://127.0.0.1:9")
