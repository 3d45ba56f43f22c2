import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from benchmarks.web import Fault, Web
from ingest.config import Web as Settings
from ingest.fetch import (
    Fetched,
    Redirect,
    fetch,
    forbids_training,
    open_session,
    opts_out,
    reason_of,
    redirect,
    status_reason,
    user_agent,
)
from pipeline.records import Failure, Reason

LOCAL = Settings(allow_private=True)


async def get(url: str, settings: Settings = LOCAL, seconds: float = 20.0) -> Fetched:
    async with open_session(settings) as session:
        return await fetch(session, url, settings, seconds)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """A server that answers every request with the same bytes and closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_a_picture_comes_whole(web: Web, pictures: dict[str, bytes]) -> None:
    url = web.url("wide.jpg")
    assert await get(url) == Fetched(200, url, pictures["wide.jpg"])
    assert web.log[0].agent.startswith("capstan/")


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        (Fault.NOT_FOUND, 404, Reason.NOT_FOUND),
        (Fault.DENIED, 403, Reason.DENIED),
        (Fault.BROKEN, 500, Reason.SERVER_ERROR),
        (Fault.OVERLOADED, 429, Reason.RATE_LIMITED),
        (Fault.TRUNCATED, 200, Reason.DISCONNECTED),
        (Fault.RESET, None, Reason.DISCONNECTED),
        (Fault.EMPTY, 200, Reason.EMPTY_BODY),
        (Fault.OPTED_OUT, 200, Reason.OPTED_OUT),
    ],
)
async def test_faults(web: Web, fault: Fault, status: int | None, reason: Reason) -> None:
    fetched = await get(web.url("wide.jpg", fault))
    assert fetched.result == Failure(reason)
    assert fetched.status == status
    assert fetched.retry_after == ("86400" if fault is Fault.OVERLOADED else None)


@pytest.mark.parametrize("fault", [Fault.STALLED, Fault.TRICKLE])
async def test_the_whole_attempt_has_a_deadline(web: Web, fault: Fault) -> None:
    fetched = await get(web.url("wide.jpg", fault), seconds=0.2)
    assert fetched.result == Failure(Reason.TIMEOUT)


async def test_a_redirect_says_where_to(web: Web) -> None:
    url = web.url("wide.jpg", Fault.REDIRECT)
    fetched = await get(url)
    assert (fetched.status, fetched.url) == (302, url)
    assert fetched.result == Redirect(f"{url}?hop=1")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b c?d#e", "http://a.test/b%20c?d#e"),
        ("//b.test/ü", "http://b.test/%C3%BC"),
        ("https://b.test", "https://b.test"),
        ("HTTP://B.test/", "http://b.test/"),
        ("", None),
        ("file:///etc/passwd", None),
        ("data:image/png;base64,AA==", None),
        ("javascript:1", None),
        ("ftp://b.test/", None),
        ("http://", None),
        ("http://[::1", None),
    ],
)
def test_redirects_lead_to_http_only(location: str, target: str | None) -> None:
    expected = Redirect(target) if target else Failure(Reason.REDIRECTS)
    assert redirect(URL("http://a.test/x/y"), location) == expected


async def test_bodies_are_unpacked_and_capped_unpacked(
    web: Web, pictures: dict[str, bytes]
) -> None:
    url, size = web.url("flat.bmp", Fault.GZIPPED), len(pictures["flat.bmp"])
    fetched = await get(url, Settings(allow_private=True, max_bytes=size))
    assert fetched.result == pictures["flat.bmp"]
    for fault in (Fault.GZIPPED, Fault.NONE):
        capped = Settings(allow_private=True, max_bytes=size - 1)
        assert (await get(web.url("flat.bmp", fault), capped)).result == Failure(Reason.TOO_LARGE)


async def test_opting_out_can_be_ignored(web: Web) -> None:
    settings = Settings(allow_private=True, ignore_opt_out=True)
    fetched = await get(web.url("wide.jpg", Fault.OPTED_OUT), settings)
    assert isinstance(fetched.result, bytes)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
async def test_private_addresses_are_not_connected_to(web: Web, host: str) -> None:
    port = web.address.rpartition(":")[2]
    fetched = await get(f"http://{host}:{port}/none/wide.jpg", Settings())
    refused = Reason.BAD_URL if host.isdecimal() else Reason.FORBIDDEN_ADDRESS
    assert fetched.result == Failure(refused)
    assert web.log == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", Reason.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Reason.PROTOCOL),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Encoding: gzip\r\n\r\nabcd",
            Reason.PROTOCOL,
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Reason.PROTOCOL),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            Reason.DISCONNECTED,
        ),
        (b"", Reason.DISCONNECTED),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", Reason.REDIRECTS),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", Reason.REDIRECTS),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n", Reason.REDIRECTS),
        (b"HTTP/1.1 302 Found\r\nLocation: http://\r\n\r\n", Reason.REDIRECTS),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", Reason.UNEXPECTED_STATUS),
        (b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n", Reason.CLIENT_ERROR),
        (b"HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n", Reason.TIMEOUT),
        (b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n", Reason.UNEXPECTED_STATUS),
    ],
)
async def test_answers_that_break_the_protocol(answer: bytes, reason: Reason) -> None:
    async with raw_server(answer) as url:
        assert (await get(url)).result == Failure(reason)


async def test_nobody_listens() -> None:
    async with raw_server(b"") as url:
        pass
    assert (await get(url)).result == Failure(Reason.CONNECT)


async def test_no_tls_there() -> None:
    async with raw_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        fetched = await get(url.replace("http:", "https:"))
    assert fetched.result == Failure(Reason.TLS)


@pytest.mark.parametrize(
    "path", ["a b.jpg", "ü.jpg", "%zz", "a%20b", "a\\b", "100%", "?q=a b&c", "#x", "\u202e", "//"]
)
async def test_odd_paths_are_asked_for(web: Web, path: str) -> None:
    fetched = await get(f"{web.address}/none/{path}")
    assert fetched.status == 404
    assert len(web.log) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://exa mple.test/",
        f"http://{'a' * 64}.test/",
        f"http://{'a.' * 200}test/",
        "http://a..test/",
        "http://xn--\u00fc.test/",
        "http://\u2100.test/",
        "http://user\u0100:word@127.0.0.1:1/",
        "http://127.0.0.1:0/",
        "http://%zz/",
        "http://[fe80::1%25eth9]/",
        "http://-/",
    ],
)
async def test_odd_hosts_end_as_a_reason(url: str) -> None:
    assert isinstance((await get(url)).result, Failure)


async def test_names_of_other_scripts_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def resolve(self: object, host: str, *_: object, **more: object) -> list[object]:
        asked.append(host)
        raise OSError("no such host")

    monkeypatch.setattr("ingest.addresses.PublicResolver.resolve", resolve)
    fetched = await get("http://Bücher.example/ü.jpg", Settings())
    assert (fetched.result, asked) == (Failure(Reason.DNS), ["xn--bcher-kva.example"])


def test_faults_of_our_own_machine_are_raised() -> None:
    with pytest.raises(OSError, match="Too many open files"):
        reason_of(OSError(errno.EMFILE, "Too many open files"))
    assert reason_of(OSError(errno.ECONNRESET, "reset")) is Reason.DISCONNECTED
    assert reason_of(aiohttp.ServerTimeoutError()) is Reason.TIMEOUT


def test_every_status_has_a_meaning() -> None:
    fine = [status for status in range(100, 1000) if status_reason(status) is None]
    assert fine == list(range(200, 300))


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("noai", True),
        ("noindex, NoImageAI", True),
        ("capstan: noai", True),
        ("*: noimageai", True),
        ("otherbot: noai", False),
        ("otherbot: noindex, noai", False),
        ("otherbot: noindex, capstan: noai", True),
        ("unavailable_after: 25 Jun 2030 15:00:00 GMT, noai", True),
        ("noaim", False),
        ("", False),
    ],
)
def test_opting_out(tag: str, expected: bool) -> None:
    assert opts_out(tag) is expected


@pytest.mark.parametrize(
    ("preferences", "expected"),
    [
        ("train-ai=n", True),
        ("bots=y, Train-AI = n;x=1", True),
        ("train-ai=y", False),
        ("train-ai=n2, search=n", False),
        ("", False),
    ],
)
def test_content_usage(preferences: str, expected: bool) -> None:
    assert forbids_training(preferences) is expected


def test_the_user_agent_is_honest() -> None:
    assert "capstan/" in user_agent(Settings())
    assert "+me@example.com" in user_agent(Settings(contact="me@example.com"))
    assert user_agent(Settings(user_agent="mine")) == "mine"
