"""The hosts that one event loop knows, and who waits for them: politeness holds over all jobs."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from capstan.ingest.scheduling.host import RETRYABLE, Host, HostLimits
from capstan.ingest.scheduling.pauses import Pauses, key_of
from capstan.records import Reason

REMEMBERED = 50_000  # hosts with a past that nobody waits for; bounds memory


class HostQueue(Protocol):
    """What waits for a host, on behalf of one job."""

    def settle(self) -> None:
        """Act on what was learned of the host."""


class HostFeedback(NamedTuple):
    """What a request says of its host."""

    began: float
    reason: Reason | None  # why it brought nothing
    pause: float | None = None  # seconds that the host asked for

    def tell(self, host: Host, now: float) -> None:
        """Adapt the host."""
        if self.reason is None or self.reason not in RETRYABLE:
            host.record_success()
        else:
            host.record_failure(self.reason, self.began, now)
        if self.pause is not None:
            host.back_off(self.reason or Reason.RATE_LIMITED, self.pause, now)


@dataclass(slots=True, eq=False)
class HostEntry:
    """A host, and the queues of those who wait for it; they take turns."""

    name: str
    key: int  # among the pauses
    host: Host
    queues: deque[HostQueue] = field(default_factory=deque)


class HostRegistry:
    """Known hosts by name, for all jobs of one event loop."""

    def __init__(
        self, limits: HostLimits, pauses: Pauses, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.now = clock
        self._limits, self._pauses = limits, pauses
        self._known: dict[str, HostEntry] = {}
        self._past: dict[str, Host] = {}  # the last to go come last

    def join(self, name: str, queue: HostQueue) -> HostEntry:
        """Let a queue hear of a host, until `part`."""
        known = self._known.get(name)
        if known is None:
            host = self._past.pop(name, None) or Host(self._limits)
            known = self._known[name] = HostEntry(name, key_of(name), host)
        known.queues.append(queue)
        return known

    def part(self, known: HostEntry, queue: HostQueue) -> None:
        """Let a queue go that has nothing more for a host."""
        known.queues.remove(queue)
        self._forget_idle(known)

    def is_failing(self, name: str) -> bool:
        """Whether a host that is being asked has made nothing but trouble lately."""
        return self._known[name].host.is_failing

    def leave(self, name: str, verdict: HostFeedback | None) -> None:
        """End a request to a host, and learn from it."""
        known, now = self._known[name], self.now()
        known.host.open -= 1
        if verdict is not None:
            verdict.tell(known.host, now)
            if verdict.pause is not None:
                self._pauses.ask(known.key, now + verdict.pause)
        self._settle(known)
        self._forget_idle(known)

    def hear(self, known: HostEntry) -> None:
        """Learn of a pause that a host asked another process for."""
        now, host = self.now(), known.host
        if (until := self._pauses.until(known.key)) > max(now, host.not_before):
            host.back_off(Reason.RATE_LIMITED, until - now, now)
            self._settle(known)

    def _settle(self, known: HostEntry) -> None:
        known.queues.rotate(-1)  # another one is first to have the room
        for queue in tuple(known.queues):
            queue.settle()

    def _forget_idle(self, known: HostEntry) -> None:
        """Keep nothing of a host that nobody waits for, but its troubles."""
        if known.queues or known.host.open or self._known.get(known.name) is not known:
            return
        del self._known[known.name]
        if not known.host.is_ordinary(self.now()):
            self._past[known.name] = known.host
            if len(self._past) > REMEMBERED:
                del self._past[next(iter(self._past))]
