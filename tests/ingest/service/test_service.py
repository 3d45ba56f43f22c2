import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from capstan.errors import SettingError
from capstan.ingest.config import Concurrency
from capstan.ingest.service.config import ServiceLimits, ServiceSettings
from capstan.ingest.service.jobs import (
    BadSubmissionError,
    BusyError,
    ForbiddenPathError,
    FullError,
    NoSuchJobError,
    State,
    TooLargeError,
    WrongStateError,
)
from capstan.ingest.service.service import IngestService, open_service
from capstan.shards import read_outcomes
from capstan.testing.web import Fault, Web
from tests.ingest.service.conftest import end_of, rows_of, submit, until


def urls_of(service: IngestService, id: str) -> list[str]:
    """What the whole shards of a job hold, in order."""
    folder = service.shards_folder(id)
    tables = [read_outcomes(folder / f"{chunk}.parquet") for chunk in service.whole_chunks(id)]
    return [url for table in tables for url in table["url"].to_pylist()]


def asked(tsv: bytes) -> list[str]:
    return [line.partition("\t")[2] for line in tsv.decode().splitlines()]


def left(folder: Path) -> Sequence[Path]:
    return list(folder.iterdir())


async def test_a_job_becomes_shards_of_all_its_rows(web: Web, settings: ServiceSettings) -> None:
    tsv = rows_of(web, 30) + rows_of(web, 10, Fault.NOT_FOUND) + b"no tab\n"
    async with open_service(settings) as service:
        job = await submit(service, tsv, rows_per_chunk=16)
        assert (job.state, job.rows, job.chunks) == (State.QUEUED, 41, 3)
        job = await end_of(service, job.id)
        assert (job.state, job.done, job.images, job.shards) == (State.DONE, 41, 30, 3)
        assert job.failures == {"not_found": 10, "bad_row": 1}
        assert job.bytes > 0
        assert urls_of(service, job.id)[:40] == asked(tsv)[:40]
        await until(service, job.id, lambda job: not service._repository.works)
        assert service.job(job.id) == job  # as told from the store
        assert service.whole_chunks(job.id) == [f"a.tsv/{number:016x}" for number in range(3)]
        now = service.statistics()
        assert now.reasons == {"not_found": 10, "bad_row": 1}
        assert [(host.rows, host.failures) for host in now.hosts] == [(40, 10)]


async def test_jobs_end_though_a_large_one_waits(web: Web, settings: ServiceSettings) -> None:
    large = rows_of(web, 40, Fault.STALLED)
    elsewhere = rows_of(web, 5).replace(b"127.0.0.1", b"localhost")
    async with open_service(settings) as service:
        waiting = await submit(service, large, rows_per_chunk=1)
        await until(service, waiting.id, lambda job: job.state is State.RUNNING)
        small = await submit(service, elsewhere)
        assert (await end_of(service, small.id)).images == 5
        assert service.job(waiting.id).done == 0
        web.release()
        assert (await end_of(service, waiting.id)).images == 40


async def test_pause_resume_cancel_remove(web: Web, settings: ServiceSettings) -> None:
    async with open_service(settings) as service:
        tsv = rows_of(web, 4) + rows_of(web, 40, Fault.STALLED, first=100)
        job = await submit(service, tsv, rows_per_chunk=4)
        await until(service, job.id, lambda job: job.shards == 1)
        assert (await service.pause(job.id)).state is State.PAUSED
        with pytest.raises(WrongStateError, match="is paused"):
            await service.pause(job.id)
        web.release()
        assert (await service.resume(job.id)).state is State.RUNNING
        assert (await end_of(service, job.id)).images == 44
        for change in (service.pause, service.resume, service.cancel):
            with pytest.raises(WrongStateError, match="is done"):
                await change(job.id)

        long = rows_of(web, 400, Fault.SLOW)
        other = await submit(service, long, name="b.tsv", rows_per_chunk=2)
        await until(service, other.id, lambda job: job.shards >= 1)
        cancelled = await service.cancel(other.id)
        assert cancelled.state is State.CANCELLED and cancelled.finished
        await service.remove(other.id)
        with pytest.raises(NoSuchJobError):
            service.job(other.id)
        assert [path.name for path in left(settings.data / "jobs")] == [job.id]
        assert left(settings.data / "trash") == []


async def test_failed_rows_are_tried_again(web: Web, settings: ServiceSettings) -> None:
    tsv = rows_of(web, 6) + rows_of(web, 3, Fault.FLAKY) + rows_of(web, 2, Fault.NOT_FOUND)
    async with open_service(settings) as service:
        job = await submit(service, tsv, attempts=1)
        job = await end_of(service, job.id)
        assert job.failures == {"server_error": 3, "not_found": 2}
        with pytest.raises(WrongStateError, match="no row of it failed for dns"):
            await service.retry(job.id, frozenset({"dns"}))
        web.log.clear()
        assert (await service.retry(job.id)).state is State.QUEUED
        job = await end_of(service, job.id)
        assert (job.state, job.done, job.failures) == (State.DONE, 11, {"not_found": 2})
        assert len(web.log) == 3
        assert urls_of(service, job.id) == asked(tsv)


