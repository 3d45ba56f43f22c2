"""Brings jobs and workers together: gives out chunks, hears what became of them."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from capstan.chunks import Chunk
from capstan.ingest.config import IngestSettings
from capstan.ingest.messages import ShardDone, Tally
from capstan.ingest.service.config import ServiceSettings
from capstan.ingest.service.fair_queue import FATAL, Assignment, FairQueue
from capstan.ingest.service.job_run import ChunkTask, JobRun, counts_of
from capstan.ingest.service.jobs import State
from capstan.ingest.service.messages import (
    ChunkPayload,
    ChunkRequest,
    EngineEvent,
    EngineExited,
    EngineFailure,
    FromWorker,
    NextChunk,
    StartJob,
    StopJob,
)
from capstan.ingest.service.options import chosen_patience, chosen_pictures
from capstan.ingest.service.worker_pool import WorkerPool, WorkerProcess

logger = logging.getLogger(__name__)

TROUBLES = 3  # engines of a job that may end badly without a shard in between


class Master(Protocol):
    """Who is told of what came of the work."""

    def began(self, work: JobRun) -> None:
        """A job got its first worker."""

    def tallied(self, work: JobRun, tally: Tally) -> None:
        """Rows of a job have ended."""

    def made(self, work: JobRun, task: ChunkTask, shard: ShardDone) -> None:
        """A shard is whole."""

    def failed(self, work: JobRun, why: str) -> None:
        """A job cannot go on."""

    def disk_is_full(self) -> None:
        """A worker found no room."""


class Scheduler:
    """The work of all jobs. `data_of` finds the contents of chunks that are no files yet."""

    def __init__(
        self,
        settings: ServiceSettings,
        folder: Path,
        master: Master,
        data_of: Callable[[str, int], bytes | None],
    ) -> None:
        self._settings, self._folder, self._master = settings, folder, master
        self._data_of = data_of
        self._fair_queue = FairQueue()
        self._holds: dict[str, str] = {}
        self._idle: dict[JobRun, asyncio.Event] = {}  # of jobs that are at some worker
        self._filling = False
        whole = self._own(settings.pictures, settings.patience, folder, frozenset())
        self.worker_pool = WorkerPool(whole, whole.processes(1 << 30), self._hear, self._lost)

    @property
    def held(self) -> str | None:
        """Why nothing is begun, if that is so."""
        return next(iter(self._holds.values()), None)

    def hold(self, kind: str, why: str | None) -> bool:
        """Begin nothing for as long as there is a reason of this kind; whether that is new."""
        before = self.held is None
        if why is None:
            self._holds.pop(kind, None)
        else:
            self._holds[kind] = why
        if (self.held is None) is before:
            return False
        if before:
            for hand in self.worker_pool.ready:
                for job in hand.bench.seats:
                    hand.send(StopJob(job))
        else:
            self.fill_soon()
        return True

    def add(self, work: JobRun) -> None:
        """Have a job done."""
        self._fair_queue.add(work)
        self.fill_soon()

    def halt(self, work: JobRun) -> None:
        """Begin nothing more of a job."""
        self._fair_queue.drop(work)
        for hand in self.worker_pool.ready:
            if work.id in hand.bench.seats:
                hand.send(StopJob(work.id))

    def is_idle(self, work: JobRun) -> bool:
        """Whether no worker has anything of a job."""
        return work not in self._idle

    async def idle(self, work: JobRun) -> None:
        """Wait until no worker has anything of a job."""
        if event := self._idle.get(work):
            await event.wait()

    def fill_soon(self) -> None:
        """Give out chunks, once for all that happens now."""
        if not self._filling:
            self._filling = True
            asyncio.get_running_loop().call_soon(self._fill)

    def _fill(self) -> None:
        self._filling = False
        if self._holds:
            return
        filling = {hand: self._fair_queue.fill(hand.bench) for hand in self.worker_pool.ready}
        while filling:  # in turn, so that all have something to do
            for hand, gifts in tuple(filling.items()):
                if gift := next(gifts, None):
                    self._begin(hand, *gift)
                else:
                    del filling[hand]

    def _begin(self, hand: WorkerProcess, work: JobRun, task: ChunkTask) -> None:
        self._idle.setdefault(work, asyncio.Event())
        hand.send(StartJob(work.id, self._settings_of(work), self._piece(work, task)))
        if work.state is State.QUEUED:
            self._master.began(work)

    def _piece(self, work: JobRun, task: ChunkTask) -> ChunkPayload:
        name = work.chunk_name(task)
        path = self._folder / work.id / "chunks" / name
        return ChunkPayload(Chunk(name, path), self._data_of(work.id, task.number))

    def _settings_of(self, work: JobRun) -> IngestSettings:
        pictures = chosen_pictures(work.options, self._settings.pictures)
        patience = chosen_patience(work.options, self._settings.patience)
        return self._own(pictures, patience, self._folder / work.id, work.retry)

    def _own(
        self, pictures: Any, patience: Any, folder: Path, retry: frozenset[str]
    ) -> IngestSettings:
        web, load = self._settings.web, self._settings.load
        chunks, shards = folder / "chunks", folder / "shards"
        return IngestSettings(chunks, shards, pictures, web, patience, load, retry)

    # What workers say

    def _hear(self, hand: WorkerProcess, message: FromWorker) -> None:
        if isinstance(message, ChunkRequest | EngineEvent | EngineExited):
            seat = hand.bench.seats[message.job]
            if isinstance(message, ChunkRequest):
                self._answer(hand, seat)
            elif isinstance(message, EngineExited):
                self._end(hand, seat, message.trouble)
            elif isinstance(message.told, Tally):
                seat.live.update(message.told.reasons)
                seat.work.tally(message.told)
                self._master.tallied(seat.work, message.told)
            elif isinstance(message.told, ShardDone):
                self._take(seat, message.told)
        else:  # it is ready
            self.fill_soon()

    def _answer(self, hand: WorkerProcess, seat: Assignment) -> None:
        task = None if self._holds else self._fair_queue.more(hand.bench, seat)
        piece = self._piece(seat.work, task) if task else None
        hand.send(NextChunk(seat.work.id, piece))
        if piece is None:
            self.fill_soon()

    def _take(self, seat: Assignment, shard: ShardDone) -> None:
        task, work = seat.out.pop(shard.stats["chunk"]), seat.work
        if shard.is_new:
            counts = counts_of(shard.stats)
            seat.live.subtract(counts)
            work.live.subtract(counts)
        work.make_whole(task, shard.stats)
        self._master.made(work, task, shard)

    def _end(self, hand: WorkerProcess, seat: Assignment, trouble: EngineFailure | None) -> None:
        work = seat.work
        self._leave(hand, seat)
        if trouble and trouble.is_full:
            self._master.disk_is_full()
        elif trouble:
            logger.error("job %s: %s", work.id, trouble.text)
            work.troubles += 1
            if work.troubles == TROUBLES:
                self._master.failed(work, trouble.text)
            else:
                self._let_wait(work, 2.0**work.troubles)
        self._go_on(work)

    def _let_wait(self, work: JobRun, seconds: float) -> None:
        work.not_before = time.monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds, self.fill_soon)

    def _leave(self, hand: WorkerProcess, seat: Assignment) -> None:
        work = seat.work
        self._fair_queue.end(hand.bench, seat)
        work.live.subtract(seat.live)
        if not self._fair_queue.seats(work):
            work.live = Counter()
            self._idle.pop(work).set()

    def _go_on(self, work: JobRun) -> None:
        if work.state in (State.QUEUED, State.RUNNING) and work.troubles < TROUBLES:
            self._fair_queue.add(work)
        self.fill_soon()

    def _lost(self, hand: WorkerProcess, how: str) -> None:
        fatal: dict[JobRun, str] = {}
        seats = list(hand.bench.seats.values())
        for seat in seats:
            for name, task in seat.out.items():
                task.crashes += 1
                if task.crashes >= FATAL:
                    fatal[seat.work] = f"{name}: the worker that had it {how}, {FATAL} times"
            self._leave(hand, seat)
        for seat in seats:
            if why := fatal.get(seat.work):
                self._master.failed(seat.work, why)
            else:
                self._go_on(seat.work)
        self.fill_soon()
