"""The server as a process: many clients at once, fuzzing, and stopping in order."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from server_fakes import parts, sound

pytest.importorskip("fastapi")
import httpx

ROOT = Path(__file__).parents[2]
CODE = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
from server_fakes import BatchJudge
from judge.server import Settings, serve
serve(lambda: BatchJudge(delay={delay}), Settings(port=0, **{settings!r}))
"""


class Live:
    """One server process with a temporary folder of its own."""

    def __init__(self, folder: Path, delay: float, **settings) -> None:
        self.temp, self.log = folder / "temp", folder / "log"
        self.temp.mkdir(parents=True)
        code = CODE.format(root=str(ROOT), here=str(Path(__file__).parent), delay=delay, settings=settings)
        environment = {**os.environ, "TMPDIR": str(self.temp), "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=log, stdout=log)
        try:
            self.url = f"http://127.0.0.1:{self.until('listening')['port']}"
            self.until("ready")
        except BaseException:
            self.process.kill()
            raise

    def lines(self, event: str) -> list[dict]:
        found = [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in found if line["event"] == event]

    def until(self, event: str) -> dict:
        for _ in range(1_200):
            if self.log.exists() and (found := self.lines(event)):
                return found[0]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no '{event}' in {self.log.read_text()}")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=20)

    def leftovers(self) -> list[Path]:
        # Folders may vanish while one looks, which os.walk does not mind.
        return [Path(folder) / name for folder, _, names in os.walk(self.temp) for name in names]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    server = Live(tmp_path_factory.mktemp("live"), delay=0.005, pending=64)
    yield server
    assert server.stop() == 0, server.log.read_text()
    assert not list(server.temp.iterdir())
    assert not server.lines("failed")


def eventually(holds) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.02)
    assert holds()


async def storm(url: str, number: int) -> list[httpx.Response]:
    """So many requests at the same time, every tenth of them broken."""
    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def one(i: int) -> httpx.Response:
            target = b"broken" if i % 10 == 0 else sound(0.25)
            return await client.post("/v1/score", headers={"x-request-id": f"storm-{i}"}, **parts(target))

        return await asyncio.gather(*(one(i) for i in range(number)))


def test_200_parallel_requests_are_all_answered_or_refused_in_bounded_memory(live):
    process, peak, over = psutil.Process(live.process.pid), 0, threading.Event()

    def watch():
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    asyncio.run(storm(live.url, 20))  # what is imported and cached at the first requests is no growth
    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answers = asyncio.run(storm(live.url, 200))
    finally:
        over.set()
        watcher.join()
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 422, 429, 503} and sum(statuses.values()) == 200
    assert statuses[200] >= 50  # 64 places, a tenth of what comes is broken
    for i, answer in enumerate(answers):
        assert answer.headers["x-request-id"] == f"storm-{i}"
        if answer.status_code == 200:
            assert i % 10 and answer.json()["overall"] == pytest.approx(0.25, abs=1e-4)
        if answer.status_code in (429, 503):
            assert int(answer.headers["retry-after"]) >= 1
    assert peak - before < 100 << 20

    def logged() -> Counter:
        lines = (line["request_id"] for line in live.lines("request"))
        return Counter(name for name in lines if name.startswith("storm"))

    expected = Counter(f"storm-{i}" for n in (20, 200) for i in range(n))
    eventually(lambda: logged() == expected)  # the line comes after the answer
    assert not live.leftovers()
    assert "judge_pending_requests 0\n" in live.get("/metrics").text


