"""What a run saw of the web: counts, hosts, latencies and rates, as files for people and programs.

`run.json` sums up; `shards.parquet` has a line per shard, `hosts.parquet` one per host and
`timeline.parquet` one per second. They tell of the rows that this run fetched, not of those that
were there. They depend on timing, so they never lie among the shards.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.files import write_json, write_table
from pipeline.records import Answer, Failure, Image

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
    """One host's rows."""

    rows: int = 0
    images: int = 0
    attempts: int = 0
    bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: "HostCount") -> None:
        """Add another's."""
        self.rows += other.rows
        self.images += other.images
        self.attempts += other.attempts
        self.bytes += other.bytes
        self.reasons.update(other.reasons)


@dataclass(slots=True)
class Statistics:
    """Of the rows fetched for a shard, or for a run."""

    statuses: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, HostCount] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)

    def note(self, host: str, answer: Answer, result: Image | Failure, seconds: float) -> None:
        """Count a row; `seconds` is what its last request took."""
        failed = [result.reason.value] if isinstance(result, Failure) else []
        line = self.hosts.setdefault(host, HostCount())
        line.add(HostCount(1, not failed, answer.attempts, answer.bytes, Counter(failed)))
        self.statuses[str(answer.http_status or "none")] += 1
        self.latencies.note(seconds)

    def add(self, other: "Statistics") -> None:
        """Add another shard's."""
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
        total = HostCount()
        for line in self.hosts.values():
            total.add(line)
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


@dataclass(slots=True)
class RunStatistics:
    """Of a whole run, gathered in its parent."""

    total: Statistics = field(default_factory=Statistics)
    shards: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[int, Counter[str]] = field(default_factory=dict)

    def shard(self, name: str, statistics: Statistics) -> None:
        """Add a shard that was written."""
        self.total.add(statistics)
        self.shards.append({"shard": name, **_flat(statistics.numbers())})

    def tick(self, second: int, counts: Mapping[str, int]) -> None:
        """Add rows, images and bytes that came in a second of the run."""
        self.seconds.setdefault(second, Counter()).update(counts)

    def write(self, directory: Path, about: Mapping[str, Any]) -> None:
        """Write the files; `about` joins the sums in `run.json`."""
        manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        write_json(directory / "run.json", {**manifest, **about, **self.total.numbers()})
        hosts = (
            {
                "host": host,
                "rows": line.rows,
                "images": line.images,
                "attempts": line.attempts,
                "bytes": line.bytes,
                "reasons": str(dict(line.reasons.most_common())),
            }
            for host, line in self.total.busiest()
        )
        timeline = ({"second": second, **counts} for second, counts in sorted(self.seconds.items()))
        for name, lines in (("shards", self.shards), ("hosts", hosts), ("timeline", timeline)):
            write_table(directory / f"{name}.parquet", _table(lines), manifest)


def _flat(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """A line of plain columns; counts by name as text."""
    latency = {f"latency_{name}": value for name, value in numbers["latency"].items()}
    plain = {
        key: str(value) if isinstance(value, dict) else value for key, value in numbers.items()
    }
    del plain["latency"]
    return plain | latency


def _table(lines: Iterable[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(line) for line in lines])