async def test_unfinished_jobs_go_on_at_the_next_start(web: Web, settings: ServiceSettings) -> None:
    tsv = rows_of(web, 300, Fault.SLOW)
    settings = replace(settings, load=Concurrency(processes=1, in_flight=16, aside=0))
    async with open_service(settings) as service:
        job = await submit(service, tsv, rows_per_chunk=30)
        paused = await submit(service, rows_of(web, 1, first=500), name="b.tsv")
        await service.pause(paused.id)
        await until(service, job.id, lambda job: job.shards >= 2)
        with pytest.raises(SettingError, match="another service"):
            async with open_service(settings):
                pass
    assert len(web.log) < 300
    async with open_service(settings) as service:
        job = await end_of(service, job.id)
        assert (job.state, job.done, job.images) == (State.DONE, 300, 300)
        assert set(web.paths().values()) == {1}
        assert urls_of(service, job.id) == asked(tsv)
        assert service.job(paused.id).state is State.PAUSED


async def test_a_key_brings_one_job(web: Web, settings: ServiceSettings) -> None:
    async def submit_once(service: IngestService) -> tuple[str, bool]:
        async with service.submitting("a.tsv", {}, key="once") as submission:
            await submission.write(rows_of(web, 1))
            job, is_new = await submission.finish()
        return job.id, is_new

    async with open_service(settings) as service:
        told = await asyncio.gather(*(submit_once(service) for _ in range(5)))
        assert len({id for id, _ in told}) == 1
        assert sorted(is_new for _, is_new in told) == [False] * 4 + [True]
        await end_of(service, told[0][0])
        assert len(service.jobs()[0]) == 1
    async with open_service(settings) as service:
        assert await submit_once(service) == (told[0][0], False)


async def test_a_submission_that_breaks_off_leaves_nothing(
    web: Web, settings: ServiceSettings
) -> None:
    async with open_service(settings) as service:
        with pytest.raises(ConnectionResetError):
            async with service.submitting("a.tsv", {}, 1000) as submission:
                for _ in range(20):
                    await submission.write(rows_of(web, 2000))
                raise ConnectionResetError
        assert (service.jobs()[0], left(settings.data / "incoming")) == ([], [])


async def test_what_is_refused(web: Web, settings: ServiceSettings, tmp_path: Path) -> None:
    root = tmp_path / "tsvs"
    root.mkdir()
    (root / "a.tsv").write_bytes(rows_of(web, 3))
    (tmp_path / "secret.tsv").write_bytes(rows_of(web, 1))
    (root / "link.tsv").symlink_to(tmp_path / "secret.tsv")
    limits = ServiceLimits(min_free=0, max_upload=100, max_jobs=1)
    async with open_service(replace(settings, tsv_root=root, limits=limits)) as service:
        for name in ("", "a/b", "../a", ".a", "a\n", "é" * 101):
            with pytest.raises(BadSubmissionError, match="name"):
                await submit(service, b"a\tb\n", name=name)
        with pytest.raises(BadSubmissionError, match="image_size 0"):
            await submit(service, b"a\tb\n", image_size=0)
        with pytest.raises(BadSubmissionError, match="no option imagesize"):
            await submit(service, b"a\tb\n", imagesize=1)
        for tsv, why in ((b"", "empty"), (b"no column\n", "tab")):
            with pytest.raises(BadSubmissionError, match=why):
                await submit(service, tsv)
        with pytest.raises(TooLargeError):
            await submit(service, b"a\tb\n" * 100)
        for path in ("../secret.tsv", "link.tsv", str(tmp_path / "secret.tsv")):
            with pytest.raises(ForbiddenPathError):
                await service.submit_path(path, None, {})
        for path in ("absent.tsv", ".", "a\0b"):
            with pytest.raises(BadSubmissionError):
                await service.submit_path(path, None, {})
        with pytest.raises(TooLargeError):
            await service.submit_path("a.tsv", None, {})
        job = await submit(service, b"a\tftp://b\n")
        await service.pause(job.id)
        with pytest.raises(BusyError):
            await submit(service, b"a\tb\n")
        assert left(settings.data / "incoming") == []


async def test_a_path_below_the_root_becomes_a_job(
    web: Web, settings: ServiceSettings, tmp_path: Path
) -> None:
    tsv = rows_of(web, 3)
    (tmp_path / "mine.tsv").write_bytes(tsv)
    async with open_service(replace(settings, tsv_root=tmp_path)) as service:
        job, is_new = await service.submit_path("mine.tsv", None, {"resize_mode": "no"}, 2)
        assert (is_new, job.name, job.chunks) == (True, "mine.tsv", 2)
        await end_of(service, job.id)
        assert urls_of(service, job.id) == asked(tsv)


async def test_jobs_come_in_pages_newest_first(web: Web, settings: ServiceSettings) -> None:
    async with open_service(settings) as service:
        ids = [(await submit(service, b"a\tftp://b\n")).id for _ in range(7)]
        for id in ids:
            await end_of(service, id)
        kept = await submit(service, rows_of(web, 1, Fault.STALLED))
        wanted, found, after = [kept.id, *reversed(ids)], [], None
        while True:
            page, after = service.jobs(limit=3, after=after)
            found += [job.id for job in page]
            if after is None:
                break
        assert found == wanted
        assert [job.id for job in service.jobs(State.DONE, 100)[0]] == wanted[1:]
        web.release()


async def test_a_full_disk_takes_no_jobs(web: Web, settings: ServiceSettings) -> None:
    full = replace(settings, limits=ServiceLimits(min_free=1 << 60))
    async with open_service(full) as service:
        with pytest.raises(FullError, match="MiB free"):
            await submit(service, rows_of(web, 1))
