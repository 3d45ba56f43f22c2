"""The API of a real service: what it takes, what it refuses, and that it tells the truth."""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import ClientSession
from PIL import Image
from yarl import URL

from benchmarks.ingestd_service import ServiceProcess, events, follow
from capstan.testing.web import Web
from tests.ingest.service.running import done, lines, session, tsv, web

__all__ = ["session", "web"]  # fixtures

TSV = {"Content-Type": "text/tab-separated-values"}
JSON = {"Content-Type": "application/json"}


def place(service: ServiceProcess) -> tuple[str, int]:
    """Where it listens."""
    return "127.0.0.1", int(service.url.rpartition(":")[2])


async def connect(service: ServiceProcess) -> asyncio.StreamWriter:
    return (await asyncio.open_connection(*place(service)))[1]


async def get(session: ClientSession, path: str) -> Any:
    async with session.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def jobs(session: ClientSession) -> list[Any]:
    """All of them, once those of other tests have ended."""
    while True:
        found = (await get(session, "/api/jobs?limit=1000"))["jobs"]
        if not any(job["state"] in ("queued", "running") for job in found):
            return list(found)


async def test_a_job_from_its_tsv_to_its_pictures(session: ClientSession, web: Web) -> None:
    rows = lines(web, 40)
    job = await done(session, rows)
    assert (job["state"], job["rows"], job["done"], job["images"]) == ("done", 40, 40, 30)
    assert job["failures"] == {"not_found": 10}
    assert (job["chunks"], job["shards"], job["delivered"]) == (4, 4, None)
    assert await get(session, job["links"]["self"]) == job

    found = await get(session, f"{job['links']['outcomes']}?limit=1000")
    assert found["next"] is None
    assert [(each["caption"], each["url"]) for each in found["outcomes"]] == rows
    async with session.get(f"{job['links']['self']}/outcomes.parquet") as response:
        assert response.content_type == "application/vnd.apache.parquet"
        table = pq.read_table(io.BytesIO(await response.read()))
    assert table["url"].to_pylist() == [url for _, url in rows]

    pictures = (await get(session, f"{job['links']['pictures']}?limit=7"))["pictures"]
    assert len(pictures) == 7
    async with session.get(pictures[0]["url"]) as response:
        assert response.content_type == "image/jpeg"
        assert Image.open(io.BytesIO(await response.read())).size == (48, 32)


