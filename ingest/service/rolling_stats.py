"""What the service did of late: by second, reason and host, all of it bounded."""

import heapq
import time
from collections import Counter, deque

from capstan.ingest.messages import Tally
from capstan.ingest.service.jobs import HostLine, Second
from capstan.ingest.statistics import HostCount
from capstan.ingest.statistics import RowStatistics as Seen

SECONDS = 600
HOSTS = 50  # shown


class RollingStats:
    """Counts since the service was started."""

    def __init__(self) -> None:
        self.since = time.time()
        self.reasons: Counter[str] = Counter()
        self.rows = self.images = self.bytes = 0
        self._seconds: deque[Second] = deque(maxlen=SECONDS)
        self._rows = self._images = self._bytes = 0  # of the present second
        self._seen = Seen()
        self._hosts: tuple[HostLine, ...] | None = ()  # None: to be looked for again

    def tally(self, tally: Tally) -> None:
        """Count rows that ended."""
        self._rows += tally.reasons.total() - tally.kept
        self._images += tally.reasons[None] - tally.kept_images
        self._bytes += tally.bytes
        if not tally.kept:  # else some of these are of a run before
            self.reasons.update({name: n for name, n in tally.reasons.items() if name})

    def saw(self, statistics: Seen) -> None:
        """Count what a shard's rows saw of hosts."""
        self._seen.add(statistics)
        self._hosts = None

    def tick(self) -> None:
        """End a second."""
        rows, images = self._rows, self._images
        failures = max(0, rows - images)
        self._seconds.append(Second(int(time.time()), rows, images, failures, self._bytes))
        self.rows, self.images, self.bytes = (
            self.rows + rows,
            self.images + images,
            self.bytes + self._bytes,
        )
        self._rows = self._images = self._bytes = 0

    def seconds(self, count: int) -> tuple[Second, ...]:
        """The last ones."""
        skipped = max(0, len(self._seconds) - count)
        return tuple(self._seconds)[skipped:]

    def hosts(self) -> tuple[HostLine, ...]:
        """Those with the most rows."""
        if self._hosts is None:
            items = self._seen.hosts.items()
            most = heapq.nlargest(HOSTS, items, key=lambda item: (item[1].rows, item[0]))
            self._hosts = tuple(_line(name, count) for name, count in most)
        return self._hosts


def _line(name: str, count: HostCount) -> HostLine:
    top = max(count.reasons, key=lambda reason: count.reasons[reason], default=None)
    return HostLine(name, count.rows, count.reasons.total(), top)
