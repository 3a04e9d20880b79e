"""Many requests at once: batches, full queues, clients that leave. On the ASGI channel, so that time is ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from server_fakes import BatchJudge, FakeJudge, parts, sound

pytest.importorskip("fastapi")
import httpx

from judge.server import Settings, create_app

HEAD = b'--b\r\nContent-Disposition: form-data; name="mixture"\r\n\r\n'


class Running:
    """An application between start and stop, its judge and its folder."""

    def __init__(self, app, judge):
        self.app, self.judge, self.service = app, judge, app.state.service
        self.root = Path(self.service._root.name)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=20)

    async def post(self, path: str = "/v1/score", **request) -> httpx.Response:
        return await self.client.post(path, **(request or parts()))

    async def until(self, happened) -> None:
        for _ in range(500):
            if happened():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not happen")

    async def raw(self, messages, path: str = "/v1/score") -> tuple[int | None, dict]:
        """Status and body for a request whose body comes in ASGI messages; an iterator may wait between them."""
        answer: list[dict] = []

        async def receive():
            return await anext(messages)

        async def send(message):
            answer.append(message)

        headers = [(b"content-type", b"multipart/form-data; boundary=b")]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
                 "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
                 "headers": headers, "client": ("1.2.3.4", 5), "server": ("test", 80)}  # fmt: skip
        await self.app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in answer)
        return answer[0]["status"], json.loads(body) if body else {}


@asynccontextmanager
async def running(judge=None, **settings) -> AsyncIterator[Running]:
    judge = judge or FakeJudge()
    app = create_app(lambda: judge, Settings(**settings))
    async with app.router.lifespan_context(app):
        found = Running(app, judge)
        await found.until(lambda: found.service.is_ready)
        yield found
        judge.hold.set()
        await found.until(lambda: not found.service.pending and not list(found.root.iterdir()))
        await found.client.aclose()


def chunk(data: bytes, more: bool = True) -> dict:
    return {"type": "http.request", "body": data, "more_body": more}


def test_an_upload_is_refused_at_its_first_byte_too_many():
    taken = 0

    async def endless():
        nonlocal taken
        yield chunk(HEAD)
        while True:
            taken += 10_000
            yield chunk(bytes(10_000))

    async def scenario():
        async with running(upload_bytes=35_000) as server:
            status, body = await server.raw(endless())
            assert (status, body["error"]["code"], taken) == (413, "too_large", 40_000)

    asyncio.run(scenario())


def test_a_slow_upload_is_given_up():
    async def trickle():
        yield chunk(HEAD)
        await asyncio.sleep(60)

    async def scenario():
        async with running(upload_timeout=0.05) as server:
            status, body = await server.raw(trickle())
            assert (status, body["error"]["code"]) == (408, "slow_upload")

    asyncio.run(scenario())


def test_a_client_that_leaves_during_its_upload_leaves_nothing(caplog):
    async def leaving(server):
        yield chunk(HEAD + bytes(5_000))
        assert [path.stat().st_size for path in server.root.rglob("mixture-*")]
        yield {"type": "http.disconnect"}

    async def scenario():
        async with running() as server:
            status, _ = await server.raw(leaving(server))
            assert status == 499 and not list(server.root.iterdir())

    asyncio.run(scenario())


def test_a_client_that_leaves_while_the_model_works_is_not_waited_for():
    body = httpx.Request("POST", "http://x", headers={"content-type": "multipart/form-data; boundary=b"}, **parts())

    async def scenario():
        async with running(batch_wait=0.0) as server:
            server.judge.hold.clear()
            leave = asyncio.Event()

            async def patient():
                yield chunk(body.read(), more=False)
                await leave.wait()
                yield {"type": "http.disconnect"}

            first = asyncio.create_task(server.raw(patient()))
            await server.until(lambda: server.judge.threads)  # the model has it
            second = asyncio.create_task(server.raw(patient()))
            await server.until(lambda: server.service.worker.waiting == 1)
            leave.set()
            assert [status for status, _ in await asyncio.gather(first, second)] == [499, 499]
            assert server.service.pending == server.service.worker.waiting == 0
            assert len(list(server.root.iterdir())) == 1  # what the model reads stays until it has read it
            server.judge.hold.set()
            await server.until(lambda: not list(server.root.iterdir()))
            assert server.judge.batches == [1]  # the second was never asked

    asyncio.run(scenario())


def test_waiting_requests_share_a_batch_and_get_the_answers_of_single_ones():
    levels = [0.1, 0.2, 0.3, 0.4, 0.5]

    async def scenario(judge, **settings):
        async with running(judge, **settings) as server:
            judge.hold.clear()
            first = asyncio.create_task(server.post(**parts(sound(0.9))))
            await server.until(lambda: judge.threads)
            rest = [asyncio.create_task(server.post(**parts(sound(level)))) for level in levels]
            await server.until(lambda: server.service.worker.waiting == len(levels))
            judge.hold.set()
            answers = [await task for task in (first, *rest)]
            assert {answer.status_code for answer in answers} == {200}
            return [answer.json() for answer in answers], judge.batches

    together, batches = asyncio.run(scenario(BatchJudge(), batch=4, batch_wait=0.0))
    single, ones = asyncio.run(scenario(FakeJudge(), batch=1, batch_wait=0.0))
    assert together == single
    assert (batches, ones) == ([1, 4, 1], [1] * 6)


def test_an_idle_model_waits_a_moment_for_company():
    async def scenario():
        judge = BatchJudge()
        async with running(judge, batch_wait=0.3) as server:
            await asyncio.gather(*(server.post() for _ in range(3)))
        assert judge.batches == [3]

    asyncio.run(scenario())


def test_a_bad_sound_spoils_nobody_elses_answer():
    async def scenario():
        async with running(BatchJudge(), batch_wait=0.3) as server:
            requests = [parts(), parts(sound(seconds=0.1)), parts(prompt="bug"), parts()]
            answers = await asyncio.gather(*(server.post(**request) for request in requests))
        assert [answer.status_code for answer in answers] == [200, 422, 500, 200]

    asyncio.run(scenario())


def test_more_requests_than_places_are_told_when_to_come_back():
    async def scenario():
        async with running(pending=2) as server:
            server.judge.hold.clear()
            two = [asyncio.create_task(server.post()) for _ in range(2)]
            await server.until(lambda: server.service.pending == 2)
            third = await server.post()
            assert third.status_code == 429 and 1 <= int(third.headers["retry-after"]) <= 60
            server.judge.hold.set()
            assert [(await task).status_code for task in two] == [200, 200]
            assert (await server.post()).status_code == 200

    asyncio.run(scenario())


def test_an_answer_that_takes_too_long_is_a_503():
    async def scenario():
        async with running(timeout=0.1) as server:
            server.judge.hold.clear()
            answer = await server.post()
            assert answer.status_code == 503 and "within 0.1 s" in answer.json()["error"]["message"]
            assert int(answer.headers["retry-after"]) >= 1

    asyncio.run(scenario())


def test_all_questions_go_through_one_thread():
    async def scenario():
        async with running(batch=2) as server:
            answers = await asyncio.gather(*(server.post() for _ in range(9)))
            assert {answer.status_code for answer in answers} == {200}
            assert len(server.judge.threads) == 1

    asyncio.run(scenario())
