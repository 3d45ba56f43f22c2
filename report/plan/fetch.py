"""Fetch: one request in simulated time, from its connection to the last byte or the last straw.

As `ingest.http.fetch` and `ingest.http.pool` have it: a connection is kept a while for the next row
of its host, and a request has a time of its own, but no more than is left to its row. A row that
ends as `timeout` takes all of that time: of such hosts it is not known whether they accept
connections.
"""

from collections import defaultdict, deque
from collections.abc import Generator
from typing import Any

import simpy

from capstan.ingest.http.pool import KEPT
from capstan.records import Reason
from capstan.report.plan.arrival import SimFetch, SimSlot
from capstan.report.plan.costs import Costs, FetchPolicy, SimStats
from capstan.report.plan.machine import Machine, SimLink, Threads
from capstan.report.plan.web import SimRow

Ended = Generator[simpy.Event, Any, str]
NOTHING = {Reason.CONNECT, Reason.DNS}  # known as soon as a connection would be


class Fetcher:
    """The connections of one event loop."""

    def __init__(
        self, machine: Machine, loop: Threads, costs: Costs, manner: FetchPolicy, seen: SimStats
    ) -> None:
        self._env, self._machine, self._loop = machine.cores.env, machine, loop
        self._costs, self._manner, self._seen = costs, manner, seen
        self._kept: dict[int, deque[float]] = defaultdict(deque)  # idle ones, since when
        self._turns: dict[int, SimLink] = {}  # what a host answers a second

    def fetch(self, fetch_task: SimFetch, slot: SimSlot) -> Ended:
        """Ask for a row; returns how that ended."""
        row = fetch_task.row
        self._seen.ask(row.host)
        patience = self._patience(fetch_task)
        half = self._costs.row * (1 - self._costs.shard) / 2  # before the answer and after it
        is_new = not self._has_kept(row.host)
        yield from self._loop.work(half + (self._connection(row) if is_new else 0.0))
        seconds = self._connecting(row, is_new)
        end = yield from self._answer(row, seconds, patience, slot)
        if end not in (Reason.TIMEOUT, Reason.DISCONNECTED, *NOTHING):
            yield from self._loop.work(half + self._byte * row.bytes)
            self._kept[row.host].append(self._env.now)
        self._seen.leave(row.host)
        return end

    def _answer(self, row: SimRow, before: float, patience: float, slot: SimSlot) -> Ended:
        """Wait for an answer, `before` which a connection takes some seconds."""
        costs = self._costs
        yield from self._machine.servers.work(costs.serving + costs.serving_byte * row.bytes)
        if row.end in NOTHING:
            yield self._env.timeout(min(before, patience))
            return row.end
        first = before + self._turn(row.host) + row.latency
        whole = first + row.bytes / row.bandwidth
        if row.end == Reason.TIMEOUT or whole > patience:
            slot.expect(patience)
            yield self._env.timeout(patience)
            return str(Reason.TIMEOUT)
        slot.expect(whole)
        yield self._env.timeout(first)
        yield self._env.timeout(max(whole - first, self._machine.link.send(row.bytes)))
        self._seen.bytes += row.bytes
        return row.end

    def _patience(self, fetch_task: SimFetch) -> float:
        """Seconds for this request."""
        assert fetch_task.began is not None
        left = fetch_task.began + self._manner.patience.deadline - self._env.now
        return max(0.0, min(left, self._manner.timeout))

    @property
    def _byte(self) -> float:
        return self._costs.byte * (1 - self._costs.shard)

    def _has_kept(self, host: int) -> bool:
        """Take an idle connection, if there is one that is not too old."""
        kept = self._kept[host]
        if kept and kept.pop() >= self._env.now - KEPT:
            return True
        kept.clear()
        return False

    def _connection(self, row: SimRow) -> float:
        return self._costs.secure_connection if row.secure else self._costs.connection

    def _connecting(self, row: SimRow, is_new: bool) -> float:
        return self._costs.connecting if is_new else 0.0

    def _turn(self, host: int) -> float:
        """Seconds until a host that answers so many requests a second begins with this one."""
        if host not in self._turns:
            self._turns[host] = SimLink(self._env, self._manner.host_rate)
        return self._turns[host].send(1.0)
