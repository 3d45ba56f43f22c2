"""The web that a plan is made for: who has the pictures, how large they are, how rows end.

Aggregates alone: shares of hosts, quantiles of sizes, shares of reasons. Busy hosts are told apart
by their rank, the many small ones are alike. A reason that speaks against a small host is that of
all its rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capstan.errors import DataError
from capstan.files import read_json, read_table
from capstan.records import Reason

FORMAT, VERSION = "capstan-web-mix", 1
SHIPPED = Path(__file__).with_name("conceptual_captions_2019.json")
IMAGE = "image"  # how a row ends that brings a picture
OF_HOSTS = frozenset({Reason.TIMEOUT, Reason.CONNECT, Reason.DNS, Reason.DISCONNECTED})
BUSIEST = 200  # hosts that are told apart
FAILED_BYTES = 1_000  # of an answer that is no picture, about
FASTEST = 1e12  # bytes per second, for what is not known to be slower
P90 = 1.2816  # sigmas above the median
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """A lognormal quantity: its median, sigma between hosts and sigma within a host."""

    median: float
    between: float = 0.0
    within: float = 0.0

    def of_hosts(self, count: int, random: np.random.Generator) -> Floats:
        """The median of each host."""
        return self.median * np.exp(self.between * random.standard_normal(count))

    def times(self, factor: float) -> "Spread":
        """As many times larger."""
        return replace(self, median=self.median * factor)


@dataclass(frozen=True, slots=True)
class SimRow:
    """A row as the web will treat it."""

    host: int
    end: str  # IMAGE, or the reason of each of its attempts
    bytes: int
    latency: float  # seconds to the first byte
    bandwidth: float  # bytes per second
    secure: bool


@dataclass(frozen=True)
class WebModel:
    """Where the pictures of a TSV are."""

    source: str
    guess: str  # what of it nobody measured; empty for nothing
    secure: float  # share of rows over TLS
    shares: tuple[float, ...]  # of the rows, by host, the busiest first
    tail_hosts: int  # that share the other rows evenly
    head: Mapping[str, float]  # how rows of the busiest hosts end
    tail: Mapping[str, float]  # how those of the others do
    bytes: tuple[tuple[float, float], ...]  # quantiles of a picture's size
    latency: Spread
    bandwidth: Spread
    seed: int = 0  # by which it is drawn what each host is

    @property
    def images(self) -> float:
        """The share of rows that bring a picture."""
        head = sum(self.shares)
        return head * self.head.get(IMAGE, 0.0) + (1 - head) * self.tail.get(IMAGE, 0.0)

    @cached_property
    def mean_bytes(self) -> float:
        """Of a picture."""
        return float(np.mean(self._sizes((np.arange(100_000) + 0.5) / 100_000)))

    def at_time_scale(self, scale: float) -> "WebModel":
        """The same web, at a scale of 0.1 ten times as fast."""
        return replace(
            self, latency=self.latency.times(scale), bandwidth=self.bandwidth.times(1 / scale)
        )

    def with_failures(self, factor: float) -> "WebModel":
        """The same web with so many times the failures."""
        return replace(self, head=_failing(self.head, factor), tail=_failing(self.tail, factor))

    def rows(self, count: int, seed: Sequence[int]) -> list[SimRow]:
        """So many rows by lot; what a host is does not depend on this seed."""
        random = np.random.default_rng(seed)
        hosts = self._drawn_hosts(count, random)
        ends = self._ends(hosts, random)
        sizes = self._sizes(random.random(count))
        within = np.exp(self.latency.within * random.standard_normal(count))
        latency = self.host_latency[hosts] * within
        secure = random.random(count) < self.secure
        bandwidth = self.host_bandwidth[hosts]
        return [
            SimRow(
                int(host), end, int(size) if end == IMAGE else FAILED_BYTES, late, wide, bool(tls)
            )
            for host, end, size, late, wide, tls in zip(
                hosts, ends, sizes, latency.tolist(), bandwidth.tolist(), secure, strict=True
            )
        ]

    def _drawn_hosts(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        edges = np.cumsum(self.shares)
        hosts = np.searchsorted(edges, random.random(count), side="right").astype(np.int64)
        if self.tail_hosts == 0:
            return np.minimum(hosts, len(self.shares) - 1)
        small = hosts == len(self.shares)
        hosts[small] += random.integers(0, self.tail_hosts, int(small.sum()))
        return hosts

    def _ends(self, hosts: NDArray[np.int64], random: np.random.Generator) -> list[str]:
        head, tail = _Ends(self.head), _Ends(self.tail)
        drawn = random.random(len(hosts)).tolist()
        ends = []
        for host, own in zip(hosts.tolist(), drawn, strict=True):
            if host < len(self.shares):
                ends.append(head.at(own))
            else:
                whole = tail.at(self._nature[host])
                ends.append(whole if whole in OF_HOSTS else tail.at(own, but=OF_HOSTS))
        return ends

    def _sizes(self, parts: Floats) -> Floats:
        places, sizes = zip(*self.bytes, strict=True)
        return np.exp(np.interp(parts, places, np.log(sizes)))

    # What each host is, whatever rows are drawn

    @cached_property
    def _hosts(self) -> tuple[Floats, Floats, Floats]:
        random, count = np.random.default_rng(self.seed), len(self.shares) + self.tail_hosts
        return (
            self.latency.of_hosts(count, random),
            self.bandwidth.of_hosts(count, random),
            random.random(count),
        )

    @property
    def host_latency(self) -> Floats:
        """Median seconds to a first byte, by host."""
        return self._hosts[0]

    @property
    def host_bandwidth(self) -> Floats:
        """Bytes per second of a connection, by host."""
        return self._hosts[1]

    @property
    def _nature(self) -> Floats:
        return self._hosts[2]


class _Ends:
    """Ways to end, each with a share of the numbers from 0 to 1."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = dict(shares)
        self._sets: dict[frozenset[str], tuple[list[str], Floats]] = {}

    def at(self, part: float, but: frozenset[str] = frozenset()) -> str:
        """The one at a number; those left out leave their shares to the others."""
        if but not in self._sets:
            left = {end: share for end, share in self._shares.items() if end not in but}
            total = sum(left.values()) or 1.0
            self._sets[but] = list(left) or [IMAGE], np.cumsum(list(left.values()) or [1.0]) / total
        ends, edges = self._sets[but]
        return ends[min(len(ends) - 1, int(np.searchsorted(edges, part, side="right")))]


