"""All jobs: those under way in memory, the others in the store; pages of both."""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from capstan.ingest.service.job_run import Ids, JobRun, PauseReason, job_of, load_run
from capstan.ingest.service.jobs import ENDED, Job, NoSuchJobError, State
from capstan.ingest.service.store import Database


class JobRepository:
    """Jobs by id. `pause_reason` tells why the service pauses all, and why it does not deliver."""

    def __init__(
        self, store: Database, delivers: bool, pause_reason: Callable[[], PauseReason]
    ) -> None:
        self.works: dict[str, JobRun] = {}
        self._store, self._delivers, self._hindrance = store, delivers, pause_reason
        last = next(store.read("SELECT max(id) FROM jobs"))[0]
        self.ids = Ids(last)
        self._ended, self._counted = Counter[State](), float("-inf")

    @property
    def unfinished(self) -> int:
        """Jobs that are not ended."""
        return sum(work.state not in ENDED for work in self.works.values())

    @property
    def queued_rows(self) -> int:
        """Rows of unfinished jobs that have not ended."""
        unfinished = [work for work in self.works.values() if work.state not in ENDED]
        return max(0, sum(work.rows - work.done for work in unfinished))

    def states(self) -> dict[State, int]:
        """How many jobs there are in each state; of ended ones as of the last second or so."""
        now = time.monotonic()
        if now - self._counted > 1.0:
            rows = self._store.read("SELECT state, count(*) FROM jobs GROUP BY state")
            self._ended = Counter({State(row[0]): row[1] for row in rows if row[0] in ENDED})
            self._counted = now
        here = [self.view(work).state for work in self.works.values() if work.state not in ENDED]
        return dict(self._ended + Counter(here))

    def load(self) -> None:
        """Take up the jobs that a service before left unfinished."""
        sql = "SELECT * FROM jobs WHERE state NOT IN ('done', 'failed', 'cancelled') ORDER BY id"
        for row in self._store.read(sql):
            self.works[row["id"]] = load_run(self._store, row)

    def known(self) -> set[str]:
        """All ids."""
        return {row["id"] for row in self._store.read("SELECT id FROM jobs")} | set(self.works)

    def find(self, id: str) -> JobRun:
        """A job with its chunks, be it from the store; NoSuchJobError."""
        return self.works.get(id) or load_run(self._store, self._row(id))

    def reload(self, id: str) -> JobRun:
        """A job as the store has it, in place of the one in memory."""
        self.works.pop(id, None)
        return load_run(self._store, self._row(id))

    def view(self, work: JobRun) -> Job:
        """A job as clients see it."""
        return work.view(self._delivers, self._hindrance())

    def job(self, id: str) -> Job:
        """A job as clients see it; NoSuchJobError."""
        if work := self.works.get(id):
            return self.view(work)
        return job_of(self._row(id), self._delivers)

    def of_key(self, key: str | None) -> Job | None:
        """The job that a key of a submission brought."""
        row = next(self._store.read("SELECT job FROM keys WHERE key = ?", key), None)
        return self.job(row["job"]) if row else None

    def has_name(self, name: str) -> bool:
        """Whether any job is called so."""
        return any(self._store.read("SELECT 1 FROM jobs WHERE name = ? LIMIT 1", name))

    def jobs(
        self, state: State | None, limit: int, after: str | None
    ) -> tuple[list[Job], str | None]:
        """Jobs, newest first, and the last one's id if more follow."""
        sources = (self._here(state, after), self._stored(state, after, limit + 1))
        merged = heapq.merge(*sources, key=lambda job: job.id, reverse=True)
        found = [job for job, _ in zip(merged, range(limit + 1), strict=False)]
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    def whole_chunks(self, id: str) -> Sequence[str]:
        """Names of the chunks whose shards are whole, in order; NoSuchJobError."""
        if work := self.works.get(id):
            return [work.chunk_name(task) for task in work.tasks if task.is_whole]
        name = self._row(id)["name"]
        sql = "SELECT number FROM chunks WHERE job = ? AND whole ORDER BY number"
        return [f"{name}/{row['number']:016x}" for row in self._store.read(sql, id)]

    def data_of(self, id: str, number: int) -> bytes | None:
        """The contents of a chunk that is kept in the store."""
        sql = "SELECT data FROM chunks WHERE job = ? AND number = ?"
        data: bytes | None = next(self._store.read(sql, id, number))["data"]
        return data

    def _row(self, id: str) -> Any:
        row = next(self._store.read("SELECT * FROM jobs WHERE id = ?", id), None)
        if row is None:
            raise NoSuchJobError(id)
        return row

    def _here(self, state: State | None, after: str | None) -> Iterator[Job]:
        for id in sorted(self.works, reverse=True):
            if after is None or id < after:
                job = self.view(self.works[id])
                if state in (None, job.state):
                    yield job

    def _stored(self, state: State | None, after: str | None, limit: int) -> Iterator[Job]:
        states = ENDED if state is None else {state} & ENDED
        marks = ", ".join("?" * len(states))
        sql = f"SELECT * FROM jobs WHERE state IN ({marks}) AND id < ? ORDER BY id DESC LIMIT ?"
        highest = "~" if after is None else after  # after all ids
        for row in self._store.read(sql, *states, highest, limit + len(self.works)):
            if row["id"] not in self.works:
                yield job_of(row, self._delivers)
