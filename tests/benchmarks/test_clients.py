"""The clients of `benchmarks.serve` load a server as they say they do."""

import asyncio

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.clients import Answers, closed_loop, open_loop
from benchmarks.hostile import HostileUploads

UPLOADS, AGAIN = HostileUploads(b"picture" * 99), HostileUploads(b"picture" * 99)


class Counting:
    """Answers once so many requests are in hand, and knows how many ever were at a time."""

    def __init__(self, wait_for: int) -> None:
        self.most = self.now = 0
        self._wait_for, self._enough = wait_for, asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now >= self._wait_for:
            self._enough.set()
        await self._enough.wait()
        self.now -= 1
        return web.Response(status=429 if self.most > 3 else 200)


async def answers(counting: Counting, rate: float | None, clients: int = 1) -> Answers:
    """Ten requests to it, at a rate or from clients that wait for their answers."""
    app = web.Application()
    app.router.add_post("/caption", counting.answer)

    async with TestServer(app) as server, ClientSession(str(server.make_url("/"))) as session:
        if rate is not None:
            return await open_loop(session, [b"x"], rate, 10 / rate)
        return await closed_loop(session, [b"x"], clients, lambda asked, _: asked < 10)


async def test_an_open_loop_waits_for_no_answer() -> None:
    counting = Counting(wait_for=10)
    found = await answers(counting, rate=1000)
    assert counting.most == 10
    assert found.count(429) == 10


@pytest.mark.parametrize("clients", [1, 3])
async def test_a_closed_loop_has_one_request_a_client(clients: int) -> None:
    counting = Counting(wait_for=clients)
    found = await answers(counting, None, clients)
    assert counting.most == clients
    assert found.count() == 10
    assert found.rate == pytest.approx(10 / found.seconds)


@given(st.integers(0, 10_000))
def test_the_nth_hostile_upload_is_always_the_same(number: int) -> None:
    assert UPLOADS.spoilt(number) == AGAIN.spoilt(number)