async def test_failures_come_a_page_at_a_time(session: ClientSession, web: Web) -> None:
    job = await done(session, lines(web, 40, 1000))
    found: list[str] = []
    after = ""
    while True:
        page = await get(
            session,
            f"{job['links']['outcomes']}?reason=not_found&limit=3{after and '&after='}{after}",
        )
        found += [each["caption"] for each in page["outcomes"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert found == [f"picture {number}" for number in range(0, 40, 4)]
    ok = await get(session, f"{job['links']['outcomes']}?status=success&limit=1000")
    assert len(ok["outcomes"]) == 30


async def test_shards_are_files_to_download(session: ClientSession, web: Web) -> None:
    job = await done(session, lines(web, 30, 2000))
    first = await get(session, f"{job['links']['shards']}?limit=2")
    rest = await get(session, f"{job['links']['shards']}?after={first['next']}")
    shards = first["shards"] + rest["shards"]
    assert rest["next"] is None
    assert [shard["chunk"] for shard in shards] == [f"web.tsv/{n:016x}" for n in range(3)]
    assert sum(shard["images"] for shard in shards) == job["images"]
    for file in shards[1]["files"]:
        async with session.get(file["url"]) as response:
            data = await response.read()
            assert response.headers["Content-Disposition"] == "attachment"
        assert len(data) == file["bytes"]
        assert file["sha256"] in (None, hashlib.sha256(data).hexdigest())
        part = {"Range": "bytes=5-9"}
        async with session.get(file["url"], headers=part) as response:
            assert (response.status, await response.read()) == (206, data[5:10])
        beyond = {"Range": f"bytes={len(data)}-"}
        async with session.get(file["url"], headers=beyond) as response:
            assert response.status == 416


@pytest.mark.parametrize(
    "name",
    [
        "web.tsv/../../job.json",
        "../chunks/web.tsv/0000000000000000.tar",
        "..%2F..%2F..%2Fjobs.db",
        "%2e%2e/%2e%2e/x.tar",
        "web.tsv/0000000000000000.tar%00",
        "web.tsv/0000000000000000",
        "web.tsv//0000000000000000.tar",
        "%2Fetc%2Fpasswd",
        "link.tar",
        ".partial-x.tar",
    ],
)
async def test_only_files_of_whole_shards_are_served(
    service: ServiceProcess, session: ClientSession, web: Web, name: str
) -> None:
    job = (await get(session, "/api/jobs?state=done&limit=1"))["jobs"]
    (job,) = job or [await done(session, lines(web, 4, 9000))]
    link = service.data / "jobs" / job["id"] / "shards" / "link.tar"
    link.unlink(missing_ok=True)
    link.symlink_to("/etc/passwd")
    url = URL(f"{service.url}/api/jobs/{job['id']}/files/{name}", encoded=True)
    async with session.get(url) as response:
        assert response.status == 404
        assert list(await response.json()) == ["error"]


async def test_rows_and_paths(session: ClientSession, web: Web, tsvs: Any) -> None:
    rows = [list(row) for row in lines(web, 6, 3000)]
    content = {"rows": rows, "rows_per_chunk": 4, "options": {"resize_mode": "no"}}
    query = "image_size=64&resize_mode=border&name=mine.tsv"
    async with session.post(f"/api/jobs?{query}", json=content) as response:
        assert response.status == 201
        job = await response.json()
        assert response.headers["Location"] == job["links"]["self"]
    assert (job["name"], job["rows"], job["chunks"]) == ("mine.tsv", 6, 2)
    options = job["options"]
    assert (options["resize_mode"], options["image_size"]) == ("no", 64)  # the body's come first
    (tsvs / "sub").mkdir(exist_ok=True)
    (tsvs / "sub" / "there.tsv").write_bytes(tsv(lines(web, 3, 4000)))
    async with session.post("/api/jobs", json={"path": "sub/there.tsv"}) as response:
        assert response.status == 201
        assert (await response.json())["name"] == "there.tsv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object; send one"),
        ("{}", "give rows, or else path"),
        ('{"rows": [["a", "b"]], "path": "a"}', "give rows, or else path"),
        ('{"rows": []}', "rows []: give a list of [caption, address]"),
        ('{"rows": [["a"]]}', 'rows[0] ["a"]: give [caption, address]'),
        ('{"rows": [["a", 1]]}', 'rows[0] ["a", 1]: give [caption, address]'),
        ('{"rows": [["a\\n", "b"]]}', "rows[0]: a line feed, or a tab in the address"),
        ('{"rows": [["\\ud800", "b"]]}', "rows[0]: half a surrogate pair; send text"),
        ('{"rows": [["a", "b"]], "sise": 1}', "no 'sise' here; choose from name, options, path"),
        ('{"rows": [["a", "b"]], "options": 1}', "options 1: give an object"),
        ('{"rows": [["a", "b"]], "options": {"x": 1}}', "options: no 'x' here; choose from attemp"),
        ('{"rows": [["a", "b"]], "options": {"image_size": true}}', "image_size true: give a whol"),
        ('{"rows": [["a", "b"]], "name": ""}', "name: 0 characters; give 1 to 200"),
        ('{"rows": [["a", "b"]], "name": "../a"}', "name '../a': give printable characters"),
        ('{"path": "absent.tsv"}', "'absent.tsv': no such file below"),
        ('{"path": "a\\u0000b"}', "'a\\x00b': no such file below"),
        ("NaN", "not JSON (NaN is no number of JSON)"),
        ("[" * 100_000, "not JSON"),
    ],
)
async def test_bad_json_is_refused(session: ClientSession, content: str, message: str) -> None:
    async with session.post("/api/jobs", data=content, headers=JSON) as response:
        assert response.status == 400
        assert (await response.json())["error"].startswith(message)


