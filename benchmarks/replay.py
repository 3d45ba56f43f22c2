"""The real web of 2019 as a simulated one, from a report of what each URL answered then.

The report is a TSV (`url, split, status, mimetype, size, file, headers`, may be gzipped), as
`downloaded_validation_report.tsv.gz` of Conceptual Captions. Status, type and size are replayed,
every real host has an address of its own. Status 408 without headers is the reporter's word for no
answer: half of those reset the connection, half never answer. What the report does not tell is
made up: latencies are lognormal, around a median that differs between hosts, as are bandwidths.
"""

import csv
import gzip
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice
from math import exp
from pathlib import Path
from statistics import NormalDist
from urllib.parse import urlsplit

from capstan.errors import DataError
from capstan.testing.replies import Fault
from capstan.testing.simulated_web import SimulatedWeb
from capstan.testing.virtual_hosts import VirtualHost

COLUMNS = 7
LATENCY, HOST_SPREAD, SPREAD = 0.25, 0.6, 0.6  # seconds; sigmas between hosts and within one
BANDWIDTH, BANDWIDTH_SPREAD = 2e6, 0.7  # bytes per second and connection
TRICKLE = 1_000.0  # bytes per second of a tar pit
BAD_SHARE = 0.2  # of the hosts of a harsh web; half of them dead, half tar pits
KINDS = {"image/png": "png", "image/gif": "gif"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a URL answered."""

    host: str
    path: str  # that makes the simulated host answer the same


@dataclass(frozen=True)
class Report:
    """Recorded answers and the hosts that gave them."""

    answers: tuple[Recorded, ...]
    seed: int = 0

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All hosts, those first seen first."""
        return tuple(dict.fromkeys(answer.host for answer in self.answers))

    @cached_property
    def bad(self) -> frozenset[str]:
        """The hosts that misbehave where the web is harsh."""
        drawn = sorted(self.names, key=lambda name: draw(self.seed, "bad", name))
        return frozenset(drawn[: round(BAD_SHARE * len(drawn))])

    def hosts(self, time_scale: float = 1.0, harsh: bool = False) -> list[VirtualHost]:
        """Every host as it behaves; at a time scale of 0.1 all goes ten times as fast."""
        hosts = [self._host(name, time_scale) for name in self.names]
        return [self._spoiled(host) if harsh and host.name in self.bad else host for host in hosts]

    def urls(self, web: SimulatedWeb, count: int, healthy_only: bool = False) -> list[str]:
        """So many rows, the report over and over, each with a URL of its own."""
        chosen = [
            answer for answer in self.answers if not (healthy_only and answer.host in self.bad)
        ]
        rows = enumerate(islice(cycle(chosen), count))
        return [f"{web.base(answer.host)}{answer.path}?row={index}" for index, answer in rows]

    def _host(self, name: str, time_scale: float) -> VirtualHost:
        slowness = exp(HOST_SPREAD * normal(self.seed, "latency", name))
        width = exp(BANDWIDTH_SPREAD * normal(self.seed, "bandwidth", name))
        return VirtualHost(
            name, LATENCY * slowness * time_scale, SPREAD, BANDWIDTH * width / time_scale
        )

    def _spoiled(self, host: VirtualHost) -> VirtualHost:
        if draw(self.seed, "dead", host.name) < 0.5:
            return replace(host, fault=Fault.STALLED)
        return replace(host, bandwidth=TRICKLE)


def draw(seed: int, what: str, name: str) -> float:
    """A number from 0 to 1 that depends on the arguments alone."""
    return (zlib.crc32(f"{seed} {what} {name}".encode()) + 0.5) / 2**32


def normal(seed: int, what: str, name: str) -> float:
    """The same, normally distributed."""
    return NormalDist().inv_cdf(draw(seed, what, name))


def read_report(path: Path, seed: int = 0) -> Report:
    """Read a report; raises DataError where it is none."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            csv.field_size_limit(sys.maxsize)
            lines = csv.reader(file, delimiter="\t")
            answers = tuple(recorded(path, line, seed) for line in lines)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a report ({error})") from error
    if not answers:
        raise DataError(f"{path}: no rows in it; give a report of downloads")
    return Report(answers, seed)


def recorded(path: Path, line: Sequence[str], seed: int) -> Recorded:
    """A line of the report."""
    if len(line) != COLUMNS:
        raise DataError(f"{path}: {len(line)} columns where {COLUMNS} are expected")
    url, _, status, kind, size, _, headers = line
    host = urlsplit(url).hostname or "nowhere"
    name = f"{round(float(size or 0))}.{KINDS.get(kind, 'jpg')}"
    if status == "408" and not headers:
        fault = Fault.RESET if draw(seed, "no answer", url) < 0.5 else Fault.STALLED
        return Recorded(host, f"/{fault}/{name}")
    if status == "200" and kind and not kind.startswith("image/"):
        return Recorded(host, f"/{Fault.HTML}/{name}")
    return Recorded(host, f"/{status}/{name}")
