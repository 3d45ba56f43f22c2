import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.web import Fault, Web
from ingest import sink
from ingest import work as work_module
from ingest.chunks import Chunk, find_chunks
from ingest.config import Load, Patience, Pictures, Settings
from ingest.run import unchanged
from ingest.spool import Spool
from ingest.work import Tally, Written, work
from pipeline.shards import read_images, read_outcomes
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


def outcomes(settings: Settings, chunk: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_outcomes(settings.output / f"{chunk}.parquet").to_pylist()
    return rows


def test_every_row_ends_as_an_image_or_a_reason(web: Web, settings: Settings) -> None:
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


def test_bytes_do_not_depend_on_the_order_of_arrival(web: Web, settings: Settings) -> None:
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


def test_what_is_unchanged_is_not_done_again(web: Web, settings: Settings) -> None:
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
    assert len(work_here(replace(settings, pictures=Pictures(image_size=99)))) == 3


@pytest.mark.parametrize("suffix", [".tar", ".parquet", "_stats.json"])
def test_a_shard_that_is_not_whole_is_done_again(web: Web, settings: Settings, suffix: str) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg"))])
    work_here(settings)
    before = files(settings.output)
    (settings.output / f"0{suffix}").unlink()
    assert unchanged(find_chunks(settings.input)[0], settings) is None
    work_here(settings)
    assert files(settings.output) == before


def ignore(_: Tally | Written) -> None:
    pass


async def test_rows_stream_across_chunks(web: Web, settings: Settings) -> None:
    write_chunk(settings, "0", [("slow", web.url("wide.jpg", Fault.STALLED)), ("no", "bad")])
    for chunk in range(1, 5):
        write_chunk(settings, str(chunk), [("a", web.url("wide.jpg", row=chunk))])
    written = []

    def tell(message: Tally | Written) -> None:
        if isinstance(message, Written):
            written.append(message.stats["chunk"])
            if len(written) == 4:
                web.release()

    await work(find_chunks(settings.input), fewer(settings, 2), 16, tell)
    assert sorted(written[:4]) == ["1", "2", "3", "4"]
    assert written[4:] == ["0"]


async def test_a_chunk_is_taken_when_the_last_ones_rows_have_begun(
    web: Web, settings: Settings, monkeypatch: pytest.MonkeyPatch
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

    await work(take(), settings, 1, ignore)
    assert asked[0] == 0
    assert asked[1] >= 4  # of 5: the other processes had their chance


async def test_rows_that_wait_for_one_host_do_not_keep_others_from_coming(
    web: Web, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "APPETITE_PATIENCE", 0.0)
    stalled = [("a", web.url("wide.jpg", Fault.STALLED, row)) for row in range(3)]
    write_chunk(settings, "0", stalled)
    elsewhere = web.url("wide.jpg").replace("127.0.0.1", "localhost")
    write_chunk(settings, "1", [("b", elsewhere)])
    written = []

    def tell(message: Tally | Written) -> None:
        if isinstance(message, Written):
            written.append(message.stats["chunk"])
            web.release()

    await work(find_chunks(settings.input), settings, 1, tell)
    assert written == ["1", "0"]


async def test_a_row_that_waits_holds_no_slot(web: Web, settings: Settings) -> None:
    flaky = web.url("wide.jpg", Fault.FLAKY)
    others = [web.url("wide.jpg", row=row) for row in range(3)]
    write_chunk(settings, "0", [("a", url) for url in (flaky, *others)])
    patient = replace(settings, patience=Patience(first_wait=0.3), load=Load(in_flight=1))
    await work(find_chunks(settings.input), patient, 1, ignore)
    paths = [request.path for request in web.log]
    assert paths[0] == paths[-1] == "/flaky/wide.jpg"
    assert len(paths) == 5


async def test_a_host_gets_no_more_connections_than_allowed(web: Web, settings: Settings) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", Fault.SLOW, row)) for row in range(12)])
    await work(find_chunks(settings.input), settings, 3, ignore)
    assert web.most_open == 3


async def test_the_deadline_is_the_rows_own(web: Web, settings: Settings) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", Fault.STALLED, n)) for n in range(3)])
    patience = Patience(deadline=0.3, first_wait=0.0, attempts=9)
    hurried = replace(settings, patience=patience, load=Load(in_flight=1))
    await work(find_chunks(settings.input), hurried, 1, ignore)
    assert [row["reason"] for row in outcomes(settings, "0")] == ["timeout"] * 3
    assert len(web.paths()) == 3  # each had its turn, however long it waited for it


async def test_a_stopped_run_is_taken_up_where_it_was(web: Web, settings: Settings) -> None:
    rows = [("a", web.url("wide.jpg", row=row)) for row in range(20)]
    write_chunk(settings, "0", [*rows, ("last", web.url("tall.png", Fault.STALLED))])
    first = asyncio.create_task(work(find_chunks(settings.input), fewer(settings, 4), 4, ignore))
    await asyncio.to_thread(web.wait_for, 21)
    first.cancel()
    await asyncio.wait([first])
    chunk = find_chunks(settings.input)[0]
    with Spool(settings.output / ".spool" / "0", settings.identity(chunk.sha256)) as spool:
        finished = [row for row in range(20) if row in spool]
    assert len(finished) >= 17  # all but those in flight

    web.release()
    told: list[Tally | Written] = []
    await work([chunk], settings, 4, told.append)

    paths = web.paths()
    assert all(paths[f"/none/wide.jpg?row={row}"] == 1 for row in finished)
    assert sum(message.kept for message in told if isinstance(message, Tally)) == len(finished)
    resumed = files(settings.output)
    again = replace(settings, output=settings.output / "again")
    await work([chunk], again, 4, ignore)
    assert files(again.output) == resumed


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "0.tar")


def test_a_shard_that_cannot_be_written_is_written_later_without_fetching(
    web: Web, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", row=row)) for row in range(3)])
    with monkeypatch.context() as patch:
        patch.setattr(sink, "write_image_shard", full_disk)
        with pytest.raises(ExceptionGroup) as caught:
            work_here(settings)
    assert caught.group_contains(OSError, match="No space left")
    assert not (settings.output / "0_stats.json").exists()

    (stats,) = work_here(settings)
    assert stats["images"] == len(web.log) == 3


def test_a_chunk_altered_during_the_run_is_an_error(
    web: Web, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_chunk(settings, "0", [("a", web.url("wide.jpg"))])
    write: Callable[..., Any] = work_module.write_shard

    def alter(*arguments: Any) -> Any:
        path.write_bytes(path.read_bytes() * 2)
        return write(*arguments)

    monkeypatch.setattr(work_module, "write_shard", alter)
    with pytest.raises(ExceptionGroup) as caught:
        work_here(settings)
    assert caught.group_contains(Exception, match="does not hold row 1")
    assert not (settings.output / "0_stats.json").exists()
