"""Requests come one by one, the model computes them together: batches that form by themselves.

What comes while a batch is computed is the next. Where others are about, as the last batch tells,
the first of a batch waits a little for them; whoever is alone is not kept waiting.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")
SHARE = 8  # of the thread's time, one part in so many is for other things than batches
QUIET = 0.25  # seconds; when there was no batch for so long, all of it is


class ComputeError(Exception):
    """What was computed failed, for a reason that is not its asker's; its cause tells."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[In, Out]):
    item: In
    answer: "asyncio.Future[Out]"
    since: float  # of the loop's clock


class Batcher(Generic[In, Out]):
    """Calls `compute`, in one thread, with up to `max_batch` items; it gives as many answers.

    `observe` is told each batch's size and seconds. An error of `compute` is raised, as the cause
    of a ComputeError, to all who wait for that batch; an item whose asker is gone is left out.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[In]], Sequence[Out]],
        max_batch: int,
        max_wait: float,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._compute, self._observe = compute, observe
        self._max_batch, self._max_wait = max_batch, max_wait
        self._queue: asyncio.Queue[_Waiting[In, Out]] = asyncio.Queue()
        self._latest = -QUIET  # when the latest batch was done
        self._size = 1  # its items
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return self._queue.qsize()

    async def submit(self, item: In) -> Out:
        """The answer for an item."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting[In, Out] = _Waiting(item, loop.create_future(), loop.time())
        self._queue.put_nowait(waiting)
        return await waiting.answer

    async def between(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run something else in the same thread, between two batches, and rest after it.

        So what comes here in pieces, one after another, has but one part in `SHARE` of the time,
        unless there are no batches anyway.
        """
        done = asyncio.get_running_loop().run_in_executor(
            self._thread, _timed, function, *arguments
        )
        try:
            await asyncio.wait([done])
        finally:
            done.cancel()  # if nobody waits any longer and it has not begun
        if error := done.exception():
            raise ComputeError(str(error)) from error
        answer, start, end = done.result()
        if start < self._latest + QUIET:
            self._latest = max(self._latest, end)  # meanwhile there could be no batch
        await self._rest(end + (SHARE - 1) * (end - start))
        return answer

    async def _rest(self, until: float) -> None:
        while True:  # with each batch the time that is quiet begins anew
            seconds = min(until, self._latest + QUIET) - time.monotonic()
            if seconds <= 0:
                return
            await asyncio.sleep(seconds)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute batches within the block."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            batch = [one for one in await self._gather() if not one.answer.done()]
            if batch:
                await self._answer(batch)

    async def _gather(self) -> list[_Waiting[In, Out]]:
        batch = [await self._queue.get()]
        until = batch[0].since + (self._max_wait if self._size > 1 else 0.0)
        while len(batch) < self._max_batch:
            try:
                async with asyncio.timeout_at(until):  # what is there already is taken even late
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    async def _answer(self, batch: Sequence[_Waiting[In, Out]]) -> None:
        start = time.monotonic()
        items = [one.item for one in batch]
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._compute, items)
        await asyncio.wait([done])
        self._latest = time.monotonic()
        self._size = len(batch)
        self._observe(self._size, self._latest - start)
        if error := done.exception():
            failure = ComputeError(str(error))
            failure.__cause__ = error
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(failure)
            return
        for one, answer in zip(batch, done.result(), strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)

    def __repr__(self) -> str:
        return f"<Batcher {self.waiting} waiting, up to {self._max_batch} at once>"


def _timed(function: Callable[..., T], *arguments: Any) -> tuple[T, float, float]:
    start = time.monotonic()
    return function(*arguments), start, time.monotonic()
