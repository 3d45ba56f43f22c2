"""Connections to hosts: names looked up, addresses checked, connections kept for the next row."""

import asyncio
import errno
import re
import socket
import ssl
import time
from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from ipaddress import ip_address
from typing import NamedTuple

import aiohappyeyeballs
from yarl import URL

from capstan.ingest.http.addresses import (
    Address,
    ForbiddenAddressError,
    Resolver,
    check_public,
    open_public_socket,
    open_resolver,
)
from capstan.ingest.http.connection import Connection, ExchangeError, HttpResponse, StaleError
from capstan.records import Reason

BUFFER = 1 << 18  # bytes read at a time
KEPT = 15.0  # seconds that an idle connection is kept
NAMES_KEPT = 300.0  # seconds
NAMES = 50_000  # remembered; bounds memory
SECOND_ADDRESS = 0.25  # seconds after which the next address is tried too (RFC 8305)
BYTE = r"(?:[1-9]?[0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
# As most are: nothing in it that would have to be quoted, resolved or converted.
PLAIN = re.compile(
    rf"(https?)://((?:[a-z0-9-]+\.)+[a-z][a-z0-9-]*|(?:{BYTE}\.){{3}}{BYTE})(?::([1-5]?[0-9]{{1,4}}))?"
    r"((?:/(?!\.\.?(?:[/?]|\Z))[A-Za-z0-9._~!$&'()*+,;=:@-]*)+(?:\?[A-Za-z0-9._~!$'()*,;=:@/?&-]+)?)"
)

OUR_OWN_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class ConnectionKey(NamedTuple):
    """Where a URL's answers come from."""

    tls: bool
    host: str  # as it is looked up
    port: int


class RequestTarget(NamedTuple):
    """A URL taken apart."""

    url: str
    origin: ConnectionKey
    path: str  # and query
    credentials: str = ""  # of Basic authentication

    def request(self, headers: bytes) -> bytes:
        """The request for it, with further headers."""
        origin = self.origin
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        port = "" if origin.port == (443 if origin.tls else 80) else f":{origin.port}"
        head = f"GET {self.path} HTTP/1.1\r\nHost: {host}{port}\r\n{self.credentials}"
        return head.encode("ascii") + headers


def parse(url: str) -> RequestTarget:
    """Take an http(s) URL apart; raises ValueError for what is none."""
    if plain := PLAIN.fullmatch(url):
        scheme, host, port, path = plain.groups()
        tls = scheme == "https"
        return RequestTarget(url, ConnectionKey(tls, host, int(port or (443 if tls else 80))), path)
    return parse_any(URL(url))


def parse_any(url: URL) -> RequestTarget:
    """The same for a URL that needs quoting or converting."""
    host = (url.raw_host or "").removesuffix(".")
    if url.scheme not in ("http", "https") or not host or ("%" in host and ":" not in host):
        raise ValueError(f"{url}: no http(s) URL with a host")
    if is_address(host):
        ip_address(host)  # none of the forms that only some resolvers take for one
    credentials = ""
    if url.user is not None or url.password is not None:
        pair = f"{url.user or ''}:{url.password or ''}".encode("latin-1")
        credentials = f"Authorization: Basic {b64encode(pair).decode()}\r\n"
    origin = ConnectionKey(url.scheme == "https", host, url.port or 0)
    return RequestTarget(str(url), origin, url.raw_path_qs or "/", credentials)


def is_address(host: str) -> bool:
    """Whether a host is a number, as no name ends in a digit's label (WHATWG URL, 3.5)."""
    return ":" in host or host[-1].isdigit()


