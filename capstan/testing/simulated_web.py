"""Many virtual hosts on loopback, each with ways of its own, in a process of their own.

    hosts = [Host("a.example", latency=0.25, spread=1.0), Host("b.example", fault=Fault.STALLED)]
    with SimulatedWeb(hosts, log=Path("log.parquet")) as web:
        web.url("a.example", "31039.jpg", row=7)    # http://127.1.0.1:PORT/none/31039.jpg?row=7

A host has an address of 127.0.0.0/8, where nobody but this machine reaches it, and is known there
by its name in the Host header too, for clients whose resolver can be replaced. Paths are those of
`capstan.testing.replies`; by default the picture `N.jpg` is a made-up photo of N bytes. Answers
depend on seed and URL alone, but for rate limits and faults that pass, so runs repeat. The log
tells of every request (`capstan.testing.politeness`); it is written at the end, also when the
client was killed.
"""

import asyncio
import multiprocessing
import resource
import signal
import socket
import ssl
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Self

from capstan.errors import CapstanError, SettingError
from capstan.malloc import keep_memory
from capstan.testing.connection import ServerConnection
from capstan.testing.photolike import Sizes
from capstan.testing.ports import free_port
from capstan.testing.replies import Fault
from capstan.testing.virtual_hosts import VirtualHost, VirtualHosts, WebSpec, address

SPARE_FILES = 512  # for what is no listening socket
START_PATIENCE = 120.0  # seconds, with thousands of certificates or large photos
HOSTS_PER_CERTIFICATE = 16  # short to send, and few to make


class SimulatedWeb:
    """Serves `hosts` while the `with` block runs, then writes the log."""

    def __init__(
        self,
        hosts: Sequence[VirtualHost],
        log: Path | None = None,
        pictures: Mapping[str, bytes] | None = None,
        seed: int = 0,
        slow: float = 1.0,
    ) -> None:
        self.log = log
        self.port = free_port()
        self.addresses = {host.name: address(index) for index, host in enumerate(hosts)}
        self._tls = {host.name for host in hosts if host.tls}
        # What to trust to speak TLS with the hosts.
        self.authority = log.with_suffix(".pem") if log and self._tls else None
        if self._tls and not log:
            raise SettingError(
                "a simulated web with TLS needs a log, to put its certificate beside"
            )
        served = Sizes() if pictures is None else pictures
        self._spec = WebSpec(tuple(hosts), self.port, log, served, seed, slow, self.authority)

    def base(self, host: str, by_name: bool = False) -> str:
        """`scheme://address:port` of a host, or with its name for a client that resolves it."""
        scheme = "https" if host in self._tls else "http"
        return f"{scheme}://{host if by_name else self.addresses[host]}:{self.port}"

    def url(self, host: str, name: str, fault: Fault = Fault.NONE, row: int | None = None) -> str:
        """Address of a picture at a host."""
        query = "" if row is None else f"?row={row}"
        return f"{self.base(host)}/{fault}/{name}{query}"

    @property
    def pid(self) -> int:
        """The serving process."""
        return self._process.pid or 0

    def __repr__(self) -> str:
        return f"<SimulatedWeb of {len(self.addresses)} hosts, port {self.port}>"

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(self._spec, theirs), name="web")
        self._process.start()
        theirs.close()
        said = self._pipe.recv() if self._pipe.poll(START_PATIENCE) else "no sign of life"
        if said is not None:
            self._process.kill()
            raise CapstanError(f"the simulated web did not start: {said}")
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


# The serving process


def serve(spec: WebSpec, pipe: Pipe) -> None:
    """Serve until the other end of the pipe is closed, or SIGTERM."""
    import uvloop

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and so the pipe
    keep_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(spec, pipe))


async def _serve(spec: WebSpec, pipe: Pipe) -> None:
    site = VirtualHosts(spec)
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe.fileno(), stopped.set)
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    try:
        raise_file_limit(len(spec.hosts))
        servers = await _listen(spec, site)
    except (OSError, CapstanError) as error:
        pipe.send(str(error))
        return
    pipe.send(None)
    await stopped.wait()
    for server in servers:
        server.close()
    site.write_log()


def raise_file_limit(hosts: int) -> None:
    """Let this process have a socket for each host; raises SettingError where that is too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hosts + SPARE_FILES > hard:
        raise SettingError(f"{hosts:,} hosts need more open files than the {hard:,} allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))


async def _listen(spec: WebSpec, site: VirtualHosts) -> list[asyncio.Server]:
    loop = asyncio.get_running_loop()
    contexts = certificates(spec)
    servers = []
    for index, host in enumerate(spec.hosts):
        if host.listens:
            listening = socket.socket()
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address(index), spec.port))
            context = contexts.get(index)
            servers.append(
                await loop.create_server(
                    lambda: ServerConnection(site), sock=listening, backlog=1024, ssl=context
                )
            )
    return servers


def certificates(spec: WebSpec) -> dict[int, ssl.SSLContext]:
    """TLS contexts by host number; a certificate serves some hosts, by address and by name."""
    numbers = [index for index, host in enumerate(spec.hosts) if host.tls]
    if not numbers or spec.authority is None:
        return {}
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(spec.authority))
    contexts: dict[int, ssl.SSLContext] = {}
    for start in range(0, len(numbers), HOSTS_PER_CERTIFICATE):
        group = numbers[start : start + HOSTS_PER_CERTIFICATE]
        names = [spec.hosts[index].name for index in group]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*map(address, group), *names).configure_cert(context)
        contexts |= dict.fromkeys(group, context)
    return contexts
