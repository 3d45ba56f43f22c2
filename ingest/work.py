"""One process's share of the work: an event loop that takes chunks and finishes their rows.

Rows stream across chunks: while the slow rows of one are out, the next is begun. A row holds a
slot of its host and one of the process only while it is fetched and decoded; a row that waits to
be tried again holds neither.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import ClientSession

from ingest.chunks import Chunk
from ingest.config import Settings
from ingest.fetch import fetch, open_session
from ingest.hosts import Hosts
from ingest.images import prepare
from ingest.retry import Attempt, policy
from ingest.rows import host_of, read_rows
from ingest.sink import IMAGE_SHARDS, Sink
from ingest.spool import Spool
from pipeline.records import Failure, Image, Outcome, Row
from pipeline.shards import STATS_SUFFIX

OPEN_ROWS = 8_192  # begun and not finished, most of them waiting; bounds memory
OPEN_CHUNKS = 64  # bounds open files
APPETITE_PATIENCE = 1.0  # seconds
SPOOLS = ".spool"  # in the output directory
TELL_INTERVAL = 0.2  # seconds


@dataclass(slots=True)
class Tally:
    """Rows finished since the last message."""

    reasons: Counter[str | None] = field(default_factory=Counter)  # None: a picture
    kept: int = 0  # of them found in the spool of a stopped run

    def count(self, result: Image | Failure) -> None:
        """Add a row."""
        self.reasons[result.reason.value if isinstance(result, Failure) else None] += 1


@dataclass(frozen=True, slots=True)
class Written:
    """A shard that is whole, by its stats."""

    stats: dict[str, Any]


Tell = Callable[[Tally | Written], None]


async def work(
    chunks: Iterable[Chunk],
    settings: Settings,
    per_host: int,
    tell: Tell,
    sink: Sink = IMAGE_SHARDS,
) -> None:
    """Turn chunks into shards; a chunk is asked for when there is room for its rows."""
    with ThreadPoolExecutor(1, "decode") as decoder:
        async with sink.opened(decoder), open_session(settings.web) as session:
            engine = Engine(settings, session, decoder, per_host, tell, sink)
            telling = asyncio.create_task(engine.tell_regularly())
            try:
                await engine.run(chunks)
            finally:
                telling.cancel()
            engine.tell_tally()


@dataclass(slots=True)
class _Job:
    chunk: Chunk
    spool: Spool
    open: int = 1  # rows begun and not finished, and one more while the chunk is being read


class Engine:
    """What the rows of one event loop share."""

    def __init__(
        self,
        settings: Settings,
        session: ClientSession,
        decoder: ThreadPoolExecutor,
        per_host: int,
        tell: Tell,
        sink: Sink,
    ) -> None:
        self._settings, self._session, self._decoder = settings, session, decoder
        self._sink = sink
        self._tell, self._tally = tell, Tally()
        self._hosts = Hosts(per_host)
        self._slots = asyncio.Semaphore(settings.load.in_flight)
        self._open_rows = asyncio.Semaphore(settings.load.in_flight + OPEN_ROWS)
        self._open_chunks = asyncio.Semaphore(OPEN_CHUNKS)
        self._spools: set[Spool] = set()  # being filled
        self._unbegun = 0  # rows at hand that wait for their first slot
        self._all_begun = asyncio.Event()
        self._all_begun.set()

    def __repr__(self) -> str:
        return f"<Engine {self._slots} {self._hosts}>"

    async def tell_regularly(self) -> None:
        """Report finished rows until cancelled."""
        while True:
            await asyncio.sleep(TELL_INTERVAL)
            self.tell_tally()

    def tell_tally(self) -> None:
        """Report what finished since the last time."""
        tally, self._tally = self._tally, Tally()
        self._tell(tally)

    async def run(self, chunks: Iterable[Chunk]) -> None:
        """Finish all chunks."""
        source = iter(chunks)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._appetite()
                    if (chunk := next(source, None)) is None:
                        return
                    await self._feed(chunk, group)
        finally:
            for spool in self._spools:
                spool.close()

    async def _room(self) -> None:
        """Wait for a free slot and leave it to whoever comes first: reading stays just ahead."""
        async with self._slots:
            pass

    async def _appetite(self) -> None:
        """Wait for a good time to take another chunk from the other processes.

        That is when all rows at hand have begun, or a moment later: rows that wait for their one
        slow host must not keep others from coming.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(APPETITE_PATIENCE):
                await self._all_begun.wait()
        await self._room()

    async def _feed(self, chunk: Chunk, group: asyncio.TaskGroup) -> None:
        await self._open_chunks.acquire()
        job = _Job(chunk, await asyncio.to_thread(self._open_spool, chunk))
        self._spools.add(job.spool)
        self._tally.reasons += job.spool.reasons
        self._tally.kept += len(job.spool)
        with chunk.path.open("rb") as file:
            for row in read_rows(file, chunk.name):
                if isinstance(row, Outcome):
                    self._tally.count(row.result)
                elif row.index not in job.spool:
                    await self._open_rows.acquire()
                    await self._room()
                    job.open += 1
                    self._unbegun += 1
                    self._all_begun.clear()
                    group.create_task(self._finish_row(job, row))
        group.create_task(self._let_go(job))

    def _open_spool(self, chunk: Chunk) -> Spool:
        path = self._settings.output / SPOOLS / chunk.name
        return Spool(path, identity(chunk, self._settings, self._sink))

    async def _finish_row(self, job: _Job, row: Row) -> None:
        attempt = await self._try(row)
        result = attempt.result
        if isinstance(result, Image):
            result = await self._sink.keep(result)
        # Images are kept without a wait: whoever is given the slot finds the row spooled.
        job.spool.append(row.index, attempt.answer, result)
        self._tally.count(result)
        self._open_rows.release()
        await self._let_go(job)

    async def _try(self, row: Row) -> Attempt:
        """All attempts at a row, as the policy has it."""
        host = host_of(row.url) or ""
        patience = self._settings.patience
        attempts, began = 0, 0.0

        async def attempt() -> Attempt:
            nonlocal attempts, began
            async with self._hosts.slot(host), self._slots:
                if not attempts:
                    began = time.monotonic()
                    self._begin_one()
                attempts += 1
                left = patience.deadline - (time.monotonic() - began)
                ended = await self._attempt(row.url, max(0.001, left))
                answer = replace(ended.answer, attempts=attempts)
                return replace(ended, answer=answer, seconds=time.monotonic() - began)

        last: Attempt = await policy(patience, asyncio.sleep)(attempt)
        return last

    def _begin_one(self) -> None:
        self._unbegun -= 1
        if self._unbegun == 0:
            self._all_begun.set()

    async def _attempt(self, url: str, seconds: float) -> Attempt:
        web = self._settings.web
        fetched = await fetch(self._session, url, web, min(seconds, web.timeout))
        if isinstance(fetched.result, Failure):
            return Attempt(fetched.answer, fetched.result, fetched.retry_after)
        decoded = await asyncio.get_running_loop().run_in_executor(
            self._decoder, prepare, fetched.result, self._settings.pictures
        )
        if isinstance(decoded, Image):
            await self._sink.room()
        return Attempt(fetched.answer, decoded)

    async def _let_go(self, job: _Job) -> None:
        job.open -= 1
        if job.open == 0:
            self._spools.remove(job.spool)
            stats = await asyncio.to_thread(
                write_shard, job.chunk, job.spool, self._settings, self._sink
            )
            self._open_chunks.release()
            self._tell(Written(stats))


def identity(chunk: Chunk, settings: Settings, sink: Sink) -> dict[str, Any]:
    """What a chunk's shard and spool depend on, besides the web."""
    return {**settings.identity(chunk.sha256), **sink.identity}


def write_shard(chunk: Chunk, spool: Spool, settings: Settings, sink: Sink) -> dict[str, Any]:
    """Write a finished chunk's shard in row order from its spool; return the shard's stats."""
    # First, so that a shard made of old and new files never counts as whole.
    (settings.output / f"{chunk.name}{STATS_SUFFIX}").unlink(missing_ok=True)
    with spool, chunk.path.open("rb") as file:
        outcomes = (
            row if isinstance(row, Outcome) else spool.read(row)
            for row in read_rows(file, chunk.name)
        )
        provenance = identity(chunk, settings, sink)
        stats = sink.write(settings.output, chunk.name, outcomes, provenance)
        spool.remove()
    return stats
