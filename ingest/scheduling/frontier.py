"""Which row of a job is asked for next: a queue for each host, hosts taking turns.

The word is web crawlers' own (Mercator, 1999). Rows that wait, for their host or to be tried again,
are entries in queues: they hold no slot, no task and no connection.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from capstan.ingest.scheduling.registry import HostRegistry
from capstan.records import Reason


class Entry(Protocol):
    """What waits for a host."""

    @property
    def host(self) -> str:
        """Name of the host."""


T = TypeVar("T", bound=Entry)


class _Line(Generic[T]):
    """The entries of one frontier for one host."""

    __slots__ = ("entries", "frontier", "known", "listed")

    def __init__(self, frontier: "Frontier[T]", name: str) -> None:
        self.frontier = frontier
        self.entries: deque[T] = deque()
        self.listed = False  # among those whose first entry may go
        self.known = frontier.book.join(name, self)

    def settle(self) -> None:
        self.frontier.settle(self)


class Frontier(Generic[T]):
    """Entries by host, for one job; other frontiers may share its book of hosts.

    `give_up` is called with each entry whose host is closed, and the reason.
    """

    def __init__(self, book: HostRegistry, give_up: Callable[[T, Reason], None]) -> None:
        self.book = book
        self.size = 0  # entries waiting
        self._give_up = give_up
        self._lines: dict[str, _Line[T]] = {}
        self._ready: deque[_Line[T]] = deque()
        self._changed, self._wanting = asyncio.Event(), asyncio.Event()
        self._closed = False

    @property
    def ready(self) -> int:
        """Hosts with an entry that may go now."""
        return len(self._ready)

    def add(self, entry: T, first: bool = False) -> None:
        """Let an entry wait for its host, behind the others or, if `first`, before them."""
        line = self._lines.get(entry.host)
        if line is None:
            line = self._lines[entry.host] = _Line(self, entry.host)
        (line.entries.appendleft if first else line.entries.append)(entry)
        self.size += 1
        if line.known.host.is_closed(self.book.now()):
            self._give_up_all(line)
        else:
            self._list(line)

    def defer(self, entry: T, seconds: float) -> None:
        """Add an entry after some time."""
        self.size += 1
        asyncio.get_running_loop().call_later(seconds, self._come_back, entry)

    def _come_back(self, entry: T) -> None:
        self.size -= 1
        self._wanting.set()
        if not self._closed:
            self.add(entry)

    async def some_ready(self) -> None:
        """Wait until an entry may go."""
        while not self._ready:
            self._changed.clear()
            await self._changed.wait()

    def take(self) -> T | None:
        """The next entry that may go, if any; it takes up room at its host until it leaves."""
        while self._ready:
            line = self._ready.popleft()
            line.listed = False
            known = line.known
            self.book.hear(known)
            if line.entries and known.host.has_room(self.book.now()):
                known.host.open += 1
                entry = line.entries.popleft()
                self._shrink(1)
                if line.entries:
                    self._list(line)  # at the end: other hosts come first
                else:
                    self._part(line)
                return entry
        return None

    async def room(self, ready: int, size: int) -> None:
        """Wait until fewer hosts are ready and fewer entries waiting than this."""
        await asyncio.sleep(0)
        while self.ready >= ready or self.size >= size:
            self._wanting.clear()
            await self._wanting.wait()

    def close(self) -> None:
        """Wait for nothing more."""
        self._closed = True
        for line in tuple(self._lines.values()):
            line.entries.clear()
            self._part(line)

    def settle(self, line: _Line[T]) -> None:
        """Act on what was learned of the host of a line."""
        if line.known.host.is_closed(self.book.now()):
            self._give_up_all(line)
        else:
            self._list(line)

    def _give_up_all(self, line: _Line[T]) -> None:
        entries, line.entries = line.entries, deque()
        reason = line.known.host.closed_for
        assert reason is not None
        self._shrink(len(entries))
        self._part(line)
        for entry in entries:
            self._give_up(entry, reason)

    def _shrink(self, count: int) -> None:
        self.size -= count
        self._wanting.set()

    def _part(self, line: _Line[T]) -> None:
        del self._lines[line.known.name]
        self.book.part(line.known, line)

    def _list(self, line: _Line[T]) -> None:
        """Put a line among those that may go, now or when its host's pause is over."""
        if line.listed or not line.entries:
            return
        now, host = self.book.now(), line.known.host
        if host.not_before > now:
            line.listed = True
            asyncio.get_running_loop().call_later(host.not_before - now, self._wake, line)
        elif host.has_room(now):
            line.listed = True
            self._ready.append(line)
            self._changed.set()

    def _wake(self, line: _Line[T]) -> None:
        line.listed = False
        self._list(line)

    def __repr__(self) -> str:
        return f"<Frontier: {self.size} waiting, {self.ready} hosts ready>"
