"""What a run saw of the web: counts, hosts, latencies and rates, as files for people and programs.

`run.json` sums up; `shards.parquet` has a line per shard, `hosts.parquet` one per host and
`timeline.parquet` one per second. They tell of the rows that this run fetched, not of those that
were there. They depend on timing, so they never lie among the shards.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from capstan.files import write_json, write_table
from capstan.records import Answer, Failure, Image

FORMAT = "capstan-ingest-statistics"
VERSION = 1
RESOLUTION = math.log(1.05)  # latencies are kept in classes 5 % apart
FASTEST = 1e-5  # seconds; all below count as this
PERCENTILES = (50, 90, 99, 99.9)
MOST_HOSTS = 20_000  # of those with the most rows; bounds memory


class Latencies(Counter[int]):
    """Seconds by class, so that a billion take no more room than a hundred; they add up."""

    def note(self, seconds: float) -> None:
        """Count one."""
        self[round(math.log(max(FASTEST, seconds)) / RESOLUTION)] += 1

    def percentile(self, percent: float) -> float | None:
        """Seconds within which so many per cent of them lie, to 2.5 %; None of none."""
        wanted = math.ceil(self.total() * percent / 100)
        for step in sorted(self):
            wanted -= self[step]
            if wanted <= 0:
                return math.exp(step * RESOLUTION)
        return None


@dataclass(slots=True)
class HostCount:
    """What became of rows: of one host, or all."""

    rows: int = 0
    images: int = 0
    attempts: int = 0
    bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def note(self, answer: Answer, result: Image | Failure) -> None:
        """Count a row."""
        self.rows += 1
        self.attempts += answer.attempts
        self.bytes += answer.bytes
        if isinstance(result, Failure):
            self.reasons[result.reason.value] += 1
        else:
            self.images += 1

    def add(self, other: "HostCount") -> None:
        """Add another's."""
        self.rows += other.rows
        self.images += other.images
        self.attempts += other.attempts
        self.bytes += other.bytes
        self.reasons.update(other.reasons)


@dataclass(slots=True)
class RowStatistics:
    """Of the rows fetched for a shard, or for a run."""

    total: HostCount = field(default_factory=HostCount)
    statuses: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, HostCount] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)

    def note(self, host: str, answer: Answer, result: Image | Failure, seconds: float) -> None:
        """Count a row; `seconds` is what its last request took."""
        line = self.hosts.get(host) or self.hosts.setdefault(host, HostCount())
        line.note(answer, result)
        self.total.note(answer, result)
        self.statuses[str(answer.http_status or "none")] += 1
        self.latencies.note(seconds)

    def add(self, other: "RowStatistics") -> None:
        """Add another shard's."""
        self.total.add(other.total)
        self.statuses.update(other.statuses)
        self.latencies.update(other.latencies)
        for host, line in other.hosts.items():
            self.hosts.setdefault(host, HostCount()).add(line)
        if len(self.hosts) > 2 * MOST_HOSTS:
            self.hosts = dict(self.busiest())

    def busiest(self) -> list[tuple[str, HostCount]]:
        """The hosts with the most rows, first."""
        return sorted(self.hosts.items(), key=lambda item: (-item[1].rows, item[0]))[:MOST_HOSTS]

    def numbers(self) -> dict[str, Any]:
        """Sums, in seconds and bytes."""
        total = self.total
        return {
            "rows": total.rows,
            "images": total.images,
            "attempts": total.attempts,
            "bytes": total.bytes,
            "reasons": dict(total.reasons.most_common()),
            "http_statuses": dict(self.statuses.most_common()),
            "hosts": len(self.hosts),
            "latency": {
                f"p{percent}": self.latencies.percentile(percent) for percent in PERCENTILES
            },
        }


class RunStatistics:
    """Of a whole run, gathered in its parent while it goes on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._total = RowStatistics()
        self._shards: list[dict[str, Any]] = []
        self._timeline: dict[int, Counter[str]] = defaultdict(Counter)  # by second

    def add(self, shard: str, statistics: RowStatistics) -> None:
        """Add a shard that was written."""
        self._total.add(statistics)
        self._shards.append({"shard": shard, **_flat(statistics.numbers())})

    def tick(self, rows: int, images: int, bytes: int) -> None:
        """Add what came since the last time."""
        counts = {"rows": rows, "images": images, "bytes": bytes}
        self._timeline[int(time.monotonic() - self._began)].update(counts)

    def write(self, directory: Path) -> None:
        """Write the files."""
        manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        seconds = round(time.monotonic() - self._began, 3)
        numbers = self._total.numbers()
        write_json(directory / "run.json", {**manifest, "seconds": seconds, **numbers})
        hosts = [
            {"host": name, **asdict(host), "reasons": _text(host.reasons)}
            for name, host in self._total.busiest()
        ]
        timeline = [{"second": second, **counts} for second, counts in self._timeline.items()]
        for name, lines in (("shards", self._shards), ("hosts", hosts), ("timeline", timeline)):
            write_table(directory / f"{name}.parquet", pa.Table.from_pylist(lines), manifest)


def _flat(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a table."""
    plain = {name: value for name, value in numbers.items() if name != "latency"}
    counts = {name: _text(numbers[name]) for name in ("reasons", "http_statuses")}
    return plain | counts | {f"latency_{key}": value for key, value in numbers["latency"].items()}


def _text(counts: Mapping[str, int]) -> str:
    """`not_found 3, dns 1`."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())
