import asyncio
import gc
import os
import ssl
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from capstan.ingest.config import HttpOptions as Settings
from capstan.ingest.http.connection import Connection
from capstan.ingest.http.fetch import (
    Fetched,
    Redirect,
    fetch,
    forbids_training,
    open_connections,
    opts_out,
    redirect,
    status_reason,
    user_agent,
)
from capstan.ingest.http.pool import PLAIN, parse, parse_any
from capstan.records import Failure, Reason
from capstan.testing.web import Fault, Web

LOCAL = Settings(allow_private=True)


async def get(url: str, settings: Settings = LOCAL, seconds: float = 20.0) -> Fetched:
    async with open_connections(settings) as connections:
        return await fetch(connections, url, settings, seconds)


Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server whose connections end with it."""
    tasks = []

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        with suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)
    async with server:
        scheme = "https" if tls else "http"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    await asyncio.gather(*(task for task in tasks if task))


@asynccontextmanager
async def raw_server(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers every request with the same bytes and closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(answer)
        await writer.drain()

    async with serving(handle, tls) as url:
        yield url


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


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.GZIPPED, Fault.TRUNCATED, Fault.RESET])
def test_uvloop_gives_the_same(web: Web, fault: Fault) -> None:
    urls = [web.url(name, fault) for name in ("wide.jpg", "flat.bmp")]
    results = [[runner.run(get(url)) for url in urls] for runner in runners()]
    assert results[0] == results[1]


def runners() -> Iterator[asyncio.Runner]:
    for factory in (uvloop.new_event_loop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            yield runner


def test_pictures_come_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    body = os.urandom(300_000)

    async def ask(name: str) -> list[Fetched]:
        async with raw_server(b"HTTP/1.0 200 OK\r\n\r\n" + body, context) as url:
            url = url.replace("127.0.0.1", name)
            return [await get(url), await get(url)]

    for runner in runners():
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        assert {fetched.result for fetched in runner.run(ask("localhost"))} == {TLS}
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert {fetched.result for fetched in runner.run(ask("localhost"))} == {body}
        assert {fetched.result for fetched in runner.run(ask("127.0.0.1"))} == {TLS}


TLS = Failure(Reason.TLS)


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize(("answers", "connections"), [(9, 1), (1, 4)])
async def test_a_connection_is_used_again_and_replaced_when_it_was_closed(
    answers: int, connections: int, status: int
) -> None:
    opened = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        for _ in range(answers):
            await reader.read(1_000)
            writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: 1\r\n\r\nx" % status)
        await reader.read(1_000)  # of the next, which it does not answer

    async with serving(handle) as url, open_connections(LOCAL) as opener:
        for _ in range(4):
            assert (await fetch(opener, url, LOCAL, 20.0)).status == status
    assert opened == connections


def test_no_picture_is_held_once_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by connections that idle, nor by those that are closed: there may be thousands."""
    made: list[weakref.ref[Connection]] = []

    def connection(buffer: memoryview) -> Connection:
        new = Connection(buffer)
        made.append(weakref.ref(new))
        return new

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for word in (b"keep-alive", b"close"):
            await reader.read(1_000)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: %s\r\n\r\n"
            writer.write(head % word + b"a picture")

    async def ask() -> None:
        async with serving(handle) as url, open_connections(LOCAL) as opener:
            fetched = await fetch(opener, url, LOCAL, 20.0)
            await asyncio.sleep(0)  # what woke us holds it as long as we do not wait
            holders = sys.getrefcount(fetched.result)
            assert holders == 2  # `fetched` and the call
            assert [ref() is not None for ref in made] == [True]
            await fetch(opener, url, LOCAL, 20.0)
            for _ in range(10):
                await asyncio.sleep(0)  # closing takes the loop a few turns
            assert made[0]() is None

    monkeypatch.setattr("capstan.ingest.http.pool.Connection", connection)
    gc.disable()
    try:
        for runner in runners():
            made.clear()
            runner.run(ask())
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [2, 300_000])
async def test_a_body_over_the_limit_is_not_read(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    for limit, result in ((size, b"x" * size), (size - 1, Failure(Reason.TOO_LARGE))):
        async with raw_server(head + b"x" * size) as url:
            fetched = await get(url, replace(LOCAL, max_bytes=limit))
        assert fetched.result == result


async def test_endless_headers_are_not_read() -> None:
    async with raw_server(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000) as url:
        assert (await get(url)).result == Failure(Reason.PROTOCOL)


async def test_news_before_the_answer_is_skipped() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\npicture"
    async with raw_server(answer) as url:
        fetched = await get(url)
    assert (fetched.status, fetched.result) == (200, b"picture")


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20))
def test_a_plain_url_is_taken_apart_as_any_other(path: str) -> None:
    url = f"http://h.test:81/{path}"
    if PLAIN.fullmatch(url):
        assert parse(url) == parse_any(URL(url))


@given(st.text(max_size=40))
def test_no_url_makes_more_than_one_line_of_its_own(text: str) -> None:
    with suppress(ValueError):
        request = parse(text).request(b"\r\n")
        assert request.count(b"\n") == 3 + (b"Authorization" in request)


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

    monkeypatch.setattr("capstan.ingest.http.addresses.PublicResolver.resolve", resolve)
    fetched = await get("http://Bücher.example/ü.jpg", Settings())
    assert (fetched.result, asked) == (Failure(Reason.DNS), ["xn--bcher-kva.example"])


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
