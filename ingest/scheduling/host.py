"""How one host is treated: as many requests at a time as do it good, none while it wants none.

The number adapts as TCP's window does (RFC 5681, slow start and congestion avoidance): it grows
with every good answer and is halved by trouble. A host that brings nothing but trouble for too
long is closed for a while, and so is one that asks for a longer pause than any row can wait.
"""

from dataclasses import dataclass

from capstan.records import Reason

RETRYABLE = frozenset(  # reasons that speak against the host or the network, not the address
    {
        Reason.DNS,
        Reason.CONNECT,
        Reason.HOST_DOWN,
        Reason.TIMEOUT,
        Reason.DISCONNECTED,
        Reason.RATE_LIMITED,
        Reason.SERVER_ERROR,
    }
)
FIRST_LIMIT = 4.0  # requests at a time to a host that nothing is known of
FEWEST_FAILURES = 3  # in a row, before a host is closed


@dataclass(frozen=True, slots=True)
class HostLimits:
    """The same for all hosts. Times are seconds."""

    most: int  # requests at a time, however well a host does
    outage: float  # of nothing but trouble, before a host is closed
    pause: float  # the longest that is waited for


@dataclass(slots=True)
class Host:
    """What is known of one host. Times are seconds of a monotonic clock."""

    limits: HostLimits
    open: int = 0  # requests in flight
    limit: float = FIRST_LIMIT
    growing_fast: bool = True
    halved_at: float = float("-inf")
    failing_since: float | None = None
    failures: int = 0  # since the last good answer
    not_before: float = 0.0
    closed_for: Reason | None = None  # until `not_before` its rows end with this at once

    def __post_init__(self) -> None:
        self.limit = min(self.limit, self.limits.most)

    def has_room(self, now: float) -> bool:
        """Whether one more request may begin."""
        return self.open < int(self.limit) and now >= self.not_before

    def is_closed(self, now: float) -> bool:
        """Whether rows are not even tried."""
        return self.closed_for is not None and now < self.not_before

    @property
    def is_failing(self) -> bool:
        """Whether it has made nothing but trouble since its last good answer."""
        return self.failures > 0

    def is_ordinary(self, now: float) -> bool:
        """Whether nothing need be remembered of it."""
        return self.failing_since is None and self.growing_fast and now >= self.not_before

    def record_success(self) -> None:
        """Note an answer that speaks for the host, which a 404 does too."""
        self.failing_since, self.failures, self.closed_for = None, 0, None
        self.limit = min(
            self.limits.most, self.limit + (1 if self.growing_fast else 1 / self.limit)
        )

    def record_failure(self, reason: Reason, began: float, now: float) -> None:
        """Note that a request that began then ended so; closes a host that only makes trouble."""
        self.growing_fast = False
        if began >= self.halved_at:  # once for all that were in flight together
            self.limit, self.halved_at = max(1.0, self.limit / 2), now
        self.failures += 1
        if self.failing_since is None:
            self.failing_since = began
        if self.failures >= FEWEST_FAILURES and now - self.failing_since >= self.limits.outage:
            self.close(Reason.HOST_DOWN, now + self.limits.pause)

    def back_off(self, reason: Reason, seconds: float, now: float) -> None:
        """Ask nothing for so long; a pause that no row can wait for closes the host."""
        until = now + seconds
        if seconds > self.limits.pause:
            self.close(reason, until)
        else:
            self.not_before = max(self.not_before, until)

    def close(self, reason: Reason, until: float) -> None:
        """Let rows end with this reason until then."""
        self.closed_for, self.not_before = reason, max(self.not_before, until)
