import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import aiohttp.test_utils
import aiohttp.web
import pytest

from capstan.chunks import Chunk, find_chunks
from capstan.ingest import job, sink
from capstan.ingest import work as work_module
from capstan.ingest.config import Concurrency, ImageOptions, IngestSettings, RetryPolicy, reasons
from capstan.ingest.job import identity, unchanged
from capstan.ingest.journal import Journal
from capstan.ingest.messages import ShardDone, Tally, Told
from capstan.ingest.resources import PoolInfo
from capstan.ingest.sink import IMAGE_SHARDS
from capstan.ingest.work import work
from capstan.shards import read_images, read_outcomes
from capstan.testing.web import CHAIN, Fault, Web
from tests.ingest.conftest import all_faults, fewer, files, work_here, write_chunk

EXPECTED = {
    "not_found": "not_found",
    "denied": "denied",
    "broken": "server_error",
    "truncated": "disconnected",
    "reset": "disconnected",
    "html": "not_an_image",
    "empty": "empty_body",
    "corrupt": "corrupt_image",
    "redirect_loop": "redirects",
    "opted_out": "opted_out",
}


def at_most(settings: IngestSettings, per_host: int) -> IngestSettings:
    return replace(settings, load=replace(settings.load, per_host=per_host))


def outcomes(settings: IngestSettings, chunk: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_outcomes(settings.output / f"{chunk}.parquet").to_pylist()
    return rows


def test_every_row_ends_as_an_image_or_a_reason(web: Web, settings: IngestSettings) -> None:
    rows = [*all_faults(web), ("bad", "no url"), ("worse", "")]
    path = write_chunk(settings, "cc.tsv/0", rows)
    path.write_bytes(path.read_bytes() + b"\xff no tab")

    (stats,) = work_here(settings)

    found = outcomes(settings, "cc.tsv/0")
    expected = EXPECTED | {"bad": "bad_url", "worse": "bad_row", "\\xff no tab": "bad_row"}
    captions = [caption for caption, _ in rows] + ["\\xff no tab"]
    assert [row["caption"] for row in found] == captions
    assert {row["caption"]: row["reason"] for row in found} == {
        caption: expected.get(caption) for caption in captions
    }
    failures = Counter(expected[caption] for caption in captions if caption in expected)
    assert stats["failures"] == dict(failures)
    assert stats["rows"] == len(captions) == stats["images"] + sum(failures.values())
    assert {row["caption"]: row["attempts"] for row in found} == {
        caption: 0
        if caption in ("bad", "worse", "\\xff no tab")
        else {"broken": 3, "truncated": 3, "reset": 3, "flaky": 2}.get(caption, 1)
        for caption in captions
    }
    stored = [image.caption for image in read_images(settings.output / "cc.tsv/0.tar")]
    assert stored == [caption for caption in captions if caption not in expected]
    assert not (settings.output / ".spool" / "cc.tsv" / "0").exists()


def test_bytes_do_not_depend_on_the_order_of_arrival(web: Web, settings: IngestSettings) -> None:
    rows = [row for row in all_faults(web) if row[0] != Fault.FLAKY]  # well the second time
    for chunk in range(3):
        write_chunk(settings, f"cc.tsv/{chunk}", rows[chunk:])
    runs = []
    for in_flight in (1, 2, 64):
        output = settings.output / str(in_flight)
        work_here(replace(fewer(settings, in_flight), output=output))
        runs.append(files(output))
    assert len(runs[0]) == 9
    assert runs[0] == runs[1] == runs[2]


def test_what_is_unchanged_is_not_done_again(web: Web, settings: IngestSettings) -> None:
    for chunk in range(3):
        write_chunk(settings, f"cc.tsv/{chunk}", [("a", web.url("wide.jpg", row=chunk))])
    assert len(work_here(settings)) == 3
    before = files(settings.output)
    assert work_here(settings) == []

    write_chunk(settings, "cc.tsv/1", [("b", web.url("tall.png", row=7))])
    asked = len(web.log)
    (stats,) = work_here(settings)

    assert stats["chunk"] == "cc.tsv/1"
    assert [request.path for request in web.log[asked:]] == ["/none/tall.png?row=7"]
    after = files(settings.output)
    assert {name for name in after if after[name] != before[name]} == {
        "cc.tsv/1.tar",
        "cc.tsv/1.parquet",
        "cc.tsv/1_stats.json",
    }
    assert len(work_here(replace(settings, pictures=ImageOptions(image_size=99)))) == 3


@pytest.mark.parametrize("suffix", [".tar", ".parquet", "_stats.json"])
def test_a_shard_that_is_not_whole_is_done_again(
    web: Web, settings: IngestSettings, suffix: str
) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg"))])
    work_here(settings)
    before = files(settings.output)
    (settings.output / f"0{suffix}").unlink()
    assert unchanged(find_chunks(settings.input)[0], settings, IMAGE_SHARDS) is None
    work_here(settings)
    assert files(settings.output) == before


def ignore(_: Told) -> None:
    pass


async def test_rows_stream_across_chunks(web: Web, settings: IngestSettings) -> None:
    write_chunk(settings, "0", [("slow", web.url("wide.jpg", Fault.STALLED)), ("no", "bad")])
    for chunk in range(1, 5):
        write_chunk(settings, str(chunk), [("a", web.url("wide.jpg", row=chunk))])
    written = []

    def tell(message: Told) -> None:
        if isinstance(message, ShardDone):
            written.append(message.stats["chunk"])
            if len(written) == 4:
                web.release()

    await work(find_chunks(settings.input), fewer(settings, 2), PoolInfo(), tell)
    assert sorted(written[:4]) == ["1", "2", "3", "4"]
    assert written[4:] == ["0"]


async def test_a_chunk_is_taken_when_the_last_ones_rows_have_begun(
    web: Web, settings: IngestSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "APPETITE_PATIENCE", 30.0)
    for chunk in range(2):
        rows = [("a", web.url("wide.jpg", Fault.SLOW, 10 * chunk + n)) for n in range(5)]
        write_chunk(settings, str(chunk), rows)
    asked = []

    def take() -> Iterator[Chunk]:
        for chunk in find_chunks(settings.input):
            asked.append(len(web.log))
            yield chunk

    await work(take(), at_most(settings, 1), PoolInfo(), ignore)
    assert asked[0] == 0
    assert asked[1] >= 4  # of 5: the other processes had their chance


async def test_rows_that_wait_for_one_host_do_not_keep_others_from_coming(
    web: Web, settings: IngestSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "APPETITE_PATIENCE", 0.0)
    stalled = [("a", web.url("wide.jpg", Fault.STALLED, row)) for row in range(3)]
    write_chunk(settings, "0", stalled)
    elsewhere = web.url("wide.jpg").replace("127.0.0.1", "localhost")
    write_chunk(settings, "1", [("b", elsewhere)])
    written = []

    def tell(message: Told) -> None:
        if isinstance(message, ShardDone):
            written.append(message.stats["chunk"])
            web.release()

    await work(find_chunks(settings.input), at_most(settings, 1), PoolInfo(), tell)
    assert written == ["1", "0"]


async def test_a_row_that_waits_holds_no_slot(web: Web, settings: IngestSettings) -> None:
    flaky = web.url("wide.jpg", Fault.FLAKY)
    others = [web.url("wide.jpg", row=row) for row in range(3)]
    write_chunk(settings, "0", [("a", url) for url in (flaky, *others)])
    patient = replace(settings, patience=RetryPolicy(first_wait=0.3), load=Concurrency(in_flight=1))
    await work(find_chunks(settings.input), patient, PoolInfo(), ignore)
    paths = [request.path for request in web.log]
    assert paths[0] == paths[-1] == "/flaky/wide.jpg"
    assert len(paths) == 5


async def test_a_host_gets_no_more_connections_than_allowed(
    web: Web, settings: IngestSettings
) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", Fault.SLOW, row)) for row in range(12)])
    await work(find_chunks(settings.input), at_most(settings, 3), PoolInfo(), ignore)
    assert web.most_open == 3


async def test_the_deadline_is_the_rows_own(web: Web, settings: IngestSettings) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", Fault.STALLED, n)) for n in range(3)])
    patience = RetryPolicy(deadline=0.3, first_wait=0.0, attempts=9)
    hurried = replace(settings, patience=patience, load=Concurrency(in_flight=1))
    await work(find_chunks(settings.input), hurried, PoolInfo(), ignore)
    assert [row["reason"] for row in outcomes(settings, "0")] == ["timeout"] * 3
    assert len(web.paths()) == 3  # each had its turn, however long it waited for it


async def test_a_stopped_run_is_taken_up_where_it_was(web: Web, settings: IngestSettings) -> None:
    rows = [("a", web.url("wide.jpg", row=row)) for row in range(20)]
    write_chunk(settings, "0", [*rows, ("last", web.url("tall.png", Fault.STALLED))])
    first = asyncio.create_task(
        work(find_chunks(settings.input), fewer(settings, 4), PoolInfo(), ignore)
    )
    await asyncio.to_thread(web.wait_for, 21)
    first.cancel()
    await asyncio.wait([first])
    chunk = find_chunks(settings.input)[0]
    made_with = settings.identity(chunk.sha256)
    with Journal(settings.output / ".spool" / "0", made_with, IMAGE_SHARDS.frame) as journal:
        finished = [row for row in range(20) if row in journal]
    assert len(finished) >= 17  # all but those in flight

    web.release()
    told: list[Told] = []
    await work([chunk], settings, PoolInfo(), told.append)

    paths = web.paths()
    assert all(paths[f"/none/wide.jpg?row={row}"] == 1 for row in finished)
    assert sum(message.kept for message in told if isinstance(message, Tally)) == len(finished)
    resumed = files(settings.output)
    again = replace(settings, output=settings.output / "again")
    await work([chunk], again, PoolInfo(), ignore)
    assert files(again.output) == resumed


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "0.tar")


