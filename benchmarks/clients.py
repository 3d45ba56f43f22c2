"""Clients of a server under load, all in one cheap event loop: of `capstan serve` here.

A closed loop asks again once it is answered; an open one asks when it is time, whatever became of
what it asked before. Latencies are from when a request was due to when its answer was read whole.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector

T = TypeVar("T")

PATIENCE = 120  # seconds, of a client


@dataclass
class Answers:
    """Latencies in seconds, by status; `failed` got no answer."""

    by_status: dict[int, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, status: int, latency: float) -> None:
        """Count an answer."""
        self.by_status.setdefault(status, []).append(latency)

    def count(self, status: int = 200) -> int:
        """How many had that status."""
        return len(self.by_status.get(status, ()))

    @property
    def rate(self) -> float:
        """Captions a second."""
        return self.count() / self.seconds

    def latency(self, status: int = 200) -> str:
        """Median and 99th percentile."""
        if not (latencies := self.by_status.get(status)):
            return "none"
        middle, high = np.percentile(latencies, (50, 99)) * 1e3
        return f"p50 {middle:,.0f} ms, p99 {high:,.0f} ms"


def be_clients(url: str, work: Callable[[ClientSession], Coroutine[Any, Any, T]]) -> T:
    """Do the work of clients of a server in one cheap event loop."""

    async def within() -> T:
        connector, patience = TCPConnector(limit=0), ClientTimeout(total=PATIENCE)
        async with ClientSession(url, connector=connector, timeout=patience) as session:
            return await work(session)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(within())


async def ask(session: ClientSession, picture: bytes, answers: Answers, due: float) -> None:
    """One request, which was due at `due` by the loop's clock."""
    async with session.post("/caption", data=picture) as response:
        await response.read()
    answers.add(response.status, asyncio.get_running_loop().time() - due)


async def closed_loop(
    session: ClientSession,
    pictures: Sequence[bytes],
    clients: int,
    go_on: Callable[[int, float], bool],
) -> Answers:
    """Clients that ask again once answered, while `go_on(requests so far, seconds)`."""
    answers, clock = Answers(), asyncio.get_running_loop().time
    begin, asked = clock(), 0

    async def client() -> None:
        nonlocal asked
        while go_on(asked, clock() - begin):
            asked += 1
            await ask(session, pictures[asked % len(pictures)], answers, clock())

    await asyncio.gather(*(client() for _ in range(clients)))
    answers.seconds = clock() - begin
    return answers


async def open_loop(
    session: ClientSession, pictures: Sequence[bytes], rate: float, seconds: float
) -> Answers:
    """Requests that come at a rate, whatever became of those before."""
    answers, clock = Answers(), asyncio.get_running_loop().time
    begin = clock()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            await asyncio.sleep(max(0, due - clock()))
            group.create_task(ask(session, pictures[number % len(pictures)], answers, due))
    answers.seconds = clock() - begin
    return answers
