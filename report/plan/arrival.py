"""Arrival: rows wait in the queues of their hosts, hosts take turns, slots bound the rows at work.

As `frontier`, `registry` and `slots` of `ingest.scheduling` have it. How many requests a host has
at a time is decided by the very code of `ingest.scheduling.host`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import simpy

from capstan.ingest.config import Concurrency
from capstan.ingest.scheduling.host import RETRYABLE, Host, HostLimits
from capstan.ingest.scheduling.slots import SLOW
from capstan.ingest.work import READY_HOSTS, WAITING_ROWS
from capstan.records import Reason
from capstan.report.plan.web import SimRow


@dataclass(slots=True, eq=False)
class SimChunk:
    """Rows that are written together."""

    rows: int
    left: int  # that have not ended
    stored: float = 0.0  # bytes of their pictures


@dataclass(slots=True, eq=False)
class SimFetch:
    """A row on its way."""

    row: SimRow
    chunk: SimChunk
    began: float | None = None  # its first attempt
    attempts: int = 0


@dataclass(slots=True, eq=False)
class SimHost:
    """A host as one event loop knows it."""

    state: Host
    rows: deque[SimFetch] = field(default_factory=deque)
    listed: bool = False  # among those whose first row may go


class SimFrontier:
    """Rows by host. `give_up` is called with each row whose host is closed."""

    def __init__(
        self, env: simpy.Environment, limits: HostLimits, give_up: Callable[[SimFetch], None]
    ) -> None:
        self._env, self._limits, self._give_up = env, limits, give_up
        self._known: dict[int, SimHost] = {}
        self._ready = deque[SimHost]()
        self._waiting = 0

    @property
    def is_full(self) -> bool:
        """Whether no more rows are read for now."""
        return len(self._ready) >= READY_HOSTS or self._waiting >= WAITING_ROWS

    def add(self, fetch_task: SimFetch) -> None:
        """Let a row wait for its host."""
        known = self._known.get(fetch_task.row.host)
        if known is None:
            known = self._known[fetch_task.row.host] = SimHost(Host(self._limits))
        known.rows.append(fetch_task)
        self._waiting += 1
        self._settle(known)

    def take(self) -> tuple[SimFetch, SimHost] | None:
        """The next row that may go, if any; it takes up room at its host until it leaves."""
        while self._ready:
            known = self._ready.popleft()
            known.listed = False
            if known.rows and known.state.has_room(self._env.now):
                known.state.open += 1
                self._waiting -= 1
                fetch_task = known.rows.popleft()
                self._settle(known)  # at the end: other hosts come first
                return fetch_task, known
        return None

    def leave(self, fetch_task: SimFetch, known: SimHost, end: str, asked: float) -> None:
        """End a request, and learn from it how the host does."""
        state, now = known.state, self._env.now
        state.open -= 1
        if end in RETRYABLE:
            state.record_failure(Reason(end), asked, now)
        else:
            state.record_success()
        self._settle(known)
        if not known.rows and not state.open and state.is_ordinary(now):
            self._known.pop(fetch_task.row.host, None)

    def _settle(self, known: SimHost) -> None:
        """List a host whose next row may go; end the rows of one that is closed."""
        if known.state.is_closed(self._env.now):
            rows, known.rows = known.rows, deque()
            self._waiting -= len(rows)
            for fetch_task in rows:
                self._give_up(fetch_task)
        elif not known.listed and known.rows and known.state.has_room(self._env.now):
            known.listed = True
            self._ready.append(known)


class SimSlots:
    """How many rows may be at work, and how many more may wait for slow answers."""

    def __init__(self, load: Concurrency) -> None:
        self.free, self._aside = load.in_flight, load.aside

    def release_slow(self) -> bool:
        """Free a slot for a place aside, if there is one."""
        if not self._aside:
            return False
        self._aside -= 1
        self.free += 1
        return True

    def give_back(self, aside: bool) -> None:
        """Let another row have a slot, or a place aside."""
        if aside:
            self._aside += 1
        else:
            self.free += 1


class SimSlot:
    """The slot of one row, which it leaves when its answer is slow; then `freed` is called."""

    def __init__(self, env: simpy.Environment, slots: SimSlots, freed: Callable[[], None]) -> None:
        self._env, self._slots, self._freed = env, slots, freed
        self._is_aside = self._is_fetched = False
        slots.free -= 1

    def expect(self, seconds: float) -> None:
        """Step aside in time if an answer will take that long."""
        if seconds > SLOW:
            alarm = self._env.timeout(SLOW)
            assert alarm.callbacks is not None
            alarm.callbacks.append(lambda _: self._step_aside())

    def _step_aside(self) -> None:
        if not self._is_fetched and self._slots.release_slow():
            self._is_aside = True
            self._freed()

    def fetched(self) -> None:
        """Stay from now on: what comes next is our own work."""
        self._is_fetched = True

    def give_back(self) -> None:
        """Let another row have it."""
        self._slots.give_back(self._is_aside)
        self._freed()
