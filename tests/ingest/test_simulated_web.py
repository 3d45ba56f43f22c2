import asyncio
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import CapstanError, SettingError
from capstan.testing.politeness import treatments, violations
from capstan.testing.replies import Fault
from capstan.testing.simulated_web import SimulatedWeb, raise_file_limit
from capstan.testing.virtual_hosts import RateLimit, VirtualHost, latency

BODY = b"picture" * 100
PICTURES = {"cat.jpg": BODY}
HOSTS = [
    VirtualHost("plain.example"),
    VirtualHost("dead.example", fault=Fault.STALLED),
    VirtualHost("tar.example", bandwidth=100.0),
    VirtualHost("reset.example", fault=Fault.RESET),
    VirtualHost("broken.example", fault=Fault.BROKEN),
    VirtualHost("gone.example", listens=False),
    VirtualHost("one-shot.example", keep_alive=False),
    VirtualHost("tls.example", tls=True),
    VirtualHost("robots.example", robots="User-agent: *\nDisallow: /\n"),
    VirtualHost("moved.example", moved_to="http://elsewhere.example"),
]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedWeb]:
    with SimulatedWeb(HOSTS, tmp_path_factory.mktemp("web") / "log.parquet", PICTURES) as served:
        yield served


async def read(
    url: str, host: str | None = None, trust: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    headers = {"Host": host} if host else {}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(url, ssl=trust or True, allow_redirects=False) as response,
    ):
        return response.status, await response.read()


async def test_a_picture_under_the_address_and_under_the_name_of_a_host(web: SimulatedWeb) -> None:
    assert await read(web.url("plain.example", "cat.jpg", row=1)) == (200, BODY)
    assert (await read(web.url("plain.example", "dog.jpg")))[0] == 404
    assert (await read(web.url("plain.example", "cat.jpg", Fault.NOT_FOUND)))[0] == 404
    assert (await read(f"{web.base('plain.example')}/418/cat.jpg"))[0] == 418
    status, _ = await read(web.url("plain.example", "cat.jpg"), host="broken.example")
    assert status == 500
    assert web.base("plain.example", by_name=True) == f"http://plain.example:{web.port}"


async def test_a_dead_host_takes_requests_and_never_answers(web: SimulatedWeb) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await read(web.url("dead.example", "cat.jpg"))


async def test_a_trickling_host_begins_and_does_not_get_far(web: SimulatedWeb) -> None:
    heard = b""
    async with (
        aiohttp.ClientSession() as session,
        session.get(web.url("tar.example", "cat.jpg")) as response,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                async for piece in response.content.iter_any():
                    heard += piece
    assert 0 < len(heard) < len(BODY) / 2
    assert BODY.startswith(heard)


async def test_a_slow_body_is_whole_for_a_client_that_leaves_with_its_last_byte(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.parquet"
    with SimulatedWeb([VirtualHost("host.example", bandwidth=10_000.0)], log, PICTURES) as web:
        began = time.monotonic()
        assert await read(web.url("host.example", "cat.jpg")) == (200, BODY)
        assert time.monotonic() - began > 0.06  # 700 bytes
    assert pq.read_table(log)["whole"].to_pylist() == [True]


async def test_hosts_that_hang_up_or_do_not_listen(web: SimulatedWeb) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await read(web.url("reset.example", "cat.jpg"))
    with pytest.raises(aiohttp.ClientConnectorError):
        await read(web.url("gone.example", "cat.jpg"))


async def test_robots_and_redirects_to_another_host(web: SimulatedWeb) -> None:
    assert await read(f"{web.base('robots.example')}/robots.txt") == (
        200,
        b"User-agent: *\nDisallow: /\n",
    )
    assert (await read(f"{web.base('plain.example')}/robots.txt"))[0] == 404
    url = web.url("moved.example", "cat.jpg", row=3)
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, allow_redirects=False) as response,
    ):
        assert response.status == 302
        assert response.headers["Location"] == "http://elsewhere.example/none/cat.jpg?row=3"


async def test_connections_are_kept_where_the_host_keeps_them(web: SimulatedWeb) -> None:
    for host, kept in (("plain.example", True), ("one-shot.example", False)):
        reader, writer = await asyncio.open_connection(web.addresses[host], web.port)
        request = f"GET /none/cat.jpg HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        writer.write(request * 2)  # pipelined
        writer.write_eof()
        answers = (await reader.read()).count(BODY)
        writer.close()
        assert answers == (2 if kept else 1)


