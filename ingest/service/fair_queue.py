"""Which job has its next chunk done, and where: jobs take turns. No processes here, only order.

A worker has places for large jobs and places for small ones, of a single chunk, so that these need
not wait for the chunks of others. A large job keeps its place chunk by chunk until another one that
has none anywhere waits. Within a worker the rows of all its jobs take turns by themselves.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from capstan.ingest.service.job_run import ChunkTask, JobRun

PLACES = 8  # large jobs at a worker at a time, and as many small ones
LINGERING = 32  # jobs at a worker that get no more chunks, while their slow rows come to an end
SUSPECT = 2  # crashes after which a chunk is done alone
FATAL = 4  # crashes after which its job fails


@dataclass(eq=False)
class Assignment:
    """A job at a worker: an engine there."""

    work: JobRun
    out: dict[str, ChunkTask] = field(default_factory=dict)  # chunks by name
    live: Counter[str | None] = field(default_factory=Counter)  # of their rows
    is_closing: bool = False  # it gets no more


@dataclass(eq=False)
class WorkerSlots:
    """A worker's places."""

    seats: dict[str, Assignment] = field(default_factory=dict)  # by job
    is_alone: bool = False  # a suspect is being done

    def has_room(self, small: bool) -> bool:
        """Whether another small job may come, or another large one."""
        closing = sum(seat.is_closing for seat in self.seats.values())
        taken = sum(
            seat.work.is_small is small and not seat.is_closing for seat in self.seats.values()
        )
        return not self.is_alone and closing < LINGERING and taken < PLACES


class FairQueue:
    """Jobs with chunks that wait for a worker, in turn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._large: dict[JobRun, None] = {}  # that have no seat
        self._small: dict[JobRun, None] = {}  # the same
        self._seated: Counter[JobRun] = Counter()  # seats of those that have any
        self._sharing: dict[JobRun, None] = {}  # of these, that have more chunks

    def add(self, work: JobRun) -> None:
        """Let a job wait for its turn, if it has chunks that do."""
        self.drop(work)
        if not work.has_more:
            return
        if self._seated[work]:
            self._sharing[work] = None
        else:
            (self._small if work.is_small else self._large)[work] = None

    def drop(self, work: JobRun) -> None:
        """Give a job no more turns."""
        for line in (self._large, self._small, self._sharing):
            line.pop(work, None)

    def fill(self, bench: WorkerSlots) -> Iterator[tuple[JobRun, ChunkTask]]:
        """Give a worker jobs until its places are taken; each with its first chunk."""
        if not bench.seats and (suspect := self._suspect()):
            bench.is_alone = True
            yield self._sit(bench, suspect, suspect.suspects.popleft())
        while work := self._next(bench):
            yield self._sit(bench, work, work.pending.popleft())

    def more(self, bench: WorkerSlots, seat: Assignment) -> ChunkTask | None:
        """The next chunk for a job that has begun all rows it had, if it may stay."""
        work = seat.work
        may_stay = work in self._sharing and work.pending and not (self._large or bench.is_alone)
        if seat.is_closing or not may_stay:
            seat.is_closing = True
            return None
        return self._give(seat, work.pending.popleft())

    def end(self, bench: WorkerSlots, seat: Assignment) -> None:
        """Note that a job has left a worker; what it had out waits again."""
        del bench.seats[seat.work.id]
        bench.is_alone = bench.is_alone and bool(bench.seats)
        self._seated[seat.work] -= 1
        if not self._seated[seat.work]:
            del self._seated[seat.work]
        for task in seat.out.values():
            suspected = task.crashes >= SUSPECT
            (seat.work.suspects if suspected else seat.work.pending).append(task)
        seat.out.clear()

    def seats(self, work: JobRun) -> int:
        """Workers that a job is at."""
        return self._seated[work]

    def _next(self, bench: WorkerSlots) -> JobRun | None:
        for small, line in ((True, self._small), (False, self._large), (False, self._sharing)):
            if bench.has_room(small) and (work := self._first(line, bench)):
                return work
        return None

    def _first(self, line: dict[JobRun, None], bench: WorkerSlots) -> JobRun | None:
        now = self._clock()
        for work in line:
            if work.pending and work.not_before <= now and work.id not in bench.seats:
                return work
        return None

    def _suspect(self) -> JobRun | None:
        lines = (self._small, self._large, self._sharing)
        return next((work for line in lines for work in line if work.suspects), None)

    def _sit(self, bench: WorkerSlots, work: JobRun, task: ChunkTask) -> tuple[JobRun, ChunkTask]:
        seat = bench.seats[work.id] = Assignment(work)
        self._seated[work] += 1
        self._give(seat, task)
        return work, task

    def _give(self, seat: Assignment, task: ChunkTask) -> ChunkTask:
        seat.out[seat.work.chunk_name(task)] = task
        self.add(seat.work)  # behind the others
        return task
