"""The service: what clients ask of it, whoever speaks for them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from ingestd.config import ServiceSettings
from ingestd.jobs import Changes, Job, State, Statistics

ROWS_PER_CHUNK = 10_000


class Submission(Protocol):
    """A TSV on its way in."""

    known: Job | None  # of the same key: there is no need to write anything

    async def write(self, data: bytes) -> None:
        """Take the next bytes; TooLargeError, FullError."""

    async def finish(self) -> tuple[Job, bool]:
        """Make it a job that is on disk, whole; False if the key had brought one before."""


class Watch(Protocol):
    """A listener who may be slow: what changes meanwhile is told once."""

    async def next_changes(self, seconds: float) -> Changes:
        """What changed since the last time, as soon as anything did or so many are over."""


class Service:
    """Jobs and the workers that do them."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings

    def job(self, id: str) -> Job:
        """A job as it is now; NoSuchJobError."""
        raise NotImplementedError

    def jobs(
        self, state: State | None = None, limit: int = 50, after: str | None = None
    ) -> tuple[list[Job], str | None]:
        """Jobs, newest first, and what to give as `after` for those that follow, if any do."""
        raise NotImplementedError

    def submitting(
        self,
        name: str,
        options: Mapping[str, Any],
        rows_per_chunk: int = ROWS_PER_CHUNK,
        key: str | None = None,
    ) -> AbstractAsyncContextManager[Submission]:
        """Take a TSV; leaving the block without `finish` leaves nothing behind.

        On entering: BusyError, BadSubmissionError, FullError, UnavailableError.
        """
        raise NotImplementedError

    async def submit_path(
        self,
        path: str,
        name: str | None,
        options: Mapping[str, Any],
        rows_per_chunk: int = ROWS_PER_CHUNK,
        key: str | None = None,
    ) -> tuple[Job, bool]:
        """Take a TSV below --tsv-root; ForbiddenPathError and what `submitting` raises."""
        raise NotImplementedError

    async def pause(self, id: str) -> Job:
        """Begin nothing more of a job."""
        raise NotImplementedError

    async def resume(self, id: str) -> Job:
        """Go on with a paused job."""
        raise NotImplementedError

    async def cancel(self, id: str) -> Job:
        """End a job; whole shards stay."""
        raise NotImplementedError

    async def retry(self, id: str, reasons: frozenset[str] | None = None) -> Job:
        """Try the failed rows of an ended job again: for these reasons, or those that may pass."""
        raise NotImplementedError

    async def remove(self, id: str) -> None:
        """Forget an ended job and delete its files."""
        raise NotImplementedError

    def shards_folder(self, id: str) -> Path:
        """Where a job's shards lie; NoSuchJobError."""
        raise NotImplementedError

    def whole_chunks(self, id: str) -> Sequence[str]:
        """Names of the chunks whose shards are whole, in order; NoSuchJobError."""
        raise NotImplementedError

    def watch(self, id: str | None = None) -> AbstractContextManager[Watch]:
        """Listen to the changes of a job, or of all and of the statistics."""
        raise NotImplementedError

    def statistics(self, seconds: int = 600) -> Statistics:
        """What the service did of late."""
        raise NotImplementedError

    def why_not_ready(self) -> str | None:
        """Why it takes no jobs now, if it does not."""
        raise NotImplementedError


@asynccontextmanager
async def open_service(settings: ServiceSettings) -> AsyncIterator[Service]:
    """Start the workers and go on with all unfinished jobs; drain within 10 s at the end."""
    yield Service(settings)
