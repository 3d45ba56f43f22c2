"""A planned web made real on loopback: hosts of a mix as virtual hosts, rows as addresses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path

from capstan.records import Reason
from capstan.report.plan.web import FASTEST, IMAGE, SimRow, Spread, WebModel
from capstan.testing.photolike import Sizes
from capstan.testing.replies import Fault
from capstan.testing.simulated_web import SimulatedWeb
from capstan.testing.virtual_hosts import VirtualHost

SEED = 20_190_101, 1  # of the rows that are asked for, which a plan does not know
ANSWERS = {  # a path's first part that makes a row end so
    IMAGE: Fault.NONE,
    Reason.NOT_FOUND: "404",
    Reason.DENIED: "403",
    Reason.CLIENT_ERROR: "400",
    Reason.SERVER_ERROR: "500",
    Reason.TIMEOUT: Fault.STALLED,
    Reason.DISCONNECTED: Fault.RESET,
    Reason.NOT_AN_IMAGE: Fault.HTML,
    Reason.EMPTY_BODY: Fault.EMPTY,
}


def even(hosts: int, latency: float, size: int = 20_000) -> WebModel:
    """So many hosts with as many rows each; half of the answers begin within `latency` seconds."""
    return WebModel(
        source="made up",
        guess="",
        secure=0.0,
        shares=(1 / hosts,) * hosts,
        tail_hosts=0,
        head={IMAGE: 1.0},
        tail={},
        bytes=((0.0, size), (1.0, size)),
        latency=Spread(latency, within=0.6 if latency else 0.0),
        bandwidth=Spread(FASTEST),
    )


@contextmanager
def served(mix: WebModel, count: int, log: Path) -> Iterator[tuple[SimulatedWeb, list[str]]]:
    """A web of this mix while the `with` block runs, and so many addresses there."""
    rows = mix.rows(count, SEED)
    numbers = sorted({row.host for row in rows})
    with SimulatedWeb([_host(mix, number) for number in numbers], log, Sizes().warm()) as web:
        yield web, _urls(web, rows)


def _host(mix: WebModel, number: int) -> VirtualHost:
    bandwidth = float(mix.host_bandwidth[number])
    return VirtualHost(
        _name(number),
        float(mix.host_latency[number]),
        mix.latency.within,
        inf if bandwidth >= FASTEST else bandwidth,
    )


def _urls(web: SimulatedWeb, rows: Sequence[SimRow]) -> list[str]:
    return [
        f"{web.base(_name(row.host))}/{ANSWERS[row.end]}/{row.bytes}.jpg?row={number}"
        for number, row in enumerate(rows)
    ]


def _name(number: int) -> str:
    return f"host-{number}.example"
