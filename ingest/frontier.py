"""Which row is asked for next: a queue for each host, hosts taking turns.

The word is web crawlers' own (Mercator, 1999). Rows that wait, for their host or to be tried again,
are entries in queues: they hold no slot, no task and no connection.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ingest.hosts import MAY_PASS, Host, HostLimits
from ingest.pauses import Pauses, key_of
from pipeline.records import Reason

REMEMBERED = 50_000  # hosts with a past that no entry is waiting for; bounds memory


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request says of its host."""

    began: float
    reason: Reason | None  # why it brought nothing
    pause: float | None = None  # seconds that the host asked for

    def tell(self, host: Host, now: float) -> None:
        """Adapt the host."""
        if self.reason is None or self.reason not in MAY_PASS:
            host.answered_well()
        else:
            host.made_trouble(self.reason, self.began, now)
        if self.pause is not None:
            host.wants_a_pause(self.reason or Reason.RATE_LIMITED, self.pause, now)


class Entry(Protocol):
    """What waits for a host."""

    @property
    def host(self) -> str:
        """Name of the host."""


T = TypeVar("T", bound=Entry)


@dataclass(slots=True)
class _Line(Generic[T]):
    name: str
    key: int  # of its host among the pauses
    host: Host
    queue: deque[T] = field(default_factory=deque)
    listed: bool = False  # among those whose first entry may go


class Frontier(Generic[T]):
    """Entries by host, for one event loop.

    `give_up` is called with each entry whose host is closed, and the reason.
    """

    def __init__(
        self,
        limits: HostLimits,
        give_up: Callable[[T, Reason], None],
        pauses: Pauses,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = 0  # entries waiting
        self._limits, self._give_up = limits, give_up
        self._pauses, self._now = pauses, clock
        self._lines: dict[str, _Line[T]] = {}
        self._past: dict[str, Host] = {}  # the last to go come last
        self._ready: deque[_Line[T]] = deque()
        self._changed, self._wanting = asyncio.Event(), asyncio.Event()

    @property
    def ready(self) -> int:
        """Hosts with an entry that may go now."""
        return len(self._ready)

    def add(self, entry: T, first: bool = False) -> None:
        """Let an entry wait for its host, behind the others or, if `first`, before them."""
        line = self._line(entry.host)
        if line.host.is_closed(self._now()):
            assert line.host.closed_for is not None
            self._give_up(entry, line.host.closed_for)
            self._forget_idle(line)
            return
        (line.queue.appendleft if first else line.queue.append)(entry)
        self.size += 1
        self._list(line)

    def defer(self, entry: T, seconds: float) -> None:
        """Add an entry after some time."""
        self.size += 1
        asyncio.get_running_loop().call_later(seconds, self._come_back, entry)

    def _come_back(self, entry: T) -> None:
        self.size -= 1
        self._wanting.set()
        self.add(entry)

    async def take(self) -> T:
        """The next entry that may go; it takes up room at its host until `leave`."""
        while True:
            while self._ready:
                line = self._ready.popleft()
                line.listed = False
                self._hear(line)
                if line.queue and line.host.has_room(self._now()):
                    line.host.open += 1
                    self.size -= 1
                    self._wanting.set()
                    entry = line.queue.popleft()
                    self._list(line)  # at the end: other hosts come first
                    return entry
            self._changed.clear()
            await self._changed.wait()

    async def room(self, ready: int, size: int) -> None:
        """Wait until fewer hosts are ready and fewer entries waiting than this."""
        await asyncio.sleep(0)
        while self.ready >= ready or self.size >= size:
            self._wanting.clear()
            await self._wanting.wait()

    def leave(self, name: str, verdict: Verdict | None = None) -> None:
        """Make room at a host after a request, and learn from it."""
        line, now = self._lines[name], self._now()
        line.host.open -= 1
        if verdict is not None:
            verdict.tell(line.host, now)
            if verdict.pause is not None:
                self._pauses.ask(line.key, now + verdict.pause)
        self._settle(line)

    def _hear(self, line: _Line[T]) -> None:
        """Learn of a pause that a host asked another process for."""
        now, host = self._now(), line.host
        if (until := self._pauses.until(line.key)) > max(now, host.not_before):
            host.wants_a_pause(Reason.RATE_LIMITED, until - now, now)
            self._settle(line)

    def rest(self, name: str, seconds: float) -> None:
        """Ask a host nothing for some time, as its robots.txt wishes between two requests."""
        host = self._lines[name].host
        host.not_before = max(host.not_before, self._now() + seconds)

    def _settle(self, line: _Line[T]) -> None:
        """Act on what was learned of a host."""
        if line.host.is_closed(self._now()):
            queue, line.queue = line.queue, deque()
            self.size -= len(queue)
            self._wanting.set()
            for entry in queue:
                assert line.host.closed_for is not None
                self._give_up(entry, line.host.closed_for)
        self._list(line)
        self._forget_idle(line)

    def _list(self, line: _Line[T]) -> None:
        """Put a line among those that may go, now or when its host's pause is over."""
        if line.listed or not line.queue:
            return
        wait = line.host.not_before - self._now()
        if wait > 0:
            line.listed = True
            asyncio.get_running_loop().call_later(wait, self._wake, line)
        elif line.host.has_room(self._now()):
            line.listed = True
            self._ready.append(line)
            self._changed.set()

    def _wake(self, line: _Line[T]) -> None:
        line.listed = False
        self._list(line)

    def _line(self, name: str) -> _Line[T]:
        line = self._lines.get(name)
        if line is None:
            host = self._past.pop(name, None) or Host(self._limits)
            line = self._lines[name] = _Line(name, key_of(name), host)
        return line

    def _forget_idle(self, line: _Line[T]) -> None:
        """Keep nothing of a host that nobody waits for, but its troubles."""
        if line.queue or line.host.open:
            return
        del self._lines[line.name]
        if not line.host.is_ordinary(self._now()):
            self._past[line.name] = line.host
            if len(self._past) > REMEMBERED:
                del self._past[next(iter(self._past))]

    def __repr__(self) -> str:
        return f"<Frontier: {self.size} waiting, {self.ready} hosts ready>"
