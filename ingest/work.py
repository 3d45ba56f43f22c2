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
from capstan.ingest.config import IngestSettings
from capstan.ingest.fetch_row import fetch_row
from capstan.ingest.fetch_task import FetchTask
from capstan.ingest.http.fetch import Redirect
from capstan.ingest.job import ChunkJob, open_job, write_shard
from capstan.ingest.messages import ChunkBegun, ShardDone, Tally, Tell
from capstan.ingest.resources import EngineResources, PoolInfo, open_resources
from capstan.ingest.rows import read_rows
from capstan.ingest.scheduling.frontier import Frontier
from capstan.ingest.scheduling.retry import Attempt, pause_before_next, policy
from capstan.ingest.scheduling.slots import Slot
from capstan.ingest.sink import IMAGE_SHARDS, Sink
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
    settings: IngestSettings,
    pool_info: PoolInfo,
    tell: Tell,
    sink: Sink = IMAGE_SHARDS,
) -> None:
    """Turn chunks into shards; SIGTERM ends that with StoppedError."""
    async with sink.opened(), open_resources(settings, pool_info) as resources:
        engine = Engine(settings, resources, tell, sink)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, engine.stop_soon)
        await engine.run(_each(chunks))


async def _each(chunks: Iterable[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        yield chunk


class Engine:
    """What the rows of a job share in one event loop, where other jobs may have an engine too."""

    def __init__(
        self,
        settings: IngestSettings,
        resources: EngineResources,
        tell: Tell,
        sink: Sink = IMAGE_SHARDS,
    ) -> None:
        self._settings, self._place, self._sink = settings, resources, sink
        self._tell, self._tally = tell, Tally()
        self._policy = policy(settings.patience)
        self._frontier = Frontier[FetchTask](resources.hosts, self._give_up)
        self._open_chunks = asyncio.Semaphore(OPEN_CHUNKS)
        self._stopping = asyncio.Event()
        self._jobs: set[ChunkJob] = set()
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
                job.journal.close()
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
            await self._wait_for_demand()
            if (chunk := await anext(chunks, None)) is None:
                return
            await self._feed(chunk)

    async def _wait_for_demand(self) -> None:
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
        size, is_new = chunk.path.stat().st_size, isinstance(job, ChunkJob)
        self._tell(ChunkBegun(chunk.contents.rows, size, is_new))
        if not isinstance(job, ChunkJob):
            self._open_chunks.release()
            self._tell(ShardDone(job, is_new=False))
            return
        self._tally.reasons += job.journal.reasons
        self._tally.kept += len(job.journal)
        self._tally.kept_images += job.journal.reasons[None]
        with chunk.path.open("rb") as file:
            for number, row in enumerate(read_rows(file, chunk.name)):
                if isinstance(row, Outcome):
                    self._count(row.result)
                elif job.must_fetch(row):
                    self._unbegun += 1
                    self._all_begun.clear()
                    self._frontier.add(FetchTask.of(job, row))
                if number % READ_AT_ONCE == 0:
                    await self._room()
        job.open -= 1
        self._finalize_if_done(job)

    async def _open(self, chunk: Chunk) -> ChunkJob | dict[str, Any]:
        job = await asyncio.to_thread(open_job, chunk, self._settings, self._sink, self._count)
        if isinstance(job, ChunkJob):
            self._jobs.add(job)  # even if nobody waits any more, or its journal stayed locked
        return job

    async def _whole(self, future: "asyncio.Future[T]") -> T:
        """What comes of a thread's work, which goes on if this is cancelled."""
        self._in_threads.add(future)
        future.add_done_callback(self._in_threads.discard)
        return await asyncio.shield(future)

    def _count(self, result: Image | Failure) -> None:
        self._tally.count(result)

    # From the frontier to the journal

    async def _dispatch(self) -> None:
        slots = self._place.slots
        while True:
            await self._frontier.some_ready()
            await slots.take()
            # Now, as a host may have asked for a pause meanwhile.
            if fetch_task := self._frontier.take():
                self._out += 1
                slot = Slot(slots, self._place.hosts.is_failing(fetch_task.host))
                self._group.create_task(self._run_fetch(fetch_task, slot))
            else:
                slots.put_back()

    async def _run_fetch(self, fetch_task: FetchTask, slot: Slot) -> None:
        """One request for a row, and what follows from it."""
        if fetch_task.set_out():
            self._begin_one()
        try:
            with slot:
                result, pause = await fetch_row(
                    self._place, self._settings, self._sink, fetch_task, slot
                )
        finally:
            self._out -= 1
            if self._out == 0:
                self._none_out.set()
        self._tally.bytes += fetch_task.answer.bytes
        if isinstance(result, Redirect):
            fetch_task.go_to(result.url, fetch_task.hops + 1)
            self._frontier.add(fetch_task, first=True)
        elif isinstance(result, Image):
            self._finish(fetch_task, await self._sink.keep(result))
        else:
            self._try_again_or_finish(fetch_task, result, pause)

    def _begin_one(self) -> None:
        self._unbegun -= 1
        if self._unbegun == 0:
            self._all_begun.set()

    def _try_again_or_finish(
        self, fetch_task: FetchTask, failure: Failure, pause: float | None
    ) -> None:
        seconds = time.monotonic() - (fetch_task.began or 0.0)
        attempt = Attempt(fetch_task.answer, failure, pause, seconds)
        wait = pause_before_next(self._policy, attempt)
        if wait is None:
            self._finish(fetch_task, failure)
        else:
            fetch_task.start_again()
            self._frontier.defer(fetch_task, wait)

    def _give_up(self, fetch_task: FetchTask, reason: Reason) -> None:
        """End a row whose host is closed."""
        if fetch_task.began is None:
            self._begin_one()
        self._finish(fetch_task, Failure(reason))

    def _finish(self, fetch_task: FetchTask, result: Image | Failure) -> None:
        # Kept without a wait: whoever is given the slot finds the row spooled.
        fetch_task.job.finish(fetch_task.row, fetch_task.answer, result)
        fetch_task.job.statistics.note(fetch_task.host, fetch_task.answer, result, fetch_task.took)
        self._finalize_if_done(fetch_task.job)

    def _finalize_if_done(self, job: ChunkJob) -> None:
        """Write a chunk's shard once none of its rows is out."""
        if job.open == 0:
            self._group.create_task(self._write(job))

    async def _write(self, job: ChunkJob) -> None:
        self._jobs.remove(job)
        writing = asyncio.get_running_loop().run_in_executor(
            self._place.writer, write_shard, job.chunk, job.journal, self._settings, self._sink
        )
        stats = await self._whole(writing)
        self._open_chunks.release()
        self._tell_tally()  # its rows first
        self._tell(ShardDone(stats, is_new=True, statistics=job.statistics))
