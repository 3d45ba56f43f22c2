"""Submissions: a TSV that is sent or named becomes a job that is on disk, or nothing."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstan.ingest.service.config import ServiceSettings
from capstan.ingest.service.folders import ServiceFolders
from capstan.ingest.service.job_run import ChunkTask, JobRun
from capstan.ingest.service.jobs import (
    BadSubmissionError,
    BusyError,
    ForbiddenPathError,
    FullError,
    Job,
    UnavailableError,
)
from capstan.ingest.service.lifecycle import Lifecycle
from capstan.ingest.service.options import complete
from capstan.ingest.service.repository import JobRepository
from capstan.ingest.service.store import Database
from capstan.ingest.service.upload import ChunkedList, Upload, check_name

BUSY = 2.0  # seconds after which a client may find room


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a submission is to become."""

    name: str
    options: dict[str, Any]
    key: str | None
    known: Job | None  # the job that the key brought before


class Submission:
    """A TSV on its way in."""

    def __init__(self, submissions: "Submissions", intake: Upload, offer: JobRequest) -> None:
        self.known = offer.known  # the job of the same key: there is no need to write anything
        self._submissions, self._intake, self._offer = submissions, intake, offer

    async def write(self, data: bytes) -> None:
        """Take the next bytes; TooLargeError, FullError."""
        if self.known is None:
            await self._intake.write(data)

    async def finish(self) -> tuple[Job, bool]:
        """Make it a job that is on disk, whole; False if the key had brought one before."""
        if self.known is not None:
            return self.known, False
        cuts = await self._intake.finish()
        taking = asyncio.create_task(self._submissions.take(self._offer, cuts))
        return await asyncio.shield(taking)  # whole or not at all, though the client be gone


class Submissions:
    """Takes them."""

    def __init__(
        self,
        settings: ServiceSettings,
        folders: ServiceFolders,
        store: Database,
        repository: JobRepository,
        life: Lifecycle,
    ) -> None:
        self._settings, self._folders, self._store = settings, folders, store
        self._repository, self._life = repository, life
        self._arriving = 0
        self._names: set[str] = set()  # of what is arriving
        self.stopping = False

    @asynccontextmanager
    async def open(self, offer: JobRequest, rows_per_chunk: int) -> AsyncIterator[Submission]:
        """Take the bytes of a TSV while the block runs."""
        limits = self._settings.limits
        incoming, most = self._folders.incoming, limits.max_upload
        intake = Upload(incoming, offer.name, rows_per_chunk, most, self._check_room)
        self._arriving += 1
        self._names.add(offer.name)
        try:
            yield Submission(self, intake, offer)
        finally:
            self._arriving -= 1
            self._names.discard(offer.name)
            await asyncio.shield(asyncio.create_task(intake.drop()))

    def offer(self, name: str, options: Mapping[str, Any], key: str | None) -> JobRequest:
        """Check what can be checked before anything is read; raises what `submitting` does."""
        check_name(name)
        chosen = complete(options, self._settings.pictures, self._settings.patience)
        known = self._repository.of_key(key)
        if known is None:
            self._check_place(name)
        return JobRequest(name, chosen, key, known)

    def _check_place(self, name: str) -> None:
        if self.stopping:
            raise UnavailableError("the service is stopping; try again when it is back")
        if self._repository.unfinished + self._arriving >= self._settings.limits.max_jobs:
            raise BusyError("as many jobs as are taken are unfinished; wait for some", BUSY)
        self._check_room()
        if self._life.deliverer and (name in self._names or self._repository.has_name(name)):
            raise BadSubmissionError(
                f"name {name}: there is such a job, whose shards in the repo this one's would "
                "replace; give another name, or remove that job"
            )

    def _check_room(self) -> None:
        if why := self._life.disk.look():
            raise FullError(why)

    def below_root(self, path: str) -> Path:
        """A TSV below --tsv-root; ForbiddenPathError, BadSubmissionError."""
        root = self._settings.tsv_root
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

    async def take(self, offer: JobRequest, cuts: ChunkedList) -> tuple[Job, bool]:
        """Make a job of what came in; False if another one had the key first."""
        tasks = [ChunkTask(number, rows) for number, rows in enumerate(cuts.rows)]
        id = self._repository.ids.next()
        work = JobRun(id, offer.name, offer.options, sum(cuts.rows), time.time(), tasks)
        work.set_pending()
        if cuts.folder:
            await asyncio.to_thread(self._folders.take_in, cuts.folder, id)
        try:
            await self._store.write(*work.inserted(cuts.data, offer.key))
        except (sqlite3.IntegrityError, FullError):
            await asyncio.to_thread(self._folders.remove, id)
            known = self._repository.of_key(offer.key)
            if known is None:
                raise
            return known, False
        self._life.start(work)
        return self._repository.view(work), True
