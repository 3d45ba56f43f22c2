"""SIGKILL at real processes: of the service, of workers, and of whole machines' worth of both."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pyarrow.parquet as pq
import pytest
from aiohttp import ClientSession

from benchmarks.clients import be_clients
from benchmarks.ingestd_service import SentJob, follow, shards_of, submit
from benchmarks.ingestd_service import ServiceProcess as Command
from capstan.ingest.config import Concurrency
from capstan.ingest.service import worker_pool
from capstan.ingest.service.config import Delivery, ServiceSettings
from capstan.ingest.service.jobs import Job, State
from capstan.ingest.service.service import open_service
from capstan.testing.pachd import Pachd
from capstan.testing.web import Fault, Web
from tests.ingest.service import conftest
from tests.ingest.service.conftest import end_of, rows_of, until
from tests.ingest.service.test_service import asked, urls_of

IN_FLIGHT = 16
FLAGS = ("--processes", "1", "--min-free", "0", "--in-flight", str(IN_FLIGHT), "--aside", "0")


def workers() -> list[psutil.Process]:
    """The worker processes of a service in this process."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended meanwhile
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started again without a wait, however young they died."""
    monkeypatch.setattr(worker_pool, "YOUNG", 0.0)


async def test_a_worker_that_is_killed_is_replaced_and_its_rows_are_kept(
    web: Web, settings: ServiceSettings, at_once: None
) -> None:
    tsv = rows_of(web, 150, Fault.SLOW)
    load = Concurrency(processes=2, in_flight=IN_FLIGHT, aside=0)
    async with open_service(replace(settings, load=load)) as service:
        job = await conftest.submit(service, tsv, rows_per_chunk=25)
        for done in (30, 80):
            await until(service, job.id, lambda job, done=done: job.done >= done)  # type: ignore[misc]
            workers()[0].kill()
        job = await end_of(service, job.id)
        assert (job.state, job.done, job.images) == (State.DONE, 150, 150)
        assert urls_of(service, job.id) == asked(tsv)
        again = sum(count - 1 for count in web.paths().values())
        assert again <= 2 * IN_FLIGHT


async def test_a_chunk_that_kills_its_workers_fails_its_job_alone(
    web: Web, settings: ServiceSettings, at_once: None
) -> None:
    async with open_service(settings) as service:
        poison = await conftest.submit(service, rows_of(web, 1, Fault.STALLED), name="bad.tsv")
        good = rows_of(web, 3, Fault.STALLED, first=10)
        other = await conftest.submit(service, good, name="good.tsv", rows_per_chunk=1)

        async def kill_while_it_is_out() -> None:
            while service.job(poison.id).state is not State.FAILED:
                seen = len(web.log)
                await asyncio.to_thread(wait_for_path, web, "row=0", seen_at(web))
                for process in workers():
                    process.kill()
                assert len(web.log) >= seen

        killing = asyncio.create_task(kill_while_it_is_out())
        failed = await end_of(service, poison.id)
        killing.cancel()
        web.release()
        await asyncio.to_thread(urlopen, web.url("a.jpg", row=0))  # so that nobody waits for it
        assert failed.state is State.FAILED
        assert failed.why and "bad.tsv/0000000000000000: the worker that had it" in failed.why
        assert (await end_of(service, other.id)).images == 3


def seen_at(web: Web) -> int:
    return sum("row=0" in request.path for request in web.log)


def wait_for_path(web: Web, words: str, before: int) -> None:
    """Wait until an address was asked for once more."""
    total = len(web.log)
    while sum(words in request.path for request in web.log) <= before:
        web.wait_for(total := total + 1)


@pytest.mark.parametrize("whole", [True, False], ids=["all processes", "the first alone"])
def test_a_killed_service_goes_on_and_its_client_is_told_of_the_end(
    whole: bool, web: Web, tmp_path: Path
) -> None:
    tsv = rows_of(web, 150, Fault.SLOW)
    with Command(tmp_path / "data", FLAGS) as service:

        async def work(session: ClientSession) -> Any:
            job = await submit(session, SentJob("a.tsv", tsv, 25))
            following = asyncio.create_task(follow(session, job["id"]))
            for requests in (30, 90):
                await asyncio.to_thread(web.wait_for, requests)
                await asyncio.to_thread(service.kill, whole)
                service.start()
            return await following

        job = be_clients(service.url, work).job
        assert (job["state"], job["done"], job["images"]) == ("done", 150, 150)
        shards = sorted(shards_of(service, job).glob("*/*.parquet"))
        urls = [url for path in shards for url in pq.read_table(path)["url"].to_pylist()]
    assert urls == asked(tsv)
    assert sum(count - 1 for count in web.paths().values()) <= 2 * IN_FLIGHT


def test_sigterm_lets_rows_end_and_leaves_no_process(web: Web, tmp_path: Path) -> None:
    with Command(tmp_path / "data", FLAGS) as service:

        async def work(session: ClientSession) -> Any:
            await submit(session, SentJob("a.tsv", rows_of(web, 500, Fault.SLOW), 25))
            await asyncio.to_thread(web.wait_for, 20)

        be_clients(service.url, work)
        processes = psutil.Process(service.pid).children(recursive=True)
        assert processes
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(12) == 0
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    assert sum(count - 1 for count in web.paths().values()) == 0


# Delivery


@pytest.fixture
def pachd() -> Iterator[Pachd]:
    with Pachd() as server:
        server.put("images", {})
        yield server


def delivering(settings: ServiceSettings, pachd: Pachd, batch: int = 2) -> ServiceSettings:
    from capstan.pachyderm.connection import ServerTarget, parse

    target = ServerTarget(*parse(pachd.address), project="photos")
    return replace(settings, delivery=Delivery("images", batch, 3600.0), target=target)


def delivered(pachd: Pachd) -> set[str]:
    return set(pachd.files("images"))


async def test_shards_go_to_the_repo_batch_by_batch_and_then_the_job_is_done(
    web: Web, settings: ServiceSettings, pachd: Pachd
) -> None:
    tsv = rows_of(web, 20)
    async with open_service(delivering(settings, pachd)) as service:
        job = await conftest.submit(service, tsv, rows_per_chunk=4)
        job = await end_of(service, job.id)
        assert (job.state, job.shards, job.delivered) == (State.DONE, 5, 5)
        folder = service.shards_folder(job.id)
        files = {f"/{path.relative_to(folder)}": path for path in folder.glob("a.tsv/*")}
        assert pachd.files("images") == {name: path.read_bytes() for name, path in files.items()}
        commits = pachd.repos["images"][1:]
        assert len(commits) == 3
        for commit in commits:  # nothing but whole shards
            names = [name for name in commit.files if name.endswith("_stats.json")]
            assert len(commit.files) == 3 * len(names)


async def test_an_absent_pachyderm_is_waited_for(
    web: Web, settings: ServiceSettings, pachd: Pachd
) -> None:
    import grpc

    pachd.refusal["ModifyFile"] = (grpc.StatusCode.UNAVAILABLE, "not now")
    async with open_service(delivering(settings, pachd, batch=1)) as service:
        job = await conftest.submit(service, rows_of(web, 12), rows_per_chunk=1)

        def is_paused(job: Job) -> bool:  # its reason may come later, or sooner
            return job.state is State.PAUSED and "not now" in (job.why or "")

        waiting = await until(service, job.id, is_paused)
        assert waiting.delivered == 0
        pachd.refusal.clear()
        ended = await end_of(service, job.id)
        assert (ended.state, ended.delivered) == (State.DONE, 12)
        assert len(delivered(pachd)) == 36


def test_a_kill_between_the_commit_and_its_note_sends_nothing_twice(
    web: Web, pachd: Pachd, tmp_path: Path
) -> None:
    where = ("--pachyderm-address", pachd.address, "--pachyderm-project", "photos")
    flags = (*FLAGS, *where, "--pachyderm-repo", "images", "--batch-shards", "2")
    with Command(tmp_path / "data", flags) as service:
        killed = list[str]()

        def kill_when_it_is_committed(method: str) -> None:
            if method == "InspectCommit" and pachd.streams and not killed:
                killed.append(method)
                service.kill()

        pachd.on_call = kill_when_it_is_committed

        async def work(session: ClientSession) -> Any:
            job = await submit(session, SentJob("a.tsv", rows_of(web, 6), 3))
            following = asyncio.create_task(follow(session, job["id"]))
            await asyncio.to_thread(service.process.wait, 60)
            service.start()
            return await following

        job = be_clients(service.url, work).job
    assert (job["state"], job["delivered"]) == ("done", 2)
    assert len(pachd.repos["images"]) == 2  # and the one that was there
    assert len(pachd.streams) == 1


# A full disk


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, where that may be mounted."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "capstan-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_pauses_jobs_until_there_is_room(
    web: Web, settings: ServiceSettings, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "80m") as disk:
        ballast = disk / "ballast"
        async with open_service(replace(settings, data=disk / "data")) as service:
            job = await conftest.submit(service, rows_of(web, 100), rows_per_chunk=10)
            await until(service, job.id, lambda job: job.state is State.RUNNING)
            fill(ballast)
            paused = await until(service, job.id, lambda job: job.state is State.PAUSED)
            assert paused.why and "MiB free" in paused.why
            ballast.unlink()
            ended = await end_of(service, job.id)
            assert (ended.state, ended.done, ended.images) == (State.DONE, 100, 100)
            assert urls_of(service, job.id) == asked(rows_of(web, 100))


def fill(path: Path) -> None:
    """Take all room there is."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