class Names:
    """Addresses of hosts, remembered for a while; who asks for the same at once waits for one."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._known: dict[str, tuple[float, asyncio.Task[list[Address]]]] = {}

    async def look_up(self, host: str) -> list[Address]:
        """Where to connect to; raises ExchangeError when that cannot be found out."""
        if is_address(host):
            return [Address(socket.AF_INET6 if ":" in host else socket.AF_INET, host)]
        try:
            found = await asyncio.shield(self._resolve(host))
        except ForbiddenAddressError as error:
            raise ExchangeError(Reason.FORBIDDEN_ADDRESS) from error
        except OSError as error:
            raise_if_ours(error)
            raise ExchangeError(Reason.DNS) from error
        if not found:
            raise ExchangeError(Reason.DNS)
        return found

    def _resolve(self, host: str) -> "asyncio.Task[list[Address]]":
        now = time.monotonic()
        until, task = self._known.get(host, (0.0, None))
        if task is None or until < now or (task.done() and _failed(task)):
            task = asyncio.create_task(self._resolver.resolve(host))
            self._known.pop(host, None)
            self._known[host] = now + NAMES_KEPT, task
            if len(self._known) > NAMES:
                del self._known[next(iter(self._known))]
        return task

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()


def _failed(task: "asyncio.Task[list[Address]]") -> bool:
    return task.cancelled() or task.exception() is not None


def raise_if_ours(error: OSError) -> None:
    """Let a fault of our own machine, such as too many open files, stop the run."""
    if error.errno in OUR_OWN_FAULTS:
        raise error


class Timeouts(NamedTuple):
    """Seconds."""

    total: float
    connect: float  # for the connection alone


class Connections:
    """A loop's connections; `headers` go with every request, `public` means to no other address."""

    def __init__(self, headers: bytes, public: bool) -> None:
        self.closed = False
        self._headers, self._public = headers, public
        self._names = Names(open_resolver(public))
        self._buffer = memoryview(bytearray(BUFFER))
        self._idle: dict[ConnectionKey, deque[Connection]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()  # 20 ms, which http:// need not wait for

    async def get(self, target: RequestTarget, limit: int, patience: Timeouts) -> HttpResponse:
        """Ask for a URL, whose body may have so many bytes.

        Raises ExchangeError for what the web does, OSError for faults of our own machine.
        """
        request, connection = target.request(self._headers), None
        until = time.monotonic() + patience.total
        try:
            while True:
                connection = self._kept(target.origin)
                if connection is None:
                    connection = await self._connect(target.origin, until, patience.connect)
                with suppress(StaleError):
                    return await connection.ask(request, limit, until - time.monotonic())
        finally:
            if connection is not None:
                self._keep(target.origin, connection)

    async def close(self) -> None:
        """Close all."""
        self.closed = True
        if self._sweeping:
            self._sweeping.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        await self._names.close()

    def _kept(self, origin: ConnectionKey) -> Connection | None:
        kept = self._idle.get(origin)
        while kept:
            connection = kept.pop()
            if not connection.closed:
                return connection
        return None

    def _keep(self, origin: ConnectionKey, connection: Connection) -> None:
        if not connection.reusable or self.closed:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault(origin, deque()).append(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(KEPT, self._sweep)

    def _sweep(self) -> None:
        """Close what was idle for long."""
        self._sweeping, before = None, time.monotonic() - KEPT
        for origin, kept in tuple(self._idle.items()):
            while kept and (kept[0].closed or kept[0].idle_since <= before):
                kept.popleft().close()
            if not kept:
                del self._idle[origin]
        if self._idle:
            self._sweeping = asyncio.get_running_loop().call_later(KEPT, self._sweep)

    async def _connect(self, origin: ConnectionKey, until: float, seconds: float) -> Connection:
        try:
            async with asyncio.timeout(until - time.monotonic()) as limit:
                addresses = await self._names.look_up(origin.host)
                if seconds < until - time.monotonic():
                    limit.reschedule(asyncio.get_running_loop().time() + seconds)
                return await self._connect_to(addresses, origin)
        except TimeoutError as error:
            raise ExchangeError(Reason.TIMEOUT) from error
        except ForbiddenAddressError as error:
            raise ExchangeError(Reason.FORBIDDEN_ADDRESS) from error
        except ssl.SSLError as error:
            raise ExchangeError(Reason.TLS) from error
        except OSError as error:
            raise_if_ours(error)
            raise ExchangeError(Reason.CONNECT) from error

    async def _connect_to(self, addresses: Sequence[Address], origin: ConnectionKey) -> Connection:
        loop, make = asyncio.get_running_loop(), partial(Connection, self._buffer)
        tls = self._tls if origin.tls else None
        name = origin.host if origin.tls else None
        if len(addresses) == 1:  # as most hosts have; the loop does that in half of the time
            address = addresses[0].text
            if self._public:
                check_public(address)
            _, connection = await loop.create_connection(
                make, address, origin.port, ssl=tls, server_hostname=name
            )
            return connection
        connected = await self._first_to_answer(addresses, origin.port)
        with ExitStack() as whatever_fails:
            whatever_fails.callback(connected.close)
            _, connection = await loop.create_connection(
                make, sock=connected, ssl=tls, server_hostname=name
            )
            whatever_fails.pop_all()
        return connection

    async def _first_to_answer(self, addresses: Sequence[Address], port: int) -> socket.socket:
        return await aiohappyeyeballs.start_connection(
            [
                (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port))
                for family, text in addresses
            ],
            happy_eyeballs_delay=SECOND_ADDRESS,
            socket_factory=open_public_socket if self._public else None,
        )
