"""The simulated web's log, and what it proves: was every host treated as it asked to be?

    python -m capstan.testing.politeness LOG.parquet --per-host 16

Prints the violations and exits with 1 when there are some. The log has a line for each request:

    began, ended   seconds since the epoch; ended when the last byte was handed to the system
    host, path     of the virtual host, and what it was asked for
    status         answered; 0 for none
    whole          whether the client stayed until the answer's end
    not_before     when the host asked, by this answer's Retry-After, to be asked again; 0: now
    connections    open to the host when the request came, its own included
"""

import argparse
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

GRACE = 0.1  # seconds in which requests may come that were sent before a 429 was read


class RequestLog:
    """Collects lines in memory, about 120 bytes each."""

    def __init__(self) -> None:
        self._began, self._ended, self._not_before = array("d"), array("d"), array("d")
        self._status, self._connections, self._host = array("i"), array("i"), array("i")
        self._paths: list[str] = []
        self._whole = bytearray()

    def __len__(self) -> int:
        return len(self._paths)

    def begin(self, now: float, host: int, path: str, connections: int) -> int:
        """Add a request; returns its number."""
        for column, value in ((self._began, now), (self._ended, 0.0), (self._not_before, 0.0)):
            column.append(value)
        self._status.append(0)
        self._connections.append(connections)
        self._host.append(host)
        self._paths.append(path)
        self._whole.append(False)
        return len(self._paths) - 1

    def answer(self, number: int, status: int, not_before: float) -> None:
        """Note what was answered."""
        self._status[number] = status
        self._not_before[number] = not_before

    def end(self, number: int, now: float, whole: bool) -> None:
        """Note when and how the answer ended."""
        self._ended[number] = now
        self._whole[number] = whole

    def write(self, path: Path, hosts: list[str], now: float) -> None:
        """Write the log; what is still being answered ends now."""
        ended = np.frombuffer(self._ended or array("d"), float)
        names = pa.array(hosts, pa.string())
        host = pa.DictionaryArray.from_arrays(pa.array(self._host, pa.int32()), names)
        table = pa.table(
            {
                "began": pa.array(self._began, pa.float64()),
                "ended": np.where(ended == 0, now, ended),
                "host": host,
                "path": pa.array(self._paths, pa.string()),
                "whole": np.frombuffer(self._whole, bool),
                "status": pa.array(self._status, pa.int16()),
                "not_before": pa.array(self._not_before, pa.float64()),
                "connections": pa.array(self._connections, pa.int32()),
            }
        )
        pq.write_table(table, path, compression="zstd")


@dataclass(frozen=True)
class Violation:
    """A host that was not treated as it should be."""

    host: str
    what: str

    def __str__(self) -> str:
        return f"{self.host}: {self.what}"


@dataclass(frozen=True)
class Treatment:
    """How a host was treated."""

    host: str
    requests: int
    most_in_flight: int
    most_connections: int
    too_early: int  # requests before the end of a wait that the host had asked for


def treatments(log: Path, grace: float = GRACE) -> Iterator[Treatment]:
    """How each host of a log was treated."""
    table = pq.read_table(log)
    hosts = table["host"].combine_chunks()
    codes = hosts.indices.to_numpy()
    columns: dict[str, NDArray[Any]] = {
        name: table[name].to_numpy() for name in ("began", "ended", "not_before", "connections")
    }
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else ():
        began, ended = columns["began"][rows], columns["ended"][rows]
        yield Treatment(
            hosts.dictionary[int(codes[rows[0]])].as_py(),
            len(rows),
            most_at_once(began, ended),
            int(columns["connections"][rows].max()),
            too_early(began, ended, columns["not_before"][rows], grace),
        )


def violations(log: Path, per_host: int, grace: float = GRACE) -> list[Violation]:
    """Hosts with more than `per_host` connections at once, or asked while they wanted rest."""
    found = []
    for host in treatments(log, grace):
        if (most := max(host.most_in_flight, host.most_connections)) > per_host:
            found.append(Violation(host.host, f"{most} connections at once of {per_host} allowed"))
        if host.too_early:
            found.append(
                Violation(host.host, f"{host.too_early} requests before its Retry-After had passed")
            )
    return found


def most_at_once(began: NDArray[Any], ended: NDArray[Any]) -> int:
    """The most intervals that overlap; one that ends as another begins does not."""
    times = np.concatenate([ended, began])
    steps = np.concatenate([np.full(len(ended), -1), np.ones(len(began), int)])
    return int(steps[np.argsort(times, kind="stable")].cumsum().max(initial=0))


def too_early(
    began: NDArray[Any], ended: NDArray[Any], not_before: NDArray[Any], grace: float
) -> int:
    """Requests that began while a host, by an answer that had ended, wanted to be left alone."""
    order = np.argsort(ended, kind="stable")
    wanted = np.concatenate([[0.0], np.maximum.accumulate(not_before[order])])
    known = wanted[np.searchsorted(ended[order], began - grace, side="right")]
    return int((began < known).sum())


def main() -> int:
    """Judge a log."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path)
    parser.add_argument("--per-host", type=int, default=16, help="connections allowed at once")
    parser.add_argument("--grace", type=float, default=GRACE, metavar="SECONDS")
    arguments = parser.parse_args()
    found = violations(arguments.log, arguments.per_host, arguments.grace)
    hosts = list(treatments(arguments.log, arguments.grace))
    print(
        f"{sum(host.requests for host in hosts):,} requests to {len(hosts):,} hosts, "
        f"{len(found)} violations"
    )
    for violation in found:
        print(violation)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
