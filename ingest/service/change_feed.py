"""Listeners to changes. One who is slow is told of many changes at once: nothing piles up."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from capstan.ingest.service.jobs import Changes


class Subscription:
    """One listener."""

    def __init__(self) -> None:
        self._jobs: set[str] = set()
        self._second = False
        self._changed = asyncio.Event()

    async def next_changes(self, seconds: float) -> Changes:
        """What changed since the last time, as soon as anything did or so many are over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()
        changes = Changes(frozenset(self._jobs), self._second)
        self._jobs.clear()
        self._second = False
        return changes

    def tell(self, job: str | None) -> None:
        """Note that a job changed, or that a second is over."""
        if job is None:
            self._second = True
        else:
            self._jobs.add(job)
        self._changed.set()


class ChangeFeed:
    """All listeners."""

    def __init__(self) -> None:
        self._of_all: set[Subscription] = set()
        self._of_job: dict[str, set[Subscription]] = defaultdict(set)

    @contextmanager
    def open(self, job: str | None) -> Iterator[Subscription]:
        """Listen to a job, or to all and the seconds, while the block runs."""
        watch = Subscription()
        listeners = self._of_all if job is None else self._of_job[job]
        listeners.add(watch)
        try:
            yield watch
        finally:
            listeners.discard(watch)
            if job is not None and not listeners:
                self._of_job.pop(job, None)

    def changed(self, job: str) -> None:
        """Tell all who listen to a job."""
        for watch in (*self._of_all, *self._of_job.get(job, ())):
            watch.tell(job)

    def second(self) -> None:
        """Tell those who listen to everything that a second is over."""
        for watch in self._of_all:
            watch.tell(None)
