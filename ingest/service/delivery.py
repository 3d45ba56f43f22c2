"""Whole shards on their way to a repo of a Pachyderm: a batch of them is one commit, sent once.

The store says which shards are delivered. A kill between the commit and the note of it is found out
before a batch is sent again: files that the head of the branch has already are left out, and where
all are there, no commit is made. What goes wrong is tried again for ever, and said meanwhile.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from capstan.chunks import pieces
from capstan.errors import CapstanError
from capstan.ingest.service.config import Delivery
from capstan.ingest.service.job_run import ChunkTask, JobRun
from capstan.pachyderm.commits import finished_head, is_same, writable_head
from capstan.pachyderm.connect import open_server
from capstan.pachyderm.connection import ServerTarget
from capstan.pachyderm.server import Put
from capstan.shards import STATS_SUFFIX, read_image_stats

logger = logging.getLogger(__name__)

BACKLOG = 4  # batches that may wait before nothing more is fetched
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds between attempts


@dataclass(frozen=True, slots=True)
class PendingShard:
    """A shard to deliver."""

    work: JobRun
    task: ChunkTask
    since: float  # by a monotonic clock

    @property
    def chunk(self) -> str:
        """Names the shard, here and there."""
        return self.work.chunk_name(self.task)


class UploadListener(Protocol):
    """Who is told."""

    def delivered(self, parcels: Sequence[PendingShard]) -> None:
        """These shards are in the repo, in a finished commit."""

    def delivery_waits(self, why: str | None) -> None:
        """So many shards wait that nothing more should be fetched; None: no more."""


class ShardUploader:
    """Sends shards in batches."""

    def __init__(
        self,
        settings: Delivery,
        target: ServerTarget,
        shards: Callable[[str], Path],
        addressee: UploadListener,
    ) -> None:
        self.why: str | None = None  # the last attempt failed
        self._settings, self._target = settings, target
        self._shards, self._addressee = shards, addressee
        self._parcels: deque[PendingShard] = deque()
        self._changed = asyncio.Event()

    def add(self, work: JobRun, tasks: Iterable[ChunkTask]) -> None:
        """Deliver shards."""
        now = time.monotonic()
        self._parcels.extend(PendingShard(work, task, now) for task in tasks)
        self._tell_backlog()
        self._changed.set()

    def drop(self, work: JobRun) -> None:
        """Deliver no more of a job."""
        self._parcels = deque(parcel for parcel in self._parcels if parcel.work is not work)

    async def run(self) -> None:
        """Deliver until cancelled."""
        wait = FIRST_WAIT
        while True:
            await self._due()
            batch = [*self._parcels][: self._settings.batch_shards]
            if await self._send(batch):
                wait = FIRST_WAIT
                sent = set(batch)
                self._parcels = deque(each for each in self._parcels if each not in sent)
                self._addressee.delivered(batch)
            else:
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, 2 * wait)
            self._tell_backlog()

    async def _due(self) -> None:
        """Wait until a batch is full, has waited long enough, or ends a job."""
        while (left := self._time_left()) > 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if not self._parcels else left):
                    await self._changed.wait()

    def _time_left(self) -> float:
        if not self._parcels:
            return 1.0
        if len(self._parcels) >= self._settings.batch_shards:
            return 0.0
        if any(parcel.work.is_done for parcel in self._parcels):
            return 0.0
        return self._parcels[0].since + self._settings.batch_wait - time.monotonic()

    def _tell_backlog(self) -> None:
        waiting, most = len(self._parcels), BACKLOG * self._settings.batch_shards
        why = f"{waiting} shards wait for {self._target}, which takes them no faster"
        self._addressee.delivery_waits((self.why or why) if waiting >= most else None)

    async def _send(self, batch: Sequence[PendingShard]) -> bool:
        files = [(parcel.chunk, self._shards(parcel.work.id)) for parcel in batch]
        try:
            commit = await _in_daemon(lambda: send(self._target, self._settings, files))
        except (CapstanError, OSError) as error:
            self.why = f"shards wait: {error}"
            logger.warning("%s", self.why)
            return False
        self.why = None
        logger.info("%d shards: %s", len(batch), commit)
        return True


def send(target: ServerTarget, settings: Delivery, shards: Sequence[tuple[str, Path]]) -> str:
    """Put shards, each by chunk and folder, into the repo as one commit; returns which it was."""
    repo = settings.pachyderm_repo
    with open_server(target) as server:
        head = writable_head(server, repo)
        changes = []
        for name, path in _files(shards):
            with path.open("rb") as file:
                old = next(server.files(head, name), None) if head else None
                span = (0, path.stat().st_size)
                if not (head and old and is_same(server, head, old, file, span)):
                    changes.append(Put(name, _contents(path)))
        if not changes:
            return "in the repo already"
        server.modify(repo, changes)
        return f"{repo}@{finished_head(server, repo).id}"


def _files(shards: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    """All files, by their paths in the repo."""
    for chunk, folder in shards:
        stats = read_image_stats(folder / f"{chunk}{STATS_SUFFIX}")
        for suffix in (*stats["files"], STATS_SUFFIX):
            yield f"/{chunk}{suffix}", folder / f"{chunk}{suffix}"


def _contents(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from pieces(file, 0, path.stat().st_size)


async def _in_daemon(function: Callable[[], str]) -> str:
    """Run in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[str] = loop.create_future()

    def settle(value: str, error: Exception | None) -> None:
        if not result.done():
            result.set_exception(error) if error else result.set_result(value)

    def run() -> None:
        value, failure = "", None  # what else is raised is a bug, and ends the thread loudly
        try:
            value = function()
        except (CapstanError, OSError) as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name="deliver", daemon=True).start()
    return await result
