"""Whether a thread has more to do than it comes to, so that more at a time gets no more done."""

import time
from collections.abc import Callable
from pathlib import Path

# Nanoseconds on a core and waiting for one (Linux, Documentation/scheduler/sched-stats).
SCHEDSTAT = Path("/proc/thread-self/schedstat")
INTERVAL = 0.25  # seconds, the least between two looks
FULL = 0.95  # of the time


def wanted() -> float:
    """Seconds in which the calling thread had a core or waited for one.

    Where the system does not tell of the waiting, only those in which it had one.
    """
    try:
        running, waiting, _ = map(int, SCHEDSTAT.read_text().split())
    except (OSError, ValueError):
        return time.thread_time()
    return (running + waiting) / 1e9


class Saturation:
    """How busy the thread is that made this; only that one may ask."""

    def __init__(
        self,
        wanted: Callable[[], float] = wanted,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted, self._clock = wanted, clock
        self._looked_at, self._wanted_then = clock(), wanted()
        self._is_full = False

    def is_full(self) -> bool:
        """Whether it was hardly idle between the last two looks, INTERVAL apart or more."""
        now = self._clock()
        passed = now - self._looked_at
        if passed >= INTERVAL:
            wanted = self._wanted()
            self._is_full = wanted - self._wanted_then >= FULL * passed
            self._looked_at, self._wanted_then = now, wanted
        return self._is_full
