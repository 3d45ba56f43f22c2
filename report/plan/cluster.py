"""Stages on a cluster, datum by datum: workers take datums, read, work and write, then the next.

As Pachyderm does it: a stage begins when the commit of the one before is finished, so its slowest
datum holds up all that follows.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from capstan.report.plan.machine import SimLink

Steps = Generator[simpy.Event, Any, None]
Floats = NDArray[np.float64]
BINS = 240  # of the time of a stage


@dataclass(frozen=True, slots=True)
class SimTask:
    """A datum: its rows, bytes read and written, and seconds of work between."""

    rows: float
    reads: float
    seconds: float
    writes: float
    # When its rows are done: rows by equal parts of the seconds of work; none for evenly.
    course: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class SimStage:
    """What some workers do; `tasks` may be taken more than once, each so many times."""

    name: str
    unit: str
    workers: int
    tasks: Sequence[tuple[SimTask, int]]
    start: float = 0.0  # seconds until there are workers
    load: float = 0.0  # seconds that each worker takes once, before its first datum
    overhead: float = 0.0  # seconds beside each datum

    def each(self) -> Iterator[SimTask]:
        """All tasks, by turns of their kinds, as far as each goes."""
        return chain.from_iterable(repeat(task, times) for task, times in self.tasks)

    @property
    def datums(self) -> int:
        """How many."""
        return sum(times for _, times in self.tasks)


@dataclass(frozen=True)
class SimStore:
    """Where datums come from and go to: bytes per second, for a worker and for all."""

    worker: float
    all: float


@dataclass(frozen=True)
class StageRun:
    """How a stage went. Seconds are of the whole plan's clock, or of all its workers together."""

    stage: SimStage
    begin: float
    end: float
    rows: float
    working: float
    moving: float  # reading and writing
    overhead: float  # beside datums, and once a worker
    curve: Floats  # rows done in each of so many equal parts of its time
    active: Floats  # workers with a datum, on average, in each of them

    @property
    def seconds(self) -> float:
        """From the end of the stage before."""
        return self.end - self.begin

    @property
    def shares(self) -> dict[str, float]:
        """What its workers' time went into."""
        total = max(self.seconds * self.stage.workers, 1e-9)
        spent = {"work": self.working, "files": self.moving, "overhead": self.overhead}
        shares = {name: seconds / total for name, seconds in spent.items()}
        return {**shares, "idle": max(0.0, 1 - sum(shares.values()))}


def run(stages: Sequence[SimStage], store: SimStore) -> list[StageRun]:
    """Let the stages run one after another."""
    env = simpy.Environment()
    course = []
    for stage in stages:
        running = _Running(env, stage, store)
        env.run(env.process(running.run()))
        course.append(running.result())
    return course


class _Running:
    """A stage while it runs."""

    def __init__(self, env: simpy.Environment, stage: SimStage, store: SimStore) -> None:
        self._env, self._stage, self._store = env, stage, store
        self._shared, self._begin = SimLink(env, store.all), env.now
        self._untaken = stage.each()
        self._spans: list[tuple[float, float, float, SimTask]] = []  # taken, begun, ended
        self._moving = self._overhead = 0.0

    def run(self) -> Steps:
        yield self._env.timeout(self._stage.start)
        count = min(self._stage.workers, self._stage.datums)
        yield self._env.all_of([self._env.process(self._work()) for _ in range(count)])

    def _work(self) -> Steps:
        yield self._spend(self._stage.load)
        for task in self._untaken:
            taken = self._env.now
            yield self._spend(self._stage.overhead)
            yield self._move(task.reads)
            begun = self._env.now
            yield self._env.timeout(task.seconds)
            self._spans.append((taken, begun, self._env.now, task))
            yield self._move(task.writes)

    def _spend(self, seconds: float) -> simpy.Event:
        self._overhead += seconds
        return self._env.timeout(seconds)

    def _move(self, bytes: float) -> simpy.Event:
        seconds = max(bytes / self._store.worker, self._shared.send(bytes))
        self._moving += seconds
        return self._env.timeout(seconds)

    def result(self) -> StageRun:
        """How it went."""
        stage, begin, end = self._stage, self._begin, self._env.now
        edges = np.linspace(begin, max(end, begin + 1e-9), BINS + 1)
        taken, begun, ended = np.array([span[:3] for span in self._spans]).T
        return StageRun(
            stage,
            begin,
            end,
            sum(task.rows * times for task, times in stage.tasks),
            float((ended - begun).sum()),
            self._moving,
            self._overhead,
            _spread(*self._pieces(), edges),
            _spread(taken, ended, ended - taken, edges) / np.diff(edges),
        )

    def _pieces(self) -> tuple[Floats, Floats, Floats]:
        """When rows were done: from, to, and how many."""
        lows, highs, rows = [], [], []
        for _, begun, ended, task in self._spans:
            edges = np.linspace(begun, ended, len(task.course) + 1)
            lows.append(edges[:-1])
            highs.append(edges[1:])
            rows.append(task.rows * np.array(task.course))
        return np.concatenate(lows), np.concatenate(highs), np.concatenate(rows)


def _spread(lows: Floats, highs: Floats, amounts: Floats, edges: Floats) -> Floats:
    """Amounts, each spread evenly from a low to a high, summed up between edges."""
    slopes = amounts / np.maximum(highs - lows, 1e-9)
    times = np.concatenate([lows, np.maximum(highs, lows + 1e-9)])
    order = np.argsort(times)
    times, slopes = times[order], np.cumsum(np.concatenate([slopes, -slopes])[order])
    sums = np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(times))])
    return np.diff(np.interp(edges, times, sums))
