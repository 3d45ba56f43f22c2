"""Jobs that are under way: what is to do, what is out, what has been done."""

import json
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from capstan.ingest.messages import Tally
from capstan.ingest.service.jobs import Job, State
from capstan.ingest.service.store import Database, Statement

Data = bytes  # of a chunk
PauseReason = tuple[str | None, str | None]  # why all jobs are paused; why shards are not delivered
RATE_SECONDS = 10  # over which a job's rate is taken


@dataclass(slots=True, eq=False)
class ChunkTask:
    """A chunk of a job."""

    number: int
    rows: int
    is_whole: bool = False
    is_delivered: bool = False
    crashes: int = 0  # of workers that had it


@dataclass(slots=True)
class Counts:
    """Of rows that have ended."""

    reasons: Counter[str | None] = field(default_factory=Counter)  # None: a picture

    @property
    def done(self) -> int:
        """All."""
        return self.reasons.total()

    @property
    def images(self) -> int:
        """Those that ended as a picture."""
        return self.reasons[None]

    def failures(self) -> dict[str, int]:
        """The others by reason, those with most rows first."""
        return {reason: count for reason, count in self.reasons.most_common() if reason and count}


def counts_of(stats: dict[str, Any]) -> Counter[str | None]:
    """What a shard's stats say of its rows."""
    return Counter[str | None]({None: stats["images"], **stats["failures"]})


@dataclass(eq=False)
class JobRun:
    """A job that is not ended, or that some worker still has something of."""

    id: str
    name: str
    options: dict[str, Any]
    rows: int
    created: float
    tasks: list[ChunkTask]
    state: State = State.QUEUED
    why: str | None = None
    started: float | None = None
    finished: float | None = None
    retry: frozenset[str] = frozenset()  # reasons whose rows are tried again
    whole: Counter[str | None] = field(default_factory=Counter)  # rows of whole shards
    live: Counter[str | None] = field(default_factory=Counter)  # other rows that have ended
    bytes: int = 0
    shards: int = 0
    delivered: int = 0
    pending: deque[ChunkTask] = field(default_factory=deque)
    suspects: deque[ChunkTask] = field(default_factory=deque)  # each is done alone at a worker
    troubles: int = 0  # engines that ended badly since the last shard
    not_before: float = 0.0  # by a monotonic clock: no engine begins earlier
    _recent: deque[int] = field(default_factory=lambda: deque(maxlen=RATE_SECONDS))
    _second: int = 0  # rows of the present one

    @property
    def done(self) -> int:
        """Rows that have ended."""
        return self.whole.total() + self.live.total()

    @property
    def is_small(self) -> bool:
        """Whether it is of a single chunk."""
        return len(self.tasks) == 1

    @property
    def is_done(self) -> bool:
        """Whether all shards are whole."""
        return self.shards == len(self.tasks)

    @property
    def has_more(self) -> bool:
        """Whether a chunk waits for a worker."""
        return bool(self.pending or self.suspects)

    def chunk_name(self, task: ChunkTask) -> str:
        """Names the shard."""
        return f"{self.name}/{task.number:016x}"

    def set_pending(self) -> None:
        """Put all that is not whole in the queue."""
        self.pending = deque(task for task in self.tasks if not task.is_whole)
        self.suspects.clear()

    def tally(self, tally: Tally) -> None:
        """Count rows that ended."""
        self.live.update(tally.reasons)
        self.bytes += tally.bytes
        self._second += tally.reasons.total() - tally.kept

    def make_whole(self, task: ChunkTask, stats: dict[str, Any]) -> None:
        """Note that a shard is there."""
        task.is_whole, task.crashes, self.troubles = True, 0, 0
        self.whole.update(counts_of(stats))
        self.shards += 1

    def tick(self) -> None:
        """End a second."""
        self._recent.append(self._second)
        self._second = 0

    def rest(self) -> None:
        """Forget the rate of a job that does not run."""
        self._recent.clear()
        self._second = 0

    def view(self, delivers: bool, pause_reason: PauseReason) -> Job:
        """The job as clients see it."""
        held, trouble = pause_reason
        counts = Counts(self.whole + self.live)
        state, why = self.state, self.why
        if state in (State.QUEUED, State.RUNNING):
            state, why = (State.PAUSED, held) if held else (state, trouble)
        running = state is State.RUNNING and self._recent
        rate = sum(self._recent) / len(self._recent) if running else 0.0
        return Job(
            self.id,
            self.name,
            state,
            why,
            self.created,
            self.started,
            self.finished,
            self.options,
            self.rows,
            counts.done,
            counts.images,
            counts.failures(),
            self.bytes,
            len(self.tasks),
            self.shards,
            self.delivered if delivers else None,
            rate,
            (self.rows - counts.done) / rate if rate else None,
        )

    # In the store

    def inserted(self, data: Sequence[Data] | None, key: str | None) -> Iterator[Statement]:
        """A new job, with its chunks' contents if they are not files."""
        row = (self.id, self.name, json.dumps(self.options), self.state, self.created, self.rows)
        yield (
            "INSERT INTO jobs (id, name, options, state, created, rows, chunks) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*row, len(self.tasks)),
        )
        for task in self.tasks:
            values = (self.id, task.number, task.rows, data[task.number] if data else None)
            yield "INSERT INTO chunks (job, number, rows, data) VALUES (?, ?, ?, ?)", values
        if key is not None:
            yield "INSERT INTO keys VALUES (?, ?)", (key, self.id)

    def progress(self) -> Statement:
        """How far it is."""
        counts = Counts(self.whole)
        return (
            "UPDATE jobs SET started = ?, done = ?, images = ?, failures = ?, bytes = ?, "
            "shards = ?, delivered = ? WHERE id = ?",
            (
                self.started,
                counts.done,
                counts.images,
                json.dumps(counts.failures()),
                self.bytes,
                self.shards,
                self.delivered,
                self.id,
            ),
        )

    def moved(self, state: State, why: str | None, finished: float | None) -> Statement:
        """In another state."""
        return (
            "UPDATE jobs SET state = ?, why = ?, finished = ?, retry = ? WHERE id = ?",
            (state, why, finished, ",".join(sorted(self.retry)), self.id),
        )

    def was_delivered(self, task: ChunkTask) -> Statement:
        """A shard that the sink has."""
        sql = "UPDATE chunks SET delivered = 1 WHERE job = ? AND number = ?"
        return sql, (self.id, task.number)

    def shard_made(self, task: ChunkTask, stats: dict[str, Any]) -> Statement:
        """A chunk whose shard is whole."""
        return (
            "UPDATE chunks SET whole = 1, images = ?, failures = ?, delivered = 0 "
            "WHERE job = ? AND number = ?",
            (stats["images"], json.dumps(stats["failures"]), self.id, task.number),
        )


