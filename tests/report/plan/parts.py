"""Small webs, workers and manners to plan with."""

from dataclasses import replace
from math import inf

from capstan.ingest.config import Concurrency, RetryPolicy
from capstan.records import Reason
from capstan.report.plan.costs import Costs, FetchPolicy
from capstan.report.plan.machine import MachineSize
from capstan.report.plan.web import FASTEST, IMAGE, SimRow, Spread, WebModel

WORKER = MachineSize(cores=2, bandwidth=inf, disk=inf)
CHEAP = Costs(
    start=0.0,
    row=1e-4,
    byte=0.0,
    shard=0.2,
    connection=0.0,
    secure_connection=0.0,
    connecting=0.0,
    picture=1e-3,
    picture_byte=0.0,
    stored=None,
)
MANNER = FetchPolicy(Concurrency(), RetryPolicy(), timeout=30.0, host_rate=inf)


def even(hosts: int, latency: float = 0.1, spread: float = 0.0) -> WebModel:
    """So many hosts, all alike and well."""
    return WebModel(
        source="made up",
        guess="",
        secure=0.0,
        shares=(1 / hosts,) * hosts,
        tail_hosts=0,
        head={IMAGE: 1.0},
        tail={},
        bytes=((0.0, 10_000.0), (1.0, 10_000.0)),
        latency=Spread(latency, within=spread),
        bandwidth=Spread(FASTEST),
    )


def with_dead_hosts(web: WebModel, hosts: int, share: float) -> WebModel:
    """The same with hosts that never answer, which have this share of the rows."""
    shares = tuple(part * (1 - share) for part in web.shares)
    return replace(web, shares=shares, tail_hosts=hosts, tail={Reason.TIMEOUT: 1.0})


def row(host: int, end: str = IMAGE, latency: float = 0.1) -> SimRow:
    """A row of a host."""
    return SimRow(host, end, 10_000, latency, FASTEST, secure=False)
