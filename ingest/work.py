"""One process's share of the work: an event loop that takes chunks and finishes their rows.

Rows stream across chunks: while the slow rows of one are out, the next is begun. A row holds a
place at its host while it is fetched, and a slot of the process until it is decoded; rows that
wait are entries of the frontier and hold neither.
"""

import asyncio
import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import ClientSession

from ingest.chunks import Chunk
from ingest.config import Settings
from ingest.decoders import Decoders
from ingest.fetch import Fetched, Redirect, fetch, open_session
from ingest.frontier import Frontier, Verdict
from ingest.job import Job, open_job, write_shard
from ingest.messages import Begun, Shard, Tally, Tell
from ingest.pauses import Pauses
from ingest.retry import Attempt, pause_before_next, policy
from ingest.robots import Robots
from ingest.rows import read_rows
from ingest.sink import IMAGE_SHARDS, Sink
from ingest.slots import Slot, Slots
from ingest.visit import Visit
from pipeline.errors import CapstanError
from pipeline.records import Answer, Failure, Image, Outcome, Reason

OPEN_CHUNKS = 512  # bounds open files
READY_HOSTS = 256  # hosts with a row that may go: so far ahead chunks are read
WAITING_ROWS = 65_536  # rows read and not begun, or to be tried again; bounds memory
APPETITE_PATIENCE = 1.0  # seconds
DRAIN_PATIENCE = 8.0  # seconds for rows that are out, when the run is asked to stop
TELL_INTERVAL = 0.2  # seconds
READ_AT_ONCE = 64  # rows read before others have a turn


class StoppedError(CapstanError):
    """The run was asked to stop; what it has is kept."""


@dataclass(frozen=True)
class Crew:
    """The processes of a run, of which this is one."""

    processes: int = 1
    pauses: Pauses = field(default_factory=Pauses.local)


async def work(
    chunks: Iterable[Chunk],
    settings: Settings,
    crew: Crew,
    tell: Tell,
    sink: Sink = IMAGE_SHARDS,
) -> None:
    """Turn chunks into shards; a chunk is asked for when there is room for its rows."""
    async with (
        Decoders(settings.pictures, settings.decoders(crew.processes)) as decoders,
        sink.opened(),
        open_session(settings.web) as session,
    ):
        engine = Engine(settings, session, decoders, crew, tell, sink)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, engine.stop_soon)
        telling = asyncio.create_task(engine.tell_regularly())
        try:
            await engine.run(chunks)
        finally:
            telling.cancel()
        engine.tell_tally()


