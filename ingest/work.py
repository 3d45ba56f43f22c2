"""One process's share of a job: an engine that takes chunks and finishes their rows.

Rows stream across chunks: while the slow rows of one are out, the next is begun. A row holds a
place at its host while it is fetched, and a slot of the process until it is decoded; rows that
wait are entries of the frontier and hold neither.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from capstan.chunks import Chunk
from capstan.errors import CapstanError
from capstan.ingest.ask import ask
from capstan.ingest.config import Settings
from capstan.ingest.http.fetch import Redirect
from capstan.ingest.job import Job, open_job, write_shard
from capstan.ingest.messages import Begun, Shard, Tally, Tell
from capstan.ingest.rows import read_rows
from capstan.ingest.scheduling.frontier import Frontier
from capstan.ingest.scheduling.retry import Attempt, pause_before_next, policy
from capstan.ingest.scheduling.slots import Slot
from capstan.ingest.sink import IMAGE_SHARDS, Sink
from capstan.ingest.visit import Visit
from capstan.ingest.workplace import Crew, Workplace, open_workplace
from capstan.records import Failure, Image, Outcome, Reason

OPEN_CHUNKS = 512  # bounds open files
READY_HOSTS = 256  # hosts with a row that may go: so far ahead chunks are read
WAITING_ROWS = 65_536  # rows of a loop that are read and not begun, or wait; bounds memory
APPETITE_PATIENCE = 1.0  # seconds
DRAIN_PATIENCE = 8.0  # seconds for rows that are out, when the run is asked to stop
TELL_INTERVAL = 0.2  # seconds
READ_AT_ONCE = 64  # rows read before others have a turn

T = TypeVar("T")


class StoppedError(CapstanError):
    """The run was asked to stop; what it has is kept."""


async def work(
    chunks: Iterable[Chunk],
    settings: Settings,
    crew: Crew,
    tell: Tell,
    sink: Sink = IMAGE_SHARDS,
) -> None:
    """Turn chunks into shards; SIGTERM ends that with StoppedError."""
    async with sink.opened(), open_workplace(settings, crew) as workplace:
        engine = Engine(settings, workplace, tell, sink)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, engine.stop_soon)
        await engine.run(_each(chunks))


async def _each(chunks: Iterable[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        yield chunk


class Engine:
    """What the rows of a job share in one event loop, where other jobs may have an engine too."""

    def __init__(
        self, settings: Settings, workplace: Workplace, tell: Tell, sink: Sink = IMAGE_SHARDS
    ) -> None:
        self._settings, self._place, self._sink = settings, workplace, sink
        self._tell, self._tally = tell, Tally()
        self._policy = policy(settings.patience)
        self._frontier = Frontier[Visit](workplace.hosts, self._give_up)
        self._open_chunks = asyncio.Semaphore(OPEN_CHUNKS)
        self._stopping = asyncio.Event()
        self._jobs: set[Job] = set()
        self._in_threads: set[asyncio.Future[Any]] = set()  # what `run` waits for in any case
        self._out = 0  # rows at work
        self._none_out = asyncio.Event()
        self._unbegun = 0  # rows at hand that nothing was asked for yet
        self._all_begun = asyncio.Event()
        self._all_begun.set()

    def __repr__(self) -> str:
        return f"<Engine {self._out} out {self._frontier}>"

    def stop_soon(self) -> None:
        """Begin nothing more; `run` raises StoppedError once what is out ended or had time."""
        self._stopping.set()

    async def run(self, chunks: AsyncIterator[Chunk]) -> None:
        """Finish all chunks; the next is asked for when there is room for its rows."""
        telling = asyncio.create_task(self._tell_regularly())
        self._place.engines.add(self)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                begin = [group.create_task(step) for step in (self._dispatch(), self._read(chunks))]
                stopping = group.create_task(self._stop(begin))
                await asyncio.wait(begin[1:])
                for _ in range(OPEN_CHUNKS):  # until all are written
                    await self._open_chunks.acquire()
                begin[0].cancel()
                stopping.cancel()
        finally:
            telling.cancel()
            self._place.engines.discard(self)
            self._frontier.close()
            await asyncio.gather(*self._in_threads, return_exceptions=True)
            for job in self._jobs:
                job.spool.close()
            self._tell_tally()

    async def _stop(self, begin: Iterable[asyncio.Task[None]]) -> None:
        await self._stopping.wait()
        for task in begin:
            task.cancel()
        if self._out:
            self._none_out.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_PATIENCE):
                    await self._none_out.wait()
        raise StoppedError("stopped; run the same command again to go on")

    async def _tell_regularly(self) -> None:
        while True:
            await asyncio.sleep(TELL_INTERVAL)
            self._tell_tally()

    def _tell_tally(self) -> None:
        """Report what finished since the last time."""
        tally, self._tally = self._tally, Tally()
        self._tell(tally)

    # From chunks to the frontier

    async def _read(self, chunks: AsyncIterator[Chunk]) -> None:
        while True:
            await self._appetite()
            if (chunk := await anext(chunks, None)) is None:
                return
            await self._feed(chunk)

    async def _appetite(self) -> None:
        """Wait for a good time to take another chunk from the other processes.

        That is when all rows at hand have begun, or a moment later: rows that wait for their one
        slow host must not keep others from coming.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(APPETITE_PATIENCE):
                await self._all_begun.wait()
        await self._room()

    async def _room(self) -> None:
        await self._frontier.room(READY_HOSTS, WAITING_ROWS // len(self._place.engines))

    async def _feed(self, chunk: Chunk) -> None:
        await self._open_chunks.acquire()
        job = await self._whole(asyncio.create_task(self._open(chunk)))
        size, is_new = chunk.path.stat().st_size, isinstance(job, Job)
        self._tell(Begun(chunk.contents.rows, size, is_new))
        if not isinstance(job, Job):
            self._open_chunks.release()
            self._tell(Shard(job, is_new=False))
            return
        self._tally.reasons += job.spool.reasons
        self._tally.kept += len(job.spool)
        self._tally.kept_images += job.spool.reasons[None]
        with chunk.path.open("rb") as file:
            for number, row in enumerate(read_rows(file, chunk.name)):
                if isinstance(row, Outcome):
                    self._count(row.result)
                elif job.must_fetch(row):
                    self._unbegun += 1
                    self._all_begun.clear()
                    self._frontier.add(Visit.of(job, row))
                if number % READ_AT_ONCE == 0:
                    await self._room()
        job.open -= 1
        self._let_go(job)

    async def _open(self, chunk: Chunk) -> Job | dict[str, Any]:
        job = await asyncio.to_thread(open_job, chunk, self._settings, self._sink, self._count)
        if isinstance(job, Job):
            self._jobs.add(job)  # even if nobody waits any more, or its spool stayed locked
        return job

    async def _whole(self, future: "asyncio.Future[T]") -> T:
        """What comes of a thread's work, which goes on if this is cancelled."""
        self._in_threads.add(future)
        future.add_done_callback(self._in_threads.discard)
        return await asyncio.shield(future)

    def _count(self, result: Image | Failure) -> None:
        self._tally.count(result)

    # From the frontier to the spool

    async def _dispatch(self) -> None:
        slots = self._place.slots
        while True:
            await self._frontier.some_ready()
            await slots.take()
            # Now, as a host may have asked for a pause meanwhile.
            if visit := self._frontier.take():
                self._out += 1
                slot = Slot(slots, self._place.hosts.is_failing(visit.host))
                self._group.create_task(self._visit(visit, slot))
            else:
                slots.put_back()

    async def _visit(self, visit: Visit, slot: Slot) -> None:
        """One request for a row, and what follows from it."""
        if visit.set_out():
            self._begin_one()
        try:
            with slot:
                result, pause = await ask(self._place, self._settings, self._sink, visit, slot)
        finally:
            self._out -= 1
            if self._out == 0:
                self._none_out.set()
        self._tally.bytes += visit.answer.bytes
        if isinstance(result, Redirect):
            visit.go_to(result.url, visit.hops + 1)
            self._frontier.add(visit, first=True)
        elif isinstance(result, Image):
            self._finish(visit, await self._sink.keep(result))
        else:
            self._try_again_or_finish(visit, result, pause)

    def _begin_one(self) -> None:
        self._unbegun -= 1
        if self._unbegun == 0:
            self._all_begun.set()

    def _try_again_or_finish(self, visit: Visit, failure: Failure, pause: float | None) -> None:
        seconds = time.monotonic() - (visit.began or 0.0)
        attempt = Attempt(visit.answer, failure, pause, seconds)
        wait = pause_before_next(self._policy, attempt)
        if wait is None:
            self._finish(visit, failure)
        else:
            visit.start_again()
            self._frontier.defer(visit, wait)

    def _give_up(self, visit: Visit, reason: Reason) -> None:
        """End a row whose host is closed."""
        if visit.began is None:
            self._begin_one()
        self._finish(visit, Failure(reason))

    def _finish(self, visit: Visit, result: Image | Failure) -> None:
        # Kept without a wait: whoever is given the slot finds the row spooled.
        visit.job.finish(visit.row, visit.answer, result)
        visit.job.statistics.note(visit.host, visit.answer, result, visit.took)
        self._let_go(visit.job)

    def _let_go(self, job: Job) -> None:
        """Write a chunk's shard once none of its rows is out."""
        if job.open == 0:
            self._group.create_task(self._write(job))

    async def _write(self, job: Job) -> None:
        self._jobs.remove(job)
        writing = asyncio.get_running_loop().run_in_executor(
            self._place.writer, write_shard, job.chunk, job.spool, self._settings, self._sink
        )
        stats = await self._whole(writing)
        self._open_chunks.release()
        self._tell_tally()  # its rows first
        self._tell(Shard(stats, is_new=True, statistics=job.statistics))
