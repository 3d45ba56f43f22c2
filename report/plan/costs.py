"""What a row takes of a worker, how rows are asked for, and what became of them."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from capstan.ingest.config import Concurrency, RetryPolicy


@dataclass(frozen=True)
class Costs:
    """What a row takes: seconds of one core, unless said otherwise."""

    start: float  # seconds until the first row
    row: float  # of the event loop and the writer of shards
    byte: float  # the same, for each byte of a body
    shard: float  # share of these two that the writer of shards has
    connection: float  # a new one
    secure_connection: float  # a new one over TLS
    connecting: float  # seconds of waiting for a new one
    picture: float  # of a decoder
    picture_byte: float
    stored: float | None  # bytes of a picture in its shard; None: as many as came
    serving: float = 0.0  # a row, of a web on this very machine
    serving_byte: float = 0.0


@dataclass(frozen=True)
class FetchPolicy:
    """How rows are asked for."""

    load: Concurrency
    patience: RetryPolicy
    timeout: float  # seconds
    host_rate: float  # requests per second that a host has for this worker


@dataclass
class SimStats:
    """What became of some rows."""

    seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)  # when each ended
    bytes: int = 0  # of bodies
    requests: int = 0
    connections: int = 0  # at the same time, at most
    busy: dict[str, float] = field(default_factory=dict)  # share of the time, by part
    opened: Counter[int] = field(default_factory=Counter)  # connections open now, by host
    open: int = 0  # all of them
    per_host: int = 0  # to one host at the same time, at most

    def ask(self, host: int) -> None:
        """Count a request that begins."""
        self.requests += 1
        self.open += 1
        self.opened[host] += 1
        self.connections = max(self.connections, self.open)
        self.per_host = max(self.per_host, self.opened[host])

    def leave(self, host: int) -> None:
        """Count a request that ended."""
        self.open -= 1
        self.opened[host] -= 1

    def end(self, end: str, now: float) -> None:
        """Count a row that ended."""
        self.ends[end] += 1
        self.times.append(now)

    @property
    def hosts(self) -> int:
        """How many were asked."""
        return len(self.opened)

    @property
    def rows(self) -> int:
        """All that ended."""
        return self.ends.total()

    @property
    def steady_rate(self) -> float:
        """Rows per second while there was enough to do: between the first and last fifths."""
        times = np.sort(self.times)
        low, high = times[len(times) // 5], times[4 * len(times) // 5]
        return float(0.6 * len(times) / max(high - low, 1e-6))

    @property
    def tail(self) -> float:
        """Seconds that it took after 99 % of the rows had ended."""
        return self.seconds - float(np.quantile(self.times, 0.99)) if self.times else 0.0
