"""The instruments of `benchmarks.ingestd` see what they say they see."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from benchmarks.clients import Answers
from benchmarks.ingestd_jobs import check
from benchmarks.ingestd_memory import MemorySample, print_samples
from benchmarks.ingestd_service import SentJob, ServiceProcess, follow, submit
from capstan.errors import CapstanError

JOB = SentJob("a.tsv", b"one\thttp://a.test/1\ntwo\thttp://a.test/2\n", 1, {"check": "header"})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def client_of(method: str, path: str, handler: Handler) -> AsyncIterator[ClientSession]:
    """A client of a server with one route."""
    app = web.Application()
    app.router.add_route(method, path, handler)
    async with TestServer(app) as server, ClientSession(str(server.make_url("/"))) as session:
        yield session


async def test_a_submission_waits_as_it_is_told() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((dict(request.query), request.content_type, await request.read()))
        if len(asked) < 3:
            return web.json_response({"error": "wait"}, status=429, headers={"Retry-After": "0"})
        return web.json_response({"id": "1"}, status=201)

    answers = Answers()
    async with client_of("POST", "/api/jobs", answer) as session:
        assert await submit(session, JOB, answers) == {"id": "1"}
    query = {"name": "a.tsv", "rows_per_chunk": "1", "check": "header"}
    assert asked == [(query, "text/tab-separated-values", JOB.tsv)] * 3
    assert (answers.count(429), answers.count(201)) == (2, 1)


async def test_a_submission_that_is_refused_says_why() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"error": "no room"}, status=507)

    async with client_of("POST", "/api/jobs", answer) as session:
        with pytest.raises(CapstanError, match=r"a\.tsv: answered 507, no room"):
            await submit(session, JOB)


async def test_a_stream_that_breaks_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ingestd_service.RECONNECT", 0)
    streams = [
        b'retry: 1000\n\nevent: job\nid: 1\ndata: {"done": 1}\n\n: alive\n\nevent: end\ndata: {"do',
        b'event: job\ndata: {"done": 1}\n\nevent: end\ndata: {"done":\ndata: 2}\n\n',
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(streams.pop(0))
        if streams and request.transport:
            request.transport.abort()
        return response

    async with client_of("GET", "/api/jobs/{id}/events", answer) as session:
        followed = await follow(session, "7")
    assert (followed.job, followed.connections, followed.ended) == ({"done": 2}, 2, True)


@pytest.mark.parametrize(
    ("urls", "status"),
    [
        (["http://a.test/1"], "success"),
        (["http://a.test/1", "http://a.test/2", "http://a.test/2"], "success"),
        (["http://a.test/2", "http://a.test/1"], "success"),
        (["http://a.test/1", "http://a.test/2"], "failed"),
    ],
    ids=["lost", "doubled", "swapped", "failed"],
)
async def test_a_job_with_other_rows_is_found(urls: list[str], status: str) -> None:
    async with client_of("GET", "/api/jobs/7/outcomes.parquet", parquet(urls, status)) as session:
        with pytest.raises(CapstanError, match=r"a\.tsv: 2 rows, \d outcomes"):
            await check(session, [({"id": "7"}, JOB)])


async def test_a_job_with_its_rows_passes() -> None:
    handler = parquet(["http://a.test/1", "http://a.test/2"], "success")
    async with client_of("GET", "/api/jobs/7/outcomes.parquet", handler) as session:
        await check(session, [({"id": "7"}, JOB)])


def parquet(urls: list[str], status: str) -> Handler:
    """Answers with a table of outcomes."""
    file = io.BytesIO()
    pq.write_table(pa.table({"url": urls, "status": [status] * len(urls)}), file)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=file.getvalue())

    return answer


def test_memory_is_told_by_tenths_of_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    mib = 1 << 20
    samples = [MemorySample(done, (100 + done) * mib, 50 * mib) for done in (0, 9, 10, 99, 100)]
    print_samples(samples, 100)
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[2:] == [
        "| to 10 | 109 MiB | 1.00 x | 50 MiB |",
        "| to 20 | 110 MiB | 1.01 x | 50 MiB |",
        "| to 100 | 199 MiB | 1.83 x | 50 MiB |",
    ]


def test_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(CapstanError, match=r"the service did not start:\n(.*\n)*.*--no-such-flag"):
        ServiceProcess(tmp_path / "data", ("--no-such-flag",)).__enter__()