async def test_tls_by_a_certificate_of_its_own(web: SimulatedWeb) -> None:
    url = web.url("tls.example", "cat.jpg")
    assert url.startswith("https://127.")
    trust = ssl.create_default_context(cafile=str(web.authority))
    assert await read(url, trust=trust) == (200, BODY)
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await read(url)


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_rate_limit_answers_429_and_says_how_long_to_wait(as_date: bool) -> None:
    limit = RateLimit(2, retry_after=30.0, as_date=as_date)
    with SimulatedWeb([VirtualHost("busy.example", limit=limit)], pictures=PICTURES) as web:
        async with aiohttp.ClientSession() as session:
            said = []
            for row in range(5):  # within two seconds: at most four are allowed
                async with session.get(web.url("busy.example", "cat.jpg", row=row)) as response:
                    said.append((response.status, response.headers.get("Retry-After")))
    assert said[0] == (200, None)
    refused = [after for status, after in said if status == 429]
    assert refused
    for after in refused:
        assert after is not None
        if as_date:
            left = parsedate_to_datetime(after).timestamp() - time.time()
            assert 28 < left <= 31
        else:
            assert after == "30"


async def test_the_log_sees_a_client_that_does_not_behave(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    hosts = [
        VirtualHost("slow.example", latency=0.2),
        VirtualHost("busy.example", limit=RateLimit(0, 30.0)),
        VirtualHost("fine.example"),
    ]
    with SimulatedWeb(hosts, log, PICTURES) as web:
        slow = [read(web.url("slow.example", "cat.jpg", row=row)) for row in range(4)]
        await asyncio.gather(*slow, read(web.url("fine.example", "cat.jpg")))
        await read(web.url("busy.example", "cat.jpg"))
        await read(web.url("busy.example", "cat.jpg"))
    seen = {host.host: host for host in treatments(log, grace=0.0)}
    assert seen["slow.example"].most_in_flight == seen["slow.example"].most_connections == 4
    assert (seen["busy.example"].requests, seen["busy.example"].too_early) == (2, 1)
    assert violations(log, 4, grace=60.0) == []
    assert [violation.host for violation in violations(log, 3, grace=60.0)] == ["slow.example"]
    assert [violation.host for violation in violations(log, 4, grace=0.0)] == ["busy.example"]


async def test_faults_that_pass_do_so_by_address_and_are_told_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    with SimulatedWeb([VirtualHost("host.example")], log, PICTURES) as web:
        for row in (1, 2):
            url = web.url("host.example", "cat.jpg", Fault.BUSY, row)
            assert [(await read(url))[0] for _ in range(3)] == [429, 200, 200]
    [host] = treatments(log, grace=0.0)
    assert host.too_early == 5  # all but the first
    assert pq.read_table(log)["whole"].to_pylist() == [True] * 6


@pytest.mark.parametrize("victim", ["client", "web"])
async def test_the_log_is_written_also_when_one_side_is_killed(tmp_path: Path, victim: str) -> None:
    log = tmp_path / "log.parquet"
    with SimulatedWeb([VirtualHost("dead.example", fault=Fault.STALLED)], log, PICTURES) as web:
        asking = asyncio.create_task(read(web.url("dead.example", "cat.jpg")))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.1)
        if victim == "client":
            asking.cancel()
        else:
            os.kill(web.pid, signal.SIGTERM)
        with pytest.raises((asyncio.CancelledError, aiohttp.ClientError)):
            await asking
    [host] = treatments(log)
    assert (host.requests, host.most_in_flight) == (1, 1)
    assert pq.read_table(log)["whole"].to_pylist() == [False]


async def test_a_thousand_hosts() -> None:
    hosts = [VirtualHost(f"host-{number}.example") for number in range(1_000)]
    with SimulatedWeb(hosts, pictures=PICTURES) as web:
        assert len(set(web.addresses.values())) == 1_000
        for number in (0, 255, 256, 999):
            assert await read(web.url(f"host-{number}.example", "cat.jpg")) == (200, BODY)


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(SettingError, match="needs a log"):
        SimulatedWeb([VirtualHost("tls.example", tls=True)])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(SettingError, match=f"{hard:,} hosts need more open files"):
        raise_file_limit(hard)
    web = SimulatedWeb([VirtualHost("host.example")], pictures=PICTURES)
    with (
        socket.create_server((web.addresses["host.example"], web.port)),
        pytest.raises(CapstanError, match=r"did not start: .*in use"),
    ):
        web.__enter__()


@given(st.text(), st.integers(0, 9))
def test_latency_depends_on_seed_host_and_path_alone(path: str, seed: int) -> None:
    host = VirtualHost("host.example", latency=0.2, spread=1.0)
    assert latency(host, seed, path) == latency(host, seed, path) > 0
    assert latency(VirtualHost("flat.example", latency=0.2), seed, path) == 0.2


def test_latency_has_the_median_and_the_spread_that_were_asked_for() -> None:
    host = VirtualHost("host.example", latency=0.2, spread=1.0)
    drawn = sorted(latency(host, 0, f"/none/cat.jpg?row={row}") for row in range(2_000))
    assert 0.18 < drawn[1_000] < 0.22
    assert 2.3 < drawn[1_682] / drawn[1_000] < 3.2  # e, one sigma up
    assert drawn != sorted(latency(host, 1, f"/none/cat.jpg?row={row}") for row in range(2_000))