def test_schemathesis_finds_no_500_and_nothing_undocumented(live):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    # No schema can say what a sound is, so bytes that fit it may be refused.
    beyond_schemas = CHECKS.get_by_names(["positive_data_acceptance"])
    schema = schemathesis.openapi.from_url(live.url + "/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=25, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        def holds(case):
            nonlocal tried
            tried += 1
            response = case.call(timeout=20)
            assert response.status_code != 500, response.text
            case.validate_response(response, excluded_checks=beyond_schemas)

        holds()
    assert tried >= 30


def broken(rng: random.Random) -> bytes:
    """A sound with something wrong with it."""
    format = rng.choice(["WAV", "FLAC", "OGG", "MP3", "AIFF", "W64", "CAF", "AU"])
    data = bytearray(sound(rng.uniform(-1, 1), rng.uniform(0.01, 0.5), rng.choice([8_000, 44_100]), format))
    kind = rng.randrange(4)
    if kind == 0:
        del data[rng.randrange(len(data)) :]
    elif kind == 1:
        for _ in range(rng.randrange(1, 40)):
            data[rng.randrange(min(200, len(data)))] = rng.randrange(256)
    elif kind == 2:
        at = rng.randrange(min(60, len(data)))
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80"])
    else:
        data[: rng.randrange(1, 60)] = b""
    return bytes(data)


def fuzz(live: Live, number: int, seed: int) -> Counter:
    rng = random.Random(seed)
    statuses: Counter = Counter()
    with httpx.Client(base_url=live.url, timeout=60) as client:
        for _ in range(number):
            whole = sound(0.5, 0.2)
            pair = (broken(rng), whole) if rng.random() < 0.5 else (whole, broken(rng))
            answer = client.post("/v1/score", **parts(*pair))
            assert answer.status_code in (200, 413, 422), (answer.status_code, answer.text, pair)
            assert str(live.temp) not in answer.text
            statuses[answer.status_code] += 1
    return statuses


def test_broken_sounds_are_never_a_500(live):
    statuses = fuzz(live, 150, seed=1)
    assert statuses[422] > 75
    assert not live.leftovers() and not live.lines("failed")


def test_a_client_that_hangs_up_in_its_upload_leaves_nothing(live):
    before = len(live.lines("request"))
    head = (b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 100000\r\n\r\n--b\r\nContent-Disposition: form-data; name=mixture\r\n\r\n")  # fmt: skip
    with socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2]))) as line:
        line.sendall(head + bytes(50_000))
        eventually(live.leftovers)
    eventually(lambda: not live.leftovers() and len(live.lines("request")) > before)
    assert live.lines("request")[-1]["status"] == 499


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_refused_upload_still_gets_its_answer(live, is_declared):
    # The server answers at the first byte too many, while the client is still sending.
    head = b'--b\r\nContent-Disposition: form-data; name="mixture"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    if is_declared:
        headers["content-length"] = str(len(head) + (80 << 20))

    def body():
        yield head
        for _ in range(20):
            yield bytes(4 << 20)

    answer = httpx.post(live.url + "/v1/score", content=body(), headers=headers, timeout=20)
    assert answer.status_code == 413


def test_the_five_lines_of_the_docs_work(live, tmp_path, monkeypatch, capsys):
    pytest.importorskip("requests")
    text = (ROOT / "docs" / "judge-server.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) <= 5 and "http://127.0.0.1:8000" in code
    monkeypatch.chdir(tmp_path)
    Path("mix.wav").write_bytes(sound())
    Path("guitar.wav").write_bytes(sound(0.25))
    exec(code.replace("http://127.0.0.1:8000", live.url), {})
    assert float(capsys.readouterr().out) == pytest.approx(0.25, abs=1e-4)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_stop_lets_running_requests_finish_and_refuses_new_ones(tmp_path):
    server = Live(tmp_path, delay=0.7)
    answers = {}

    def ask():
        answers["running"] = httpx.post(server.url + "/v1/score", timeout=20, **parts())

    try:
        thread = threading.Thread(target=ask)
        thread.start()
        while "judge_pending_requests 1\n" not in server.get("/metrics").text:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        server.until("stopping")
        assert server.get("/readyz").status_code == 503
        assert server.get("/healthz").status_code == 200
        late = httpx.post(server.url + "/v1/score", timeout=20, **parts())
        assert late.status_code == 503 and int(late.headers["retry-after"]) >= 1
        thread.join(20)
        assert answers["running"].status_code == 200
        assert server.process.wait(10) == 0
        assert not list(server.temp.iterdir())
    finally:
        server.process.kill()


@pytest.mark.slow
def test_soak(tmp_path):
    """Storms and broken sounds for a minute: memory levels off."""
    server = Live(tmp_path, delay=0.002, pending=64)
    try:
        process = psutil.Process(server.process.pid)
        asyncio.run(storm(server.url, 200))
        fuzz(server, 300, seed=2)
        before = process.memory_info().rss
        end = time.monotonic() + 60
        seed = 3
        while time.monotonic() < end:
            asyncio.run(storm(server.url, 200))
            fuzz(server, 100, seed := seed + 1)
        assert process.memory_info().rss - before < 60 << 20
        assert not server.leftovers() and not server.lines("failed")
        assert server.stop() == 0
    finally:
        server.process.kill()
