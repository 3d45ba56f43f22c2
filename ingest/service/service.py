"""The service: what clients ask of it, whoever speaks for them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from capstan.chunks import PIECE
from capstan.ingest.service.change_feed import Subscription
from capstan.ingest.service.config import ServiceSettings
from capstan.ingest.service.delivery import ShardUploader
from capstan.ingest.service.disk import Disk
from capstan.ingest.service.folders import ServiceFolders
from capstan.ingest.service.jobs import Job, State, Statistics
from capstan.ingest.service.lifecycle import Lifecycle
from capstan.ingest.service.repository import JobRepository
from capstan.ingest.service.rolling_stats import SECONDS
from capstan.ingest.service.scheduler import Scheduler
from capstan.ingest.service.store import Database
from capstan.ingest.service.submissions import Submission, Submissions

ROWS_PER_CHUNK = 10_000
TELL_INTERVAL = 0.25  # seconds


class IngestService:
    """Jobs and the workers that do them."""

    def __init__(self, settings: ServiceSettings, folders: ServiceFolders, store: Database) -> None:
        self.settings = settings
        self._folders = folders
        disk = Disk(folders.data, settings.limits.min_free)
        self._repository = JobRepository(
            store, settings.target is not None, lambda: self._life.pause_reason
        )
        self._life = Lifecycle(folders, store, self._repository, disk)
        self._scheduler = Scheduler(settings, folders.jobs, self._life, self._repository.data_of)
        self._life.scheduler = self._scheduler
        if settings.target:
            deliverer = ShardUploader(
                settings.delivery, settings.target, folders.shards, self._life
            )
            self._life.deliverer = deliverer
        self._submissions = Submissions(settings, folders, store, self._repository, self._life)

    def job(self, id: str) -> Job:
        """A job as it is now; NoSuchJobError."""
        return self._repository.job(id)

    def jobs(
        self, state: State | None = None, limit: int = 50, after: str | None = None
    ) -> tuple[list[Job], str | None]:
        """Jobs, newest first, and what to give as `after` for those that follow, if any do."""
        return self._repository.jobs(state, limit, after)

    @asynccontextmanager
    async def submitting(
        self,
        name: str,
        options: Mapping[str, Any],
        rows_per_chunk: int = ROWS_PER_CHUNK,
        key: str | None = None,
    ) -> AsyncIterator[Submission]:
        """Take a TSV; leaving the block without `finish` leaves nothing behind.

        On entering: BusyError, BadSubmissionError, FullError, UnavailableError.
        """
        offer = self._submissions.offer(name, options, key)
        async with self._submissions.open(offer, rows_per_chunk) as submission:
            yield submission

    async def submit_path(
        self,
        path: str,
        name: str | None,
        options: Mapping[str, Any],
        rows_per_chunk: int = ROWS_PER_CHUNK,
        key: str | None = None,
    ) -> tuple[Job, bool]:
        """Take a TSV below --tsv-root; ForbiddenPathError and what `submitting` raises."""
        tsv = await asyncio.to_thread(self._submissions.below_root, path)
        async with self.submitting(name or tsv.name, options, rows_per_chunk, key) as submission:
            with tsv.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, PIECE):
                    await submission.write(piece)
            return await submission.finish()

    async def pause(self, id: str) -> Job:
        """Begin nothing more of a job."""
        return await self._life.pause(id)

    async def resume(self, id: str) -> Job:
        """Go on with a paused job."""
        return await self._life.resume(id)

    async def cancel(self, id: str) -> Job:
        """End a job; whole shards stay."""
        return await self._life.cancel(id)

    async def retry(self, id: str, reasons: frozenset[str] | None = None) -> Job:
        """Try the failed rows of an ended job again: for these reasons, or those that may pass."""
        return await self._life.retry(id, reasons)

    async def remove(self, id: str) -> None:
        """Forget an ended job and delete its files."""
        await self._life.remove(id)

    def shards_folder(self, id: str) -> Path:
        """Where a job's shards lie; NoSuchJobError."""
        self._repository.job(id)
        return self._folders.shards(id)

    def whole_chunks(self, id: str) -> Sequence[str]:
        """Names of the chunks whose shards are whole, in order; NoSuchJobError."""
        return self._repository.whole_chunks(id)

    def watch(self, id: str | None = None) -> AbstractContextManager[Subscription]:
        """Listen to the changes of a job, or of all and of the statistics."""
        return self._life.change_feed.open(id)

    def statistics(self, seconds: int = SECONDS) -> Statistics:
        """What the service did of late."""
        rolling_stats, worker_pool = self._life.rolling_stats, self._scheduler.worker_pool
        return Statistics(
            rolling_stats.since,
            rolling_stats.seconds(seconds),
            dict(rolling_stats.reasons.most_common()),
            rolling_stats.rows,
            rolling_stats.images,
            rolling_stats.bytes,
            self._repository.states(),
            rolling_stats.hosts(),
            worker_pool.in_flight,
            self._repository.queued_rows,
            self._life.disk.free,
            len(worker_pool.ready),
        )

    def why_not_ready(self) -> str | None:
        """Why it takes no jobs now, if it does not."""
        if self._submissions.stopping:
            return "stopping"
        return None if self._scheduler.worker_pool.ready else "no worker is ready yet"

    def stop_soon(self) -> None:
        """Take no more jobs and let the workers drain."""
        self._submissions.stopping = True
        self._scheduler.worker_pool.stop_soon()

    # Its life

    def start(self) -> None:
        """Go on with what is unfinished, and start the workers."""
        self._repository.load()
        self._folders.sweep(self._repository.known())
        self._scheduler.worker_pool.start()
        for work in list(self._repository.works.values()):
            self._life.start(work)

    async def keep_time(self) -> None:
        """Tell changes, end seconds, look at the disk; until cancelled."""
        while True:
            for _ in range(4):
                await asyncio.sleep(TELL_INTERVAL)
                self._life.tell_changes()
            self._life.look_at_disk()
            self._life.end_second()

    async def deliver(self) -> None:
        """Deliver shards, where that is asked for; until cancelled."""
        if self._life.deliverer:
            await self._life.deliverer.run()

    async def stop(self) -> None:
        """Let the workers drain, and save what is known."""
        self.stop_soon()
        await self._scheduler.worker_pool.stop()
        await self._life.close()


@asynccontextmanager
async def open_service(settings: ServiceSettings) -> AsyncIterator[IngestService]:
    """Start the workers and go on with all unfinished jobs; drain within 10 s at the end."""
    folders = ServiceFolders(settings.data)
    with folders.locked():
        store = Database(folders.database)
        try:
            service = IngestService(settings, folders, store)
            service.start()
            keeping = asyncio.create_task(service.keep_time())
            delivering = asyncio.create_task(service.deliver())
            try:
                yield service
            finally:
                delivering.cancel()
                await service.stop()
                keeping.cancel()
        finally:
            await store.close()