class Engine:
    """What the rows of one event loop share."""

    def __init__(
        self,
        settings: Settings,
        session: ClientSession,
        decoders: Decoders,
        crew: Crew,
        tell: Tell,
        sink: Sink,
    ) -> None:
        self._settings, self._session, self._decoders = settings, session, decoders
        self._sink = sink
        self._tell, self._tally = tell, Tally()
        self._policy = policy(settings.patience)
        self._frontier = Frontier[Visit](
            settings.host_limits(crew.processes), self._give_up, crew.pauses
        )
        self._slots = Slots(settings.load.in_flight, settings.load.aside)
        self._robots = Robots(session, settings.web) if settings.web.robots else None
        self._writer = ThreadPoolExecutor(1, "shards")
        self._open_chunks = asyncio.Semaphore(OPEN_CHUNKS)
        self._stopping = asyncio.Event()
        self._jobs: set[Job] = set()
        self._unbegun = 0  # rows at hand that nothing was asked for yet
        self._all_begun = asyncio.Event()
        self._all_begun.set()

    def __repr__(self) -> str:
        return f"<Engine {self._slots} {self._frontier}>"

    async def tell_regularly(self) -> None:
        """Report finished rows until cancelled."""
        while True:
            await asyncio.sleep(TELL_INTERVAL)
            self.tell_tally()

    def tell_tally(self) -> None:
        """Report what finished since the last time."""
        tally, self._tally = self._tally, Tally()
        self._tell(tally)

    def stop_soon(self) -> None:
        """Begin nothing more; `run` raises StoppedError once what is out ended or had time."""
        self._stopping.set()

    async def run(self, chunks: Iterable[Chunk]) -> None:
        """Finish all chunks."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                begin = [
                    self._group.create_task(step) for step in (self._dispatch(), self._read(chunks))
                ]
                stopping = self._group.create_task(self._stop(begin))
                await asyncio.wait(begin[1:])
                for _ in range(OPEN_CHUNKS):  # until all are written
                    await self._open_chunks.acquire()
                begin[0].cancel()
                stopping.cancel()
        finally:
            self._writer.shutdown()
            for job in self._jobs:
                job.spool.close()

    async def _stop(self, begin: Iterable[asyncio.Task[None]]) -> None:
        await self._stopping.wait()
        for task in begin:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_PATIENCE):
                await self._slots.all_free()
        raise StoppedError("stopped; run the same command again to go on")

    # From chunks to the frontier

    async def _read(self, chunks: Iterable[Chunk]) -> None:
        source = iter(chunks)
        while True:
            await self._appetite()
            if (chunk := next(source, None)) is None:
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
        await self._frontier.room(READY_HOSTS, WAITING_ROWS)

    async def _feed(self, chunk: Chunk) -> None:
        await self._open_chunks.acquire()
        job = await asyncio.to_thread(open_job, chunk, self._settings, self._sink, self._count)
        size, is_new = chunk.path.stat().st_size, isinstance(job, Job)
        self._tell(Begun(chunk.contents.rows, size, is_new))
        if not isinstance(job, Job):
            self._open_chunks.release()
            self._tell(Shard(job, is_new=False))
            return
        self._jobs.add(job)
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

    def _count(self, result: Image | Failure) -> None:
        self._tally.count(result)

    # From the frontier to the spool

    async def _dispatch(self) -> None:
        while True:
            await self._slots.take()
            visit = await self._frontier.take()
            self._group.create_task(self._visit(visit, Slot(self._slots)))

    async def _visit(self, visit: Visit, slot: Slot) -> None:
        """One request for a row, and what follows from it."""
        with slot:
            result, pause = await self._ask(visit, slot)
        if isinstance(result, Redirect):
            visit.go_to(result.url, visit.hops + 1)
            self._frontier.add(visit, first=True)
        elif isinstance(result, Image):
            self._finish(visit, await self._sink.keep(result))
        else:
            self._try_again_or_finish(visit, result, pause)

    async def _ask(
        self, visit: Visit, slot: Slot
    ) -> tuple[Image | Redirect | Failure, float | None]:
        """What a request brought, and the seconds that the host wants to be left alone."""
        fetched = await self._fetch(visit)
        if fetched is None:
            self._frontier.leave(visit.host)
            return Failure(Reason.TIMEOUT), None
        slot.fetched()
        visit.took = time.monotonic() - visit.asked
        pause = fetched.pause(time.time())
        self._frontier.leave(visit.host, Verdict(visit.asked, fetched.reason, pause))
        result = fetched.result
        size = len(result) if isinstance(result, bytes) else 0
        visit.answer = Answer(fetched.status, visit.answer.attempts, size, fetched.url)
        self._tally.bytes += size
        if isinstance(result, Redirect) and visit.hops == self._settings.web.max_redirects:
            return Failure(Reason.REDIRECTS), None
        if not isinstance(result, bytes):
            return result, pause
        decoded = await self._decoders.prepare(result)
        if isinstance(decoded, Image):
            await self._sink.room()
        return decoded, None

    async def _fetch(self, visit: Visit) -> Fetched | None:
        """None if the row's time was over before its turn came."""
        web = self._settings.web
        left = self._set_out(visit)
        if left <= 0:
            return None
        if self._robots and (refusal := await self._robots.refusal(visit.url)):
            return Fetched(None, None, Failure(refusal))
        return await fetch(self._session, visit.url, web, min(left, web.timeout))

    def _set_out(self, visit: Visit) -> float:
        """Note that a request begins; return the seconds left to the row."""
        visit.asked = time.monotonic()
        if visit.began is None:
            visit.began = visit.asked
            self._begin_one()
        if visit.hops == 0:
            visit.answer = Answer(attempts=visit.answer.attempts + 1)
        return visit.began + self._settings.patience.deadline - visit.asked

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
        stats = await asyncio.get_running_loop().run_in_executor(
            self._writer, write_shard, job.chunk, job.spool, self._settings, self._sink
        )
        self._open_chunks.release()
        self._tell(Shard(stats, is_new=True, statistics=job.statistics))
