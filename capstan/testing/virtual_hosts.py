"""The hosts of the simulated web: what each does with a request, and the log of it."""

import time
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Address
from math import exp, inf
from pathlib import Path
from statistics import NormalDist

from capstan.testing.connection import Request, ServerConnection
from capstan.testing.politeness import RequestLog
from capstan.testing.replies import PASSING, Fault, Reply, parse, plain, reply_to, wait

FIRST = IPv4Address("127.1.0.1")
QUANTILES = 4_096


@dataclass(frozen=True, slots=True)
class RateLimit:
    """More than so many requests in a second get 429, and a wait to keep to."""

    requests: int
    retry_after: float = 1.0  # seconds
    as_date: bool = False  # Retry-After as an HTTP-date


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """How one virtual host behaves."""

    name: str
    latency: float = 0.0  # seconds to the first byte, the median of a lognormal distribution
    spread: float = 0.0  # its sigma
    bandwidth: float = inf  # bytes per second and connection
    keep_alive: bool = True
    tls: bool = False
    fault: Fault = Fault.NONE  # of all its addresses: STALLED makes it dead, TRICKLE a tar pit
    listens: bool = True
    limit: RateLimit | None = None
    robots: str | None = None  # its /robots.txt
    moved_to: str | None = None  # where it redirects all paths: `http://host:port`


@dataclass(frozen=True)
class WebSpec:
    """What the serving process needs to know."""

    hosts: tuple[VirtualHost, ...]
    port: int
    log: Path | None
    pictures: Mapping[str, bytes]
    seed: int
    slow: float
    authority: Path | None


def address(index: int) -> str:
    """The address of the host with a number."""
    return str(FIRST + index)


class VirtualHosts:
    """The site of all connections: decides by host and path, and logs."""

    def __init__(self, spec: WebSpec) -> None:
        self._spec, self._log = spec, RequestLog()
        names = {host.name.lower(): index for index, host in enumerate(spec.hosts)}
        self._numbers = names | {address(index): index for index in range(len(spec.hosts))}
        self._connections: Counter[str] = Counter()  # by address
        self._times: Counter[tuple[int, str]] = Counter()  # asked, of faults that pass
        self._windows: dict[int, tuple[int, int]] = {}  # second and requests in it, by host

    def __repr__(self) -> str:
        return f"<VirtualHosts {len(self._spec.hosts)}, {len(self._log)} requests>"

    def opened(self, connection: ServerConnection) -> None:
        """A client connected."""
        self._connections[connection.address] += 1

    def closed(self, connection: ServerConnection) -> None:
        """A client has gone."""
        self._connections[connection.address] -= 1

    def begin(self, request: Request, connection: ServerConnection) -> tuple[int, Reply]:
        """Log a request and decide on its reply."""
        number = self._numbers.get(request.host, self._numbers.get(connection.address, 0))
        now = time.time()
        if self._spec.log is None:
            return 0, self._decide(number, request.path, now)
        line = self._log.begin(now, number, request.path, self._connections[connection.address])
        reply = self._decide(number, request.path, now)
        self._log.answer(line, reply.status, now + reply.retry_after if reply.retry_after else 0.0)
        return line, reply

    def end(self, number: int, whole: bool) -> None:
        """Log that a request is answered."""
        if self._spec.log is not None:
            self._log.end(number, time.time(), whole)

    def write_log(self) -> None:
        """Write what was logged."""
        if self._spec.log is not None:
            names = [host.name for host in self._spec.hosts]
            self._log.write(self._spec.log, names, time.time())

    def _decide(self, number: int, path: str, now: float) -> Reply:
        host = self._spec.hosts[number]
        if host.limit and self._over_limit(number, host.limit, now):
            return wait(host.limit.retry_after, now if host.limit.as_date else None)
        if path == "/robots.txt":
            reply = plain(404) if host.robots is None else plain(200, text=host.robots.encode())
        elif host.moved_to:
            reply = plain(302, f"Location: {host.moved_to}{path}\r\n")
        else:
            reply = self._picture(number, host, path)
        return replace(
            reply,
            delay=reply.delay + latency(host, self._spec.seed, path),
            pace=min(reply.pace, host.bandwidth),
            close=reply.close or not host.keep_alive,
        )

    def _picture(self, number: int, host: VirtualHost, path: str) -> Reply:
        try:
            target = parse(path)
            body = self._spec.pictures[target.name]
        except (ValueError, KeyError):
            return plain(404)
        if host.fault is not Fault.NONE:
            target = replace(target, fault=host.fault, status=None)
        times = 1
        if target.fault in PASSING:
            self._times[number, path] += 1
            times = self._times[number, path]
        return reply_to(target, body, times, self._spec.slow)

    def _over_limit(self, number: int, limit: RateLimit, now: float) -> bool:
        second, requests = self._windows.get(number, (0, 0))
        requests = requests + 1 if second == int(now) else 1
        self._windows[number] = int(now), requests
        return requests > limit.requests


def latency(host: VirtualHost, seed: int, path: str) -> float:
    """Seconds to the first byte of an address, drawn from the host's distribution."""
    if not host.spread:
        return host.latency
    drawn = zlib.crc32(path.encode(), zlib.crc32(f"{seed} {host.name}".encode()))
    return host.latency * exp(host.spread * quantiles()[drawn % QUANTILES])


@cache
def quantiles() -> tuple[float, ...]:
    """Of the normal distribution, evenly spaced."""
    normal = NormalDist()
    return tuple(normal.inv_cdf((index + 0.5) / QUANTILES) for index in range(QUANTILES))
