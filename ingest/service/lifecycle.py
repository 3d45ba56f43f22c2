"""What happens to a job from its submission to its removal, each step on disk before it is told."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from capstan.errors import DataError
from capstan.ingest.messages import ShardDone, Tally
from capstan.ingest.scheduling.host import RETRYABLE
from capstan.ingest.service.change_feed import ChangeFeed
from capstan.ingest.service.delivery import PendingShard, ShardUploader
from capstan.ingest.service.disk import Disk
from capstan.ingest.service.folders import ServiceFolders
from capstan.ingest.service.job_run import ChunkTask, JobRun, PauseReason
from capstan.ingest.service.jobs import ENDED, FullError, Job, State, WrongStateError
from capstan.ingest.service.repository import JobRepository
from capstan.ingest.service.rolling_stats import RollingStats
from capstan.ingest.service.scheduler import Scheduler
from capstan.ingest.service.store import Database
from capstan.shards import STATS_SUFFIX, read_image_stats

logger = logging.getLogger(__name__)

AGAIN = 1.0  # seconds until what found a full disk is tried again


class Lifecycle:
    """Changes the states of jobs; told by the scheduler what came of them (`scheduler.Master`)."""

    scheduler: Scheduler
    deliverer: ShardUploader | None = None  # none where the folder is where shards belong

    def __init__(
        self, folders: ServiceFolders, store: Database, repository: JobRepository, disk: Disk
    ) -> None:
        self._folders, self._store, self._repository, self.disk = folders, store, repository, disk
        self.change_feed, self.rolling_stats = ChangeFeed(), RollingStats()
        self._locks = WeakValueDictionary[str, asyncio.Lock]()  # by job
        self._tasks: set[asyncio.Task[Any]] = set()
        self._dirty: set[str] = set()  # whose numbers have changed

    # What clients want

    async def pause(self, id: str) -> Job:
        """Begin nothing more of a job."""
        async with self._changing(id, State.QUEUED, State.RUNNING) as work:
            await self._move(work, State.PAUSED)
            self.scheduler.halt(work)
            work.rest()
        return self._repository.view(work)

    async def resume(self, id: str) -> Job:
        """Go on with a paused job."""
        async with self._changing(id, State.PAUSED) as work:
            await self._move(work, State.RUNNING if work.started else State.QUEUED)
            self.scheduler.add(work)
            self._conclude_if_done(work)
        return self._repository.view(work)

    async def cancel(self, id: str) -> Job:
        """End a job; whole shards stay."""
        async with self._changing(id, State.QUEUED, State.RUNNING, State.PAUSED) as work:
            await self._move(work, State.CANCELLED, finished=time.time())
            self.scheduler.halt(work)
        self._in_background(self._settle(work))
        return self._repository.view(work)

    async def retry(self, id: str, reasons: frozenset[str] | None) -> Job:
        """Try the failed rows of an ended job again."""
        async with self._changing(id, *ENDED) as work:
            await self.scheduler.idle(work)
            wanted = RETRYABLE if reasons is None else reasons
            again = self._failed_chunks(work, wanted)
            if not again and work.is_done:
                which = ", ".join(sorted(wanted))
                raise WrongStateError(f"job {id}: no row of it failed for {which}")
            await self._begin_again(work, again, frozenset(wanted))
        return self._repository.job(id)

    async def remove(self, id: str) -> None:
        """Forget an ended job and delete its files."""
        async with self._changing(id, *ENDED) as work:
            await self.scheduler.idle(work)
            await self._store.write(("DELETE FROM jobs WHERE id = ?", (id,)))
            self._repository.works.pop(id, None)
            await asyncio.to_thread(self._folders.remove, id)
        self.change_feed.changed(id)

    def start(self, work: JobRun) -> None:
        """Have a job done that is on disk."""
        self._repository.works[work.id] = work
        if self.deliverer:
            whole = [task for task in work.tasks if task.is_whole and not task.is_delivered]
            self.deliverer.add(work, whole)
        if work.state is not State.PAUSED:
            self.scheduler.add(work)
            self._conclude_if_done(work)
        self.change_feed.changed(work.id)

    @asynccontextmanager
    async def _changing(self, id: str, *states: State) -> AsyncIterator[JobRun]:
        """A job in one of these states, which nothing else changes meanwhile."""
        async with self._lock(id):
            work = self._repository.find(id)
            if work.state not in states:
                allowed = ", ".join(sorted(states))
                raise WrongStateError(f"job {id} is {work.state}; this is for jobs {allowed}")
            yield work

    def _lock(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())

    async def _move(
        self, work: JobRun, state: State, why: str | None = None, finished: float | None = None
    ) -> None:
        await self._store.write(work.progress(), work.moved(state, why, finished))
        work.state, work.why, work.finished = state, why, finished
        logger.info(
            "job %s (%s): %s%s", work.id, work.name, state, f", {why}" if why else "",
            extra={"event": {"job": work.id, "state": state, "why": why}},
        )  # fmt: skip
        self.change_feed.changed(work.id)

    def _failed_chunks(
        self, work: JobRun, reasons: frozenset[str]
    ) -> dict[ChunkTask, dict[str, int]]:
        sql = "SELECT number, images, failures FROM chunks WHERE job = ? AND whole ORDER BY number"
        found = {}
        for row in self._store.read(sql, work.id):
            failures = json.loads(row["failures"])
            if reasons & failures.keys():
                stats = {"images": row["images"], "failures": failures}
                found[work.tasks[row["number"]]] = stats
        return found

    async def _begin_again(
        self, work: JobRun, again: dict[ChunkTask, Any], reasons: frozenset[str]
    ) -> None:
        sql = "UPDATE chunks SET whole = 0, delivered = 0 WHERE job = ? AND number = ?"
        before, work.retry = work.retry, reasons
        marks = [(sql, (work.id, task.number)) for task in again]
        try:
            await self._store.write(*marks, work.moved(State.QUEUED, None, None))
        except FullError:
            work.retry = before
            raise
        fresh = self._repository.reload(work.id)
        self.start(fresh)

    # What the scheduler tells

    def began(self, work: JobRun) -> None:
        """A job got its first worker."""
        work.state, work.started = State.RUNNING, work.started or time.time()
        self._store.note(work.progress(), work.moved(State.RUNNING, None, None))
        self.change_feed.changed(work.id)

    def tallied(self, work: JobRun, tally: Tally) -> None:
        """Rows of a job have ended."""
        self.rolling_stats.tally(tally)
        self._dirty.add(work.id)

    def made(self, work: JobRun, task: ChunkTask, shard: ShardDone) -> None:
        """A shard is whole."""
        self._store.note(work.shard_made(task, shard.stats), work.progress())
        self.rolling_stats.saw(shard.statistics)
        self._dirty.add(work.id)
        if self.deliverer and work.state not in ENDED:
            self.deliverer.add(work, [task])
        logger.info(
            "job %s: shard %s", work.id, shard.stats["chunk"],
            extra={"event": {"job": work.id, "shard": shard.stats["chunk"]}},
        )  # fmt: skip
        self._conclude_if_done(work)

    def failed(self, work: JobRun, why: str) -> None:
        """A job cannot go on."""
        self.scheduler.halt(work)
        self._in_background(self._end(work, State.FAILED, why))

    def disk_is_full(self) -> None:
        """A worker found no room."""
        self.disk.was_full()
        self.look_at_disk()

    def look_at_disk(self) -> None:
        """Pause all jobs while the disk is full."""
        if self._store.is_full:
            self.disk.was_full()
        why = self.disk.look()
        if self.scheduler.hold("disk", why):
            self._tell_all(f"paused: {why}" if why else "go on: there is room")

    def _tell_all(self, what: str) -> None:
        logger.warning("all jobs %s", what)
        for id in self._repository.works:
            self.change_feed.changed(id)

    def delivered(self, parcels: Sequence[PendingShard]) -> None:
        """These shards are in the repo."""
        for parcel in parcels:
            work, parcel.task.is_delivered = parcel.work, True
            work.delivered += 1
            self._store.note(work.was_delivered(parcel.task), work.progress())
            self._dirty.add(work.id)
        for work in {parcel.work for parcel in parcels}:
            self._conclude_if_done(work)

    def delivery_waits(self, why: str | None) -> None:
        """Pause all jobs while too many shards wait to be delivered."""
        if self.scheduler.hold("sink", why):
            self._tell_all(f"paused: {why}" if why else "go on")

    def tell_changes(self) -> None:
        """Tell watchers whose numbers have changed."""
        dirty, self._dirty = self._dirty, set()
        for id in dirty:
            self.change_feed.changed(id)

    def end_second(self) -> None:
        """Count a second."""
        self.rolling_stats.tick()
        for work in self._repository.works.values():
            if work.state is State.RUNNING and not self.scheduler.held:
                work.tick()
                self._dirty.add(work.id)
            else:
                work.rest()
        self.change_feed.second()

    @property
    def pause_reason(self) -> PauseReason:
        """Why all jobs are paused, and why shards are not delivered."""
        return self.scheduler.held, self.deliverer.why if self.deliverer else None

    async def close(self) -> None:
        """End what is done in the background."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Ends

    def _conclude_if_done(self, work: JobRun) -> None:
        if work.is_done and (not self.deliverer or work.delivered == len(work.tasks)):
            self._in_background(self._end(work, State.DONE, None))

    async def _end(self, work: JobRun, state: State, why: str | None) -> None:
        async with self._lock(work.id):
            while work.state in (State.QUEUED, State.RUNNING):
                if state is State.DONE:
                    work.retry = frozenset()
                try:
                    await self._move(work, state, why, time.time())
                except FullError:
                    await asyncio.sleep(AGAIN)
        await self._settle(work)

    async def _settle(self, work: JobRun) -> None:
        """Count what became whole while a job was ended, and let go of it."""
        async with self._lock(work.id):
            if self._repository.works.get(work.id) is not work or work.state not in ENDED:
                return  # begun again or removed
            if self.deliverer:
                self.deliverer.drop(work)
            await self.scheduler.idle(work)
            if work.state is State.CANCELLED:
                for task, stats in await asyncio.to_thread(self._whole_after_all, work):
                    work.make_whole(task, stats)
                    self._store.note(work.shard_made(task, stats))
                await asyncio.to_thread(self._folders.forget_rows, work.id)
            else:
                await asyncio.to_thread(self._folders.tidy, work.id)
            self._store.note(work.progress())
            await self._store.noted()
            del self._repository.works[work.id]
        self.change_feed.changed(work.id)

    def _whole_after_all(self, work: JobRun) -> list[tuple[ChunkTask, dict[str, Any]]]:
        """Shards that are whole without our knowledge, as those that were to be retried are."""
        found = []
        for task in work.tasks:
            path = self._folders.shards(work.id) / f"{work.chunk_name(task)}{STATS_SUFFIX}"
            if not task.is_whole and path.exists():
                try:
                    found.append((task, read_image_stats(path)))
                except DataError as error:
                    logger.warning("job %s: %s", work.id, error)
        return found

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
