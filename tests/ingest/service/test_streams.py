"""Streams of events: bounded, ended together, cheap for the slow; and bodies that do not come."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from capstan.http.errors import RequestError, error_response
from capstan.ingest.service import bodies, events
from capstan.ingest.service.bodies import arriving
from capstan.ingest.service.change_feed import ChangeFeed
from capstan.ingest.service.events import Streams
from capstan.ingest.service.jobs import Changes


async def test_there_are_so_many_streams_at_most() -> None:
    streams = Streams(2)
    async with streams.enter(), streams.enter():
        with pytest.raises(RequestError, match="too many streams of events") as refused:
            async with streams.enter():
                pass
    assert (refused.value.status, refused.value.retry_after) == (429, 5)
    async with streams.enter():
        assert streams.gate.held == 1
    assert streams.gate.held == 0


async def test_all_streams_end_at_once_and_none_begins() -> None:
    streams, inside, ended = Streams(), asyncio.Event(), []

    async def listen(number: int) -> None:
        async with streams.enter():
            inside.set()
            await asyncio.Event().wait()
        ended.append(number)

    listening = [asyncio.create_task(listen(number)) for number in range(3)]
    await inside.wait()
    streams.end_all()
    await asyncio.gather(*listening)
    await listen(3)
    assert sorted(ended) == [0, 1, 2, 3]


async def test_another_timeout_is_not_taken_for_the_end() -> None:
    with pytest.raises(TimeoutError):
        async with Streams().enter():
            raise TimeoutError


async def test_a_slow_listener_is_told_of_many_changes_at_once() -> None:
    change_feed = ChangeFeed()
    with change_feed.open(None) as watch:
        for number in range(10_000):
            change_feed.changed(f"job-{number % 3}")
            change_feed.second()
        told = await watch.next_changes(9)
        assert told == Changes(frozenset({"job-0", "job-1", "job-2"}), True)
        assert await watch.next_changes(0) == Changes()


@asynccontextmanager
async def taking(take: Callable[[web.Request], AsyncIterator[bytes]]) -> AsyncIterator[TestServer]:
    async def answer(request: web.Request) -> web.Response:
        try:
            sizes = [len(piece) async for piece in take(request)]
        except RequestError as error:
            return error_response(error)
        return web.json_response({"bytes": sum(sizes)})

    app = web.Application()
    app.router.add_post("/", answer)
    server = TestServer(app)
    async with server:
        yield server


async def test_a_body_that_stops_coming_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.05)
    never = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield b"a dog"
        await never.wait()

    async with taking(arriving) as server, ClientSession() as session:
        async with session.post(server.make_url("/"), data=stalls()) as response:
            assert response.status == 408
            assert (await response.json())["error"].startswith("the body does not arrive")
        never.set()


async def test_only_waiting_for_a_body_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    elapsed, time = [0.0], loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + sum(elapsed))

    async def busily(request: web.Request) -> AsyncIterator[bytes]:
        async for piece in arriving(request):
            yield piece
            elapsed.append(60.0)  # a full disk, say

    async with (
        taking(busily) as server,
        ClientSession() as session,
        session.post(server.make_url("/"), data=b"x" * 1000) as response,
    ):
        assert await response.json() == {"bytes": 1000}


async def test_a_listener_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STALLED", 0.05)
    left = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        stream = events._Stream(request)
        await stream.begin()
        try:
            while True:
                await stream.send("job", "x" * 100_000)
        finally:
            left.set()

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestServer(app) as server:
        assert server.port
        _, writer = await asyncio.open_connection(server.host, server.port, limit=1)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(30):
            await left.wait()
        writer.close()
