"""The service: what clients ask of it, whoever speaks for them."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from ingest.chunks import PIECE
from ingestd.config import ServiceSettings
from ingestd.disk import Disk
from ingestd.figures import SECONDS
from ingestd.folders import Folders
from ingestd.foreman import Foreman
from ingestd.intake import Cuts, Intake, check_name
from ingestd.jobs import (
    BadSubmissionError,
    BusyError,
    ForbiddenPathError,
    FullError,
    Job,
    State,
    Statistics,
    UnavailableError,
)
from ingestd.ledger import Ledger
from ingestd.lifecycle import Lifecycle
from ingestd.options import complete
from ingestd.store import Store
from ingestd.watches import Watch
from ingestd.work import Task, Work

ROWS_PER_CHUNK = 10_000
TELL_INTERVAL = 0.25  # seconds
BUSY = 2.0  # seconds after which a client may find room


class Submission:
    """A TSV on its way in."""

    def __init__(self, service: "Service", intake: Intake, offer: "_Offer") -> None:
        self.known = offer.known  # the job of the same key: there is no need to write anything
        self._service, self._intake, self._offer = service, intake, offer

    async def write(self, data: bytes) -> None:
        """Take the next bytes; TooLargeError, FullError."""
        if self.known is None:
            await self._intake.write(data)

    async def finish(self) -> tuple[Job, bool]:
        """Make it a job that is on disk, whole; False if the key had brought one before."""
        if self.known is not None:
            return self.known, False
        cuts = await self._intake.finish()
        taking = asyncio.create_task(self._service.take(self._offer, cuts))
        return await asyncio.shield(taking)  # whole or not at all, though the client be gone


class Service:
    """Jobs and the workers that do them."""

    def __init__(self, settings: ServiceSettings, folders: Folders, store: Store) -> None:
        self.settings = settings
        delivers = settings.target is not None
        self._folders, self._store = folders, store
        self._disk = Disk(folders.data, settings.limits.min_free)
        self._ledger = Ledger(store, delivers, lambda: self._foreman.held)
        self._life = Lifecycle(folders, store, self._ledger, self._disk)
        self._foreman = Foreman(settings, folders.jobs, self._life, self._ledger.data_of)
        self._life.foreman = self._foreman
        self._arriving = 0
        self._stopping = False

    def job(self, id: str) -> Job:
        """A job as it is now; NoSuchJobError."""
        return self._ledger.job(id)

    def jobs(
        self, state: State | None = None, limit: int = 50, after: str | None = None
    ) -> tuple[list[Job], str | None]:
        """Jobs, newest first, and what to give as `after` for those that follow, if any do."""
        return self._ledger.jobs(state, limit, after)

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
        offer = self._offered(name, options, key)
        intake = Intake(
            self._folders.incoming,
            name,
            rows_per_chunk,
            self.settings.limits.max_upload,
            self._check_room,
        )
        self._arriving += 1
        try:
            yield Submission(self, intake, offer)
        finally:
            self._arriving -= 1
            await asyncio.shield(asyncio.create_task(intake.drop()))

    async def submit_path(
        self,
        path: str,
        name: str | None,
        options: Mapping[str, Any],
        rows_per_chunk: int = ROWS_PER_CHUNK,
        key: str | None = None,
    ) -> tuple[Job, bool]:
        """Take a TSV below --tsv-root; ForbiddenPathError and what `submitting` raises."""
        tsv = await asyncio.to_thread(self._below_root, path)
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
        self._ledger.job(id)
        return self._folders.shards(id)

    def whole_chunks(self, id: str) -> Sequence[str]:
        """Names of the chunks whose shards are whole, in order; NoSuchJobError."""
        return self._ledger.whole_chunks(id)

    def watch(self, id: str | None = None) -> AbstractContextManager[Watch]:
        """Listen to the changes of a job, or of all and of the statistics."""
        return self._life.watches.open(id)

    def statistics(self, seconds: int = SECONDS) -> Statistics:
        """What the service did of late."""
        figures, hands = self._life.figures, self._foreman.hands
        return Statistics(
            figures.since,
            figures.seconds(seconds),
            dict(figures.reasons.most_common()),
            figures.rows,
            figures.images,
            figures.bytes,
            self._ledger.states(),
            figures.hosts(),
            hands.in_flight,
            self._ledger.queued_rows,
            self._disk.free,
            len(hands.ready),
        )

    def why_not_ready(self) -> str | None:
        """Why it takes no jobs now, if it does not."""
        if self._stopping:
            return "stopping"
        return None if self._foreman.hands.ready else "no worker is ready yet"

    def stop_soon(self) -> None:
        """Take no more jobs and let the workers drain."""
        self._stopping = True
        self._foreman.hands.stop_soon()

    # Submissions

    def _offered(self, name: str, options: Mapping[str, Any], key: str | None) -> "_Offer":
        check_name(name)
        chosen = complete(options, self.settings.pictures, self.settings.patience)
        known = self._ledger.of_key(key)
        if known is None:
            if self._stopping:
                raise UnavailableError("the service is stopping; try again when it is back")
            if self._ledger.unfinished + self._arriving >= self.settings.limits.max_jobs:
                raise BusyError("as many jobs as are taken are unfinished; wait for some", BUSY)
            self._check_room()
        return _Offer(name, chosen, key, known)

    def _check_room(self) -> None:
        if why := self._disk.look():
            raise FullError(why)

    def _below_root(self, path: str) -> Path:
        root = self.settings.tsv_root
        if root is None:
            raise ForbiddenPathError("paths are not taken here; the service has no --tsv-root")
        try:
            found = (root / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            found = None
        if found is not None and not found.is_relative_to(root.resolve()):
            raise ForbiddenPathError(f"{path!r}: not below the service's --tsv-root")
        if found is None or not found.is_file():
            raise BadSubmissionError(f"{path!r}: no such file below the service's --tsv-root")
        return found

    async def take(self, offer: "_Offer", cuts: Cuts) -> tuple[Job, bool]:
        """Make a job of what came in; False if another one had the key first."""
        tasks = [Task(number, rows) for number, rows in enumerate(cuts.rows)]
        id = self._ledger.ids.next()
        work = Work(id, offer.name, offer.options, sum(cuts.rows), time.time(), tasks)
        work.set_pending()
        if cuts.folder:
            await asyncio.to_thread(self._folders.take_in, cuts.folder, id)
        try:
            await self._store.write(*work.inserted(cuts.data, offer.key))
        except (sqlite3.IntegrityError, FullError):
            await asyncio.to_thread(self._folders.remove, id)
            known = self._ledger.of_key(offer.key)
            if known is None:
                raise
            return known, False
        self._life.start(work)
        return self._ledger.view(work), True

    # Its life

    def start(self) -> None:
        """Go on with what is unfinished, and start the workers."""
        self._ledger.load()
        self._folders.sweep(self._ledger.known())
        self._foreman.hands.start()
        for work in list(self._ledger.works.values()):
            self._life.start(work)

    async def keep_time(self) -> None:
        """Tell changes, end seconds, look at the disk; until cancelled."""
        while True:
            for _ in range(4):
                await asyncio.sleep(TELL_INTERVAL)
                self._life.tell_changes()
            self._life.look_at_disk()
            self._life.end_second()

    async def stop(self) -> None:
        """Let the workers drain, and save what is known."""
        self.stop_soon()
        await self._foreman.hands.stop()
        await self._life.close()


class _Offer:
    """What a submission is to become."""

    def __init__(
        self, name: str, options: dict[str, Any], key: str | None, known: Job | None
    ) -> None:
        self.name, self.options, self.key, self.known = name, options, key, known


@asynccontextmanager
async def open_service(settings: ServiceSettings) -> AsyncIterator[Service]:
    """Start the workers and go on with all unfinished jobs; drain within 10 s at the end."""
    folders = Folders(settings.data)
    with folders.locked():
        store = Store(folders.database)
        try:
            service = Service(settings, folders, store)
            service.start()
            time_keeping = asyncio.create_task(service.keep_time())
            try:
                yield service
            finally:
                await service.stop()
                time_keeping.cancel()
        finally:
            await store.close()