def load_run(store: Database, row: Any) -> JobRun:
    """A job of the store, with its chunks."""
    work = JobRun(
        row["id"],
        row["name"],
        json.loads(row["options"]),
        row["rows"],
        row["created"],
        [],
        State(row["state"]),
        row["why"],
        row["started"],
        row["finished"],
        frozenset(filter(None, row["retry"].split(","))),
        bytes=row["bytes"],
    )
    sql = (
        "SELECT number, rows, whole, images, failures, delivered FROM chunks WHERE job = ? "
        "ORDER BY number"
    )
    for chunk in store.read(sql, work.id):
        marks = bool(chunk["whole"]), bool(chunk["delivered"])
        work.tasks.append(ChunkTask(chunk["number"], chunk["rows"], *marks))
        if chunk["whole"]:
            work.whole.update({None: chunk["images"], **json.loads(chunk["failures"])})
            work.shards += 1
            work.delivered += chunk["delivered"]
    work.set_pending()
    return work


def job_of(row: Any, delivers: bool) -> Job:
    """A job of the store that is ended, as clients see it."""
    return Job(
        row["id"],
        row["name"],
        State(row["state"]),
        row["why"],
        row["created"],
        row["started"],
        row["finished"],
        json.loads(row["options"]),
        row["rows"],
        row["done"],
        row["images"],
        json.loads(row["failures"]),
        row["bytes"],
        row["chunks"],
        row["shards"],
        row["delivered"] if delivers else None,
        0.0,
        None,
    )


class Ids:
    """Ids that sort by time, also within a millisecond."""

    def __init__(self, last: str | None) -> None:
        self._last = int(last[:12], 36) if last else 0

    def next(self) -> str:
        """One larger than all before."""
        self._last = max(self._last + 1, int(time.time() * 1000))
        return _base36(self._last).rjust(12, "0")


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