def test_a_shard_that_cannot_be_written_is_written_later_without_fetching(
    web: Web, settings: IngestSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", row=row)) for row in range(3)])
    with monkeypatch.context() as patch:
        patch.setattr(sink, "write_image_lines", full_disk)
        with pytest.raises(ExceptionGroup) as caught:
            work_here(settings)
    assert caught.group_contains(OSError, match="No space left")
    assert not (settings.output / "0_stats.json").exists()

    (stats,) = work_here(settings)
    assert stats["images"] == len(web.log) == 3


def test_a_chunk_altered_during_the_run_is_an_error(
    web: Web, settings: IngestSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_chunk(settings, "0", [("a", web.url("wide.jpg"))])
    write: Callable[..., Any] = job.write_shard

    def alter(*arguments: Any) -> Any:
        path.write_bytes(path.read_bytes() * 2)
        return write(*arguments)

    monkeypatch.setattr("capstan.ingest.work.write_shard", alter)
    with pytest.raises(ExceptionGroup) as caught:
        work_here(settings)
    assert caught.group_contains(Exception, match="does not hold row 1")
    assert not (settings.output / "0_stats.json").exists()


async def test_an_address_is_fetched_once_for_all_its_rows_of_a_chunk(
    web: Web, settings: IngestSettings
) -> None:
    good, missing = web.url("wide.jpg", Fault.STALLED), web.url("tall.png", Fault.NOT_FOUND)
    rows = [("a", good), ("b", missing), ("c", good), ("d", missing), ("e", good)]
    write_chunk(settings, "0", rows)
    working = asyncio.create_task(work(find_chunks(settings.input), settings, PoolInfo(), ignore))
    await asyncio.to_thread(web.wait_for, 2)
    web.release()
    await working

    assert sorted(web.paths().values()) == [1, 1]
    found = outcomes(settings, "0")
    assert [row["caption"] for row in found] == list("abcde")
    assert [row["reason"] for row in found] == [None, "not_found", None, "not_found", None]
    assert [row["attempts"] for row in found] == [1, 1, 0, 0, 0]
    assert len({row["sha256"] for row in found if row["sha256"]}) == 1
    images = list(read_images(settings.output / "0.tar"))
    assert [image.caption for image in images] == ["a", "c", "e"]


def test_a_repeated_address_is_not_fetched_again_after_a_stop(
    web: Web, settings: IngestSettings
) -> None:
    url = web.url("wide.jpg")
    write_chunk(settings, "0", [("a", url), ("b", url)])
    work_here(settings)
    undisturbed = files(settings.output)
    chunk = find_chunks(settings.input)[0]
    rows = [row for row in sink.IMAGE_SHARDS.read(settings.output, "0") if row.row.index == 0]
    for path in settings.output.glob("0*"):
        path.unlink()
    made_with = identity(chunk, settings, IMAGE_SHARDS)
    with Journal(settings.output / ".spool" / "0", made_with, IMAGE_SHARDS.frame) as journal:
        journal.append(rows[0].row, rows[0].answer, rows[0].result)
    work_here(settings)
    assert len(web.log) == 1
    assert files(settings.output) == undisturbed


def test_failed_rows_are_tried_again_when_asked_for_and_no_others(
    web: Web, settings: IngestSettings
) -> None:
    once = replace(settings, patience=RetryPolicy(attempts=1))
    flaky = [("f", web.url("wide.jpg", Fault.FLAKY, row)) for row in range(2)]
    rows = [("a", web.url("wide.jpg")), *flaky, ("gone", web.url("x", Fault.NOT_FOUND)), ("", "x")]
    write_chunk(settings, "0", rows)
    write_chunk(settings, "1", [("fine", web.url("tall.png"))])
    assert len(work_here(once)) == 2
    before, asked = files(settings.output), len(web.log)
    assert work_here(once) == []

    (stats,) = work_here(replace(once, retry_failed=reasons("server_error,dns")))

    assert sorted(request.path for request in web.log[asked:]) == [
        "/flaky/wide.jpg?row=0",
        "/flaky/wide.jpg?row=1",
    ]
    assert (stats["images"], stats["failures"]) == (3, {"bad_url": 1, "not_found": 1})
    after = files(settings.output)
    assert {name for name in after if after[name] != before[name]} == {
        "0.tar",
        "0.parquet",
        "0_stats.json",
    }
    captions = [image.caption for image in read_images(settings.output / "0.tar")]
    assert captions == ["a", "f", "f"]
    assert work_here(replace(once, retry_failed=reasons("server_error"))) == []


async def test_redirects_are_followed_up_to_a_limit(web: Web, settings: IngestSettings) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", Fault.REDIRECT))])
    for most, reason in ((CHAIN, None), (CHAIN - 1, "redirects")):
        allowed = replace(settings, web=replace(settings.web, max_redirects=most))
        await work(find_chunks(settings.input), allowed, PoolInfo(), ignore)
        (row,) = outcomes(settings, "0")
        assert (row["reason"], row["attempts"]) == (reason, 1)
    assert row["http_status"] == 302


class Hosts:
    """A host that sends on to another, which says what robots may see."""

    def __init__(self, picture: bytes) -> None:
        self.log: list[str] = []
        self._picture = picture

    async def answer(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        self.log.append(request.path)
        if request.path == "/robots.txt":
            return aiohttp.web.Response(text="User-agent: *\nDisallow: /secret/\n")
        if request.path.startswith("/to"):
            raise aiohttp.web.HTTPFound(request.path.removeprefix("/to"))
        return aiohttp.web.Response(body=self._picture, content_type="image/jpeg")


async def test_robots_are_asked_once_and_obeyed_after_redirects_too(
    settings: IngestSettings, pictures: dict[str, bytes]
) -> None:
    hosts = Hosts(pictures["wide.jpg"])
    app = aiohttp.web.Application()
    app.router.add_get("/{path:.*}", hosts.answer)
    async with aiohttp.test_utils.TestServer(app) as server:
        paths = ["/open/1", "/secret/1", "/to/open/2", "/to/secret/2"]
        write_chunk(settings, "0", [("a", str(server.make_url(path))) for path in paths])
        obedient = replace(settings, web=replace(settings.web, robots=True))
        await work(find_chunks(settings.input), obedient, PoolInfo(), ignore)
    assert [row["reason"] for row in outcomes(settings, "0")] == [None, "robots", None, "robots"]
    assert sorted(hosts.log) == [
        "/open/1",
        "/open/2",
        "/robots.txt",
        "/to/open/2",
        "/to/secret/2",
    ]


async def test_a_host_that_is_down_costs_its_own_rows_and_only_so_long(
    web: Web, settings: IngestSettings
) -> None:
    down = [("d", web.url("wide.jpg", Fault.STALLED, row)) for row in range(200)]
    elsewhere = web.url("tall.png").replace("127.0.0.1", "localhost")
    write_chunk(settings, "0", [*down, ("up", elsewhere)])
    impatient = replace(
        settings,
        web=replace(settings.web, timeout=0.1),
        patience=RetryPolicy(first_wait=0.0, host_patience=0.5),
    )
    await work(find_chunks(settings.input), impatient, PoolInfo(), ignore)
    found = Counter(row["reason"] for row in outcomes(settings, "0"))
    assert (found[None], found["host_down"] > 150) == (1, True)
    assert set(found) <= {None, "timeout", "host_down"}
    assert len(web.log) < 50


async def test_one_long_pause_is_asked_for_once_for_all_rows_of_a_host(
    web: Web, settings: IngestSettings
) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", Fault.OVERLOADED, n)) for n in range(50)])
    await work(find_chunks(settings.input), at_most(settings, 1), PoolInfo(), ignore)
    assert [row["reason"] for row in outcomes(settings, "0")] == ["rate_limited"] * 50
    assert len(web.log) == 1
