"""Batches form by themselves, errors stay in their batch, nobody is computed for in vain."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

import capstan.predict.server.batcher
from capstan.predict.server.batcher import SHARE, Batcher


class Doubler:
    """Doubles numbers once it may go on; keeps the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.computing, self.go = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.computing.set()
        assert self.go.wait(30)
        if 0 in numbers:
            raise ZeroDivisionError("a zero")
        return [2 * number for number in numbers]


async def submit(batcher: Batcher[int, int], numbers: Sequence[int]) -> list[asyncio.Task[int]]:
    """Submit numbers; return when all of them wait, or are being computed."""
    tasks = [asyncio.create_task(batcher.submit(number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def begun(double: Doubler) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, double.computing.wait, 30)


async def test_what_comes_while_a_batch_is_computed_is_the_next() -> None:
    double = Doubler()
    batcher = Batcher(double, max_batch=4, max_wait=0.0)
    async with batcher.running():
        first = await submit(batcher, [1])
        await begun(double)
        others = await submit(batcher, range(2, 12))
        assert batcher.waiting == 10
        double.go.set()
        assert await asyncio.gather(*first, *others) == [2 * number for number in range(1, 12)]
    assert double.batches == [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]


async def test_a_full_batch_does_not_wait() -> None:
    double, seen = Doubler(), []
    double.go.set()
    batcher = Batcher(double, 3, max_wait=600.0, observe=lambda size, _: seen.append(size))
    async with batcher.running():
        tasks = await submit(batcher, [1, 2, 3])
        assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert seen == [3]


async def test_an_error_is_raised_to_its_batch_only() -> None:
    double = Doubler()
    double.go.set()
    batcher = Batcher(double, max_batch=2, max_wait=600.0)
    async with batcher.running():
        tasks = await submit(batcher, [1, 0, 3, 4])
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["a zero", "a zero", "6", "8"]


@pytest.mark.parametrize("seconds", [0.01, 0.3], ids=["short", "longer than QUIET"])
async def test_other_things_rest_while_there_are_batches(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(capstan.predict.server.batcher, "SHARE", 3)
    double = Doubler()
    double.go.set()
    batcher = Batcher(double, max_batch=1, max_wait=0.0)
    spans: list[tuple[float, float]] = []

    def other() -> None:
        start = time.monotonic()
        threading.Event().wait(seconds)  # it is work
        spans.append((start, time.monotonic()))

    async def others() -> None:
        await batcher.between(other)
        await batcher.between(other)

    async with batcher.running():
        await batcher.submit(1)
        task = asyncio.create_task(others())
        while len(spans) < 2:
            await batcher.submit(1)
        task.cancel()
    (start, end), (following, _) = spans
    assert following - end >= 2 * (end - start) * 0.9


async def test_other_things_do_not_rest_where_there_are_no_batches() -> None:
    batcher = Batcher(Doubler(), max_batch=1, max_wait=0.0)
    async with batcher.running():
        start = time.monotonic()
        assert await batcher.between(lambda: threading.Event().wait(0.1)) is False
        assert time.monotonic() - start < SHARE * 0.1


async def test_who_has_left_is_not_computed_for() -> None:
    double = Doubler()
    batcher = Batcher(double, max_batch=2, max_wait=0.0)
    async with batcher.running():
        (first,) = await submit(batcher, [1])
        await begun(double)
        gone, gone_too, patient = await submit(batcher, [2, 3, 4])
        for task in (first, gone, gone_too):
            task.cancel()
        double.go.set()
        assert await patient == 8
        with pytest.raises(asyncio.CancelledError):
            await first
    assert double.batches == [[1], [4]]


async def test_whoever_is_alone_is_not_kept_waiting() -> None:
    double = Doubler()
    double.go.set()
    batcher = Batcher(double, max_batch=8, max_wait=600.0)
    async with batcher.running(), asyncio.timeout(20):
        assert [await batcher.submit(number) for number in (1, 2, 3)] == [2, 4, 6]