def post(
    data: bytes | io.BytesIO, query: str = "", **headers: str
) -> tuple[str, str, dict[str, Any]]:
    """A submission of a TSV; underscores in headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return "POST", f"/api/jobs{query}", {"data": data, "headers": TSV | named}


UP = "../" * 9


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "message"),
    [
        ("POST", "/api/jobs", {"data": b"a\tb"}, 415, "Content-Type application/octet-stream: "),
        (*post(b"a\tb", Content_Type=f"{TSV['Content-Type']};charset=utf-16"), 415, "charset utf"),
        (*post(b""), 400, "empty; give lines"),
        (*post(b"a"), 400, "no line has a tab"),
        (*post(b"a\tb", "?name=a/b"), 400, "name 'a/b': give"),
        (*post(b"a\tb", "?limit=1"), 400, "query: no 'limit'"),
        (*post(b"a\tb", Idempotency_Key="a b"), 400, 'Idempotency-Key "a b": give what matches'),
        (*post(io.BytesIO(b" " * (17 << 20)), **JSON), 413, "JSON of more than"),
        (*post(io.BytesIO(bytes(65 << 20))), 413, "a TSV of more than"),
        ("POST", "/api/jobs", {"json": {"path": f"{UP}etc/passwd"}}, 403, f"'{UP}etc/passwd': not"),
        ("POST", "/api/jobs", {"json": {"path": "/etc/passwd"}}, 403, "'/etc/passwd': not below"),
        ("GET", "/api/jobs/none", {}, 404, "no job none; GET /api/jobs lists them"),
        ("GET", "/api/jobs/none/events", {}, 404, "no job none"),
        ("GET", "/api/jobs/none/outcomes.parquet", {}, 404, "no job none"),
        ("GET", "/api/jobs?after=no+job", {}, 400, 'after "no job": give what matches'),
        ("POST", "/api/jobs/none/pause", {}, 404, "no job none"),
        ("POST", "/api/jobs/none/retry", {"json": {"reasons": ["no"]}}, 400, 'reasons "no": choos'),
        ("DELETE", "/api/jobs/none", {}, 404, "no job none"),
        ("PUT", "/api/jobs", {}, 405, "PUT /api/jobs: Method Not Allowed"),
        ("GET", "/api/nothing", {}, 404, "GET /api/nothing: Not Found"),
        ("GET", "/api/jobs", {"headers": {"Host": "evil.example"}}, 403, "Host: give localhost"),
        (*post(b"a\tb", Sec_Fetch_Site="cross-site"), 403, "a browser asks"),
    ],
)
async def test_what_is_refused_says_why(
    session: ClientSession, method: str, path: str, more: Any, status: int, message: str
) -> None:
    async with session.request(method, URL(path, encoded=True), **more) as response:
        said = await response.json()
    assert (response.status, list(said)) == (status, ["error"])
    assert said["error"].startswith(message)
    assert "\n" not in said["error"]


async def test_states_that_do_not_allow_it(session: ClientSession, web: Web) -> None:
    job = await done(session, lines(web, 4, 5000))
    for action in ("pause", "resume", "cancel"):
        async with session.post(f"{job['links']['self']}/{action}") as response:
            assert response.status == 409
            assert "done" in (await response.json())["error"]
    async with session.delete(job["links"]["self"]) as response:
        assert response.status == 204
    async with session.get(job["links"]["self"]) as response:
        assert response.status == 404


async def test_failed_rows_are_tried_again(session: ClientSession, web: Web) -> None:
    job = await done(session, lines(web, 8, 5500))
    content = {"reasons": ["not_found"]}
    async with session.post(f"{job['links']['self']}/retry", json=content) as response:
        assert response.status == 200
    again = (await follow(session, job["id"])).job
    assert (again["state"], again["failures"]) == ("done", {"not_found": 2})
    assert web.paths()["/not_found/0.jpg?row=5500"] == 2
    assert web.paths()["/none/1.jpg?row=5501"] == 1


async def test_a_key_makes_one_job(session: ClientSession, web: Web) -> None:
    body, headers = tsv(lines(web, 4, 6000)), TSV | {"Idempotency-Key": "of-a-client/1"}

    async def post() -> tuple[int, str]:
        async with session.post("/api/jobs", data=body, headers=headers) as response:
            return response.status, (await response.json())["id"]

    answers = await asyncio.gather(*(post() for _ in range(5)))
    assert sorted(status for status, _ in answers) == [200, 200, 200, 200, 201]
    assert len({id for _, id in answers}) == 1


async def test_a_tsv_comes_in_pieces_of_any_size(
    service: ServiceProcess, session: ClientSession, web: Web
) -> None:
    (row,) = lines(web, 1, 6500)
    body = tsv([(f"{'long ' * 2_000}{number}", row[1]) for number in range(2_000)])  # 20 MB

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 99_991):
            yield body[start : start + 99_991]

    async with session.post("/api/jobs", data=pieces(), headers=TSV) as response:
        assert response.status == 201
        job = await response.json()
    assert job["rows"] == 2_000
    async with session.post(f"{job['links']['self']}/cancel") as response:
        assert response.status == 200
    assert not list((service.data / "incoming").iterdir())


async def test_what_breaks_off_leaves_nothing(
    service: ServiceProcess, session: ClientSession
) -> None:
    before = await jobs(session)
    writer = await connect(service)
    writer.write(b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n")
    writer.write(b"Content-Type: text/tab-separated-values\r\n\r\n")
    writer.write(b"a dog\thttp://a.test/\n" * 500_000)  # 10 MB: some of it is on the disk
    await writer.drain()
    incoming = service.data / "incoming"
    while not list(incoming.iterdir()):
        await get(session, "/healthz")
    writer.transport.abort()
    while list(incoming.iterdir()):
        await get(session, "/healthz")
    assert await jobs(session) == before


async def test_events_of_a_job_end_with_it(session: ClientSession, web: Web) -> None:
    body = tsv(lines(web, 20, 7000))
    async with session.post("/api/jobs", data=body, headers=TSV) as response:
        job = await response.json()
    async with session.get(job["links"]["events"]) as response:
        assert response.content_type == "text/event-stream"
        seen = [(kind, json.loads(data)) async for kind, data in events(response)]
    assert [kind for kind, _ in seen] == ["job"] * (len(seen) - 1) + ["end"]
    counts = [job["done"] for _, job in seen]
    assert counts == sorted(counts)
    assert seen[-1][1]["state"] == "done"
    headers = {"Last-Event-ID": "41"}  # whoever comes back is told how it is now
    async with session.get(job["links"]["events"], headers=headers) as response:
        text = await response.text()
    assert text.startswith("retry: 1000\n\nevent: job\nid: 42\ndata: {")
    assert "\n\nevent: end\nid: 43\ndata: {" in text


async def test_events_of_all_jobs(session: ClientSession, web: Web) -> None:
    async with session.get("/api/events") as stream:
        seen = events(stream)
        assert (await anext(seen))[0] == "statistics"
        job = await done(session, lines(web, 4, 8000))
        async with session.delete(job["links"]["self"]) as response:
            assert response.status == 204
        states = []
        async for kind, data in seen:
            content = json.loads(data)
            if kind == "job" and content["id"] == job["id"]:
                states.append(content["state"])
            if (kind, content) == ("removed", {"id": job["id"]}):
                break
        assert states == sorted(states, key=["queued", "running", "done"].index)


@pytest.mark.parametrize("path", ["/api/events", "/openapi.json", "/metrics", "/", "/api/jobs"])
async def test_head_is_answered_without_a_body(session: ClientSession, path: str) -> None:
    async with session.head(path) as response:
        assert response.status == 200
        assert await response.read() == b""


async def test_jobs_come_a_page_at_a_time(session: ClientSession, web: Web) -> None:
    ids = [(await done(session, lines(web, 1, 9500 + number)))["id"] for number in range(3)]
    page = await get(session, "/api/jobs?limit=2&state=done")
    assert [job["id"] for job in page["jobs"]] == ids[:0:-1]
    rest = await get(session, f"/api/jobs?limit=1&state=done&after={page['next']}")
    assert [job["id"] for job in rest["jobs"]] == ids[:1]


async def test_answers_carry_headers_that_protect(session: ClientSession) -> None:
    async with session.get("/api/jobs") as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert response.headers["Cache-Control"] == "no-store"
    async with session.get("/") as response:
        assert "script-src 'sha256-" in response.headers["Content-Security-Policy"]


async def test_a_header_without_end_is_refused(service: ServiceProcess) -> None:
    reader, writer = await asyncio.open_connection(*place(service))
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 20_000)
    assert (await reader.read()).startswith(b"HTTP/1.0 400")
    writer.close()
