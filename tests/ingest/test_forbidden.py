"""Forms of address that must never be connected to, by the log of those who listen there."""

import asyncio
import itertools
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from capstan.chunks import find_chunks
from capstan.ingest.config import HttpOptions as WebSettings
from capstan.ingest.config import IngestSettings
from capstan.ingest.http import addresses
from capstan.ingest.messages import Told
from capstan.ingest.resources import PoolInfo
from capstan.ingest.work import work
from capstan.shards import read_outcomes
from tests.ingest.conftest import write_chunk

OPEN = "127.0.0.2"  # counts as public in these tests, to redirect from and to rebind from
REFUSED = {"forbidden_address", "bad_url", "redirects", "dns", "not_found"}
HOSTS = re.findall(
    r"\S+",
    """
    127.0.0.1 127.1 127.0.1 127.000.000.001 127.0.0.1. 2130706433 017700000001 0177.0.0.1
    0x7f000001 0x7f.0.0.1 0x7f.1 0x7F.0x0.0x0.0x1 00000000177.0.0.1 127.0.0.53 127.255.255.254
    0 0.0.0.0 00 0x0 0.0 [::1] [0:0:0:0:0:0:0:1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1]
    [0:0:0:0:0:ffff:127.0.0.1] [::127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1]
    [2002:7f00:1::] [::ffff:0:127.0.0.1] [::1%25lo] [fe80::1%25lo] localhost LOCALHOST localhost.
    localhost.localdomain ip6-localhost %6c%6f%63%61%6c%68%6f%73%74 127%2e0%2e0%2e1
    user@127.0.0.1 user:word@localhost 8.8.8.8@127.0.0.1 name.test twice.test
    """,
)
HOSTS += ["\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1"]
SCHEMES = ["file:///etc/passwd", "FILE:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/"]
SCHEMES += ["data:image/png;base64,AA==", "ws://127.0.0.1/", "unix:///run/x.sock", "//127.0.0.1/"]
SCHEMES += ["http:127.0.0.1", "http:///127.0.0.1/", "jar:http://127.0.0.1!/", "\\\\127.0.0.1\\x"]


@dataclass
class Listener:
    """Listens where nothing should come in, and at OPEN, which redirects to what the path says."""

    port: int = 0
    targets: list[str] = field(default_factory=list)
    redirected: int = 0
    came_in: list[object] = field(default_factory=list)

    async def forbidden(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came_in.append(writer.get_extra_info("sockname"))
        writer.close()

    async def redirect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        number = path.removeprefix("/")
        answer = "404 Not Found"  # to a target that is taken for a path of ours
        if number.isdecimal():
            self.redirected += 1
            answer = f"302 Found\r\nLocation: {self.targets[int(number)]}"
        writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def listener(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listener]:
    made = Listener()
    opened = await asyncio.start_server(made.redirect, OPEN, 0)
    made.port = opened.sockets[0].getsockname()[1]
    places = ["127.0.0.1", "127.0.0.53", "127.255.255.254", *(["::1"] if socket.has_ipv6 else [])]
    closed = await asyncio.start_server(made.forbidden, places, made.port)
    really = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda ip: ip == OPEN or really(ip))
    monkeypatch.setattr(addresses, "DefaultResolver", Rebinding)
    async with opened, closed:
        yield made


class Rebinding:
    """`twice.test` is public when first asked and private from then on; others are private."""

    asked = itertools.count()

    async def resolve(self, host: str) -> list[addresses.Address]:
        first = host == "twice.test" and next(self.asked) == 0
        return [addresses.Address(socket.AF_INET, OPEN if first else "127.0.0.1")]

    async def close(self) -> None:
        pass


async def reasons(settings: IngestSettings, urls: list[str]) -> list[str | None]:
    write_chunk(settings, "0", [("a", url) for url in urls])
    told: list[Told] = []
    wary = IngestSettings(
        settings.input, settings.output, web=WebSettings(), patience=settings.patience
    )
    await work(find_chunks(settings.input), wary, PoolInfo(), told.append)
    rows = read_outcomes(settings.output / "0.parquet").to_pylist()
    return [row["reason"] for row in rows]


async def test_no_form_of_a_forbidden_address_is_connected_to(
    settings: IngestSettings, listener: Listener
) -> None:
    listener.targets = ["http://127.0.0.1/"]
    urls = [f"http://{host}:{listener.port}/0" for host in HOSTS] + SCHEMES
    urls += [f"https://{host}:{listener.port}/" for host in HOSTS[:3]]
    found = await reasons(settings, urls)
    assert {
        url: reason for url, reason in zip(urls, found, strict=True) if reason not in REFUSED
    } == {}
    assert listener.came_in == []
    assert len(urls) >= 60


async def test_no_redirect_leads_to_a_forbidden_address(
    settings: IngestSettings, listener: Listener
) -> None:
    listener.targets = [f"http://{host}:{listener.port}/" for host in HOSTS] + SCHEMES
    listener.targets += [f"//127.0.0.1:{listener.port}/", f"http:\\\\127.0.0.1:{listener.port}/"]
    urls = [f"http://{OPEN}:{listener.port}/{number}" for number in range(len(listener.targets))]
    found = await reasons(settings, urls)
    ends = zip(listener.targets, found, strict=True)
    assert [pair for pair in ends if pair[1] not in REFUSED] == []
    assert listener.came_in == []
    assert listener.redirected >= len(urls)