def _failing(shares: Mapping[str, float], factor: float) -> dict[str, float]:
    failures = {end: share * factor for end, share in shares.items() if end != IMAGE}
    total = sum(failures.values())
    if total > 1:
        return {end: share / total for end, share in failures.items()}
    return {IMAGE: 1 - total, **failures}


# Where a mix comes from


def read_web(path: Path = SHIPPED) -> WebModel:
    """Read a mix: a file of this format, or a folder of `capstan ingest --statistics`."""
    if path.is_dir():
        return _from_statistics(path)
    entry = read_json(path, FORMAT, VERSION)
    try:
        return WebModel(
            source=str(entry["source"]),
            guess=str(entry["guess"]),
            secure=float(entry["secure"]),
            shares=tuple(map(float, entry["shares"])),
            tail_hosts=int(entry["tail_hosts"]),
            head=_shares(entry["head"]),
            tail=_shares(entry["tail"]),
            bytes=tuple((float(part), max(1.0, float(size))) for part, size in entry["bytes"]),
            latency=Spread(**entry["latency"]),
            bandwidth=Spread(**entry["bandwidth"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a whole mix ({error!r}); see plan/{SHIPPED.name}") from error


def _shares(entry: Mapping[str, Any]) -> dict[str, float]:
    if unknown := set(entry) - {IMAGE, *Reason}:
        raise ValueError(f"no reasons: {', '.join(sorted(unknown))}")
    return {end: float(share) for end, share in entry.items()}


def _from_statistics(folder: Path) -> WebModel:
    """What an ingestion saw. Sizes are spread as in the shipped mix, around the mean seen."""
    from capstan.ingest.statistics import FORMAT as SEEN
    from capstan.ingest.statistics import VERSION as SEEN_VERSION

    path = folder / "run.json"
    run = read_json(path, SEEN, SEEN_VERSION)
    table, _ = read_table(folder / "hosts.parquet", SEEN, SEEN_VERSION)
    shipped = read_web()
    try:
        hosts = sorted(table.to_pylist(), key=lambda host: -host["rows"])
        rows, latency = sum(host["rows"] for host in hosts), run["latency"]
        median, p90 = float(latency["p50"]), float(latency["p90"])
        mean = int(run["bytes"]) / max(1, int(run["images"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: no row in it, or damaged; ingest again with --statistics") from (
            error
        )
    busiest, others = hosts[:BUSIEST], hosts[BUSIEST:]
    sigma = log(max(1.0, p90 / median)) / P90 / 2**0.5  # as much between hosts as within one
    factor = mean / shipped.mean_bytes
    return replace(
        shipped,
        source=f"{folder.resolve().name}: what an ingestion of {rows:,} rows saw of the web",
        guess="how sizes are spread around their mean, and the share of TLS",
        shares=tuple(host["rows"] / rows for host in busiest),
        tail_hosts=len(others),
        head=_ends_of(busiest),
        tail=_ends_of(others),
        bytes=tuple((part, size * factor) for part, size in shipped.bytes),
        latency=Spread(median, sigma, sigma),
        bandwidth=Spread(FASTEST),  # the latencies seen are of whole answers
    )


def _ends_of(hosts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    counts = {IMAGE: float(sum(host["images"] for host in hosts))}
    for host in hosts:
        for part in filter(None, host["reasons"].split(", ")):
            name, count = part.rsplit(" ", 1)
            counts[name] = counts.get(name, 0.0) + int(count)
    total = sum(counts.values()) or 1.0
    return {end: count / total for end, count in counts.items()}
