import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from capstan.chunks import Chunk, find_chunks
from capstan.ingest import work as work_module
from capstan.ingest.config import IngestSettings
from capstan.ingest.job import open_job
from capstan.ingest.messages import ShardDone, Told
from capstan.ingest.resources import EngineResources, PoolInfo, open_resources
from capstan.ingest.work import Engine, StoppedError
from capstan.testing.web import Fault, Web
from tests.ingest.conftest import write_chunk


class Job:
    """An engine, its rows, and the chunks it has made shards of."""

    def __init__(self, settings: IngestSettings, place: EngineResources, name: str) -> None:
        folder = settings.input.parent / name
        self.settings = replace(settings, input=folder / "in", output=folder / "out")
        self.written: list[str] = []
        self.engine = Engine(self.settings, place, self.hear)

    def hear(self, message: Told) -> None:
        if isinstance(message, ShardDone):
            self.written.append(message.stats["chunk"])

    def add(self, chunk: str, urls: list[str]) -> None:
        write_chunk(self.settings, chunk, [("a", url) for url in urls])

    async def chunks(self) -> AsyncIterator[Chunk]:
        for chunk in find_chunks(self.settings.input):
            yield chunk

    async def run(self) -> None:
        await self.engine.run(self.chunks())


def at_most(settings: IngestSettings, per_host: int, in_flight: int = 64) -> IngestSettings:
    return replace(settings, load=replace(settings.load, per_host=per_host, in_flight=in_flight))


async def test_a_job_that_waits_for_its_host_does_not_hold_up_another(
    web: Web, settings: IngestSettings
) -> None:
    async with open_resources(at_most(settings, 1, in_flight=2), PoolInfo()) as place:
        stalled, quick = (Job(settings, place, name) for name in ("stalled", "quick"))
        stalled.add("0", [web.url("wide.jpg", Fault.STALLED, row) for row in range(5)])
        elsewhere = web.url("wide.jpg").replace("127.0.0.1", "localhost")
        quick.add("0", [f"{elsewhere}?row={row}" for row in range(5)])
        running = asyncio.create_task(stalled.run())
        await quick.run()
        assert (quick.written, stalled.written) == (["0"], [])
        web.release()
        await running
        assert stalled.written == ["0"]


async def test_jobs_share_a_host_s_limit_and_take_turns(web: Web, settings: IngestSettings) -> None:
    async with open_resources(at_most(settings, 1), PoolInfo()) as place:
        jobs = [Job(settings, place, name) for name in ("ours", "theirs")]
        for job in jobs:
            rows = range(24)
            job.add("0", [f"{web.url('wide.jpg', row=row)}&{id(job)}" for row in rows])
        await asyncio.gather(*(job.run() for job in jobs))
    asked = [request.path.rpartition("&")[2] for request in web.log]
    assert len(asked) == 48
    both = max(asked.index(f"{id(job)}") for job in jobs)  # have begun
    for end in range(both, both + 8):
        counts = Counter(asked[both:end])
        assert counts.total() - 2 * min(counts[f"{id(job)}"] for job in jobs) <= 2


async def test_a_job_that_ends_badly_or_is_stopped_leaves_its_places_to_others(
    web: Web, settings: IngestSettings
) -> None:
    async with open_resources(at_most(settings, 1), PoolInfo()) as place:
        broken, stopped, last = (Job(settings, place, name) for name in ("bad", "out", "last"))
        broken.add("0", [web.url("wide.jpg", row=1)])
        broken.settings.output.write_text("in the way of a directory")
        with pytest.raises(ExceptionGroup) as caught:
            await broken.run()
        assert caught.group_contains(NotADirectoryError)

        stopped.add("0", [web.url("wide.jpg", Fault.STALLED)])
        running = asyncio.create_task(stopped.run())
        await asyncio.to_thread(web.wait_for, 1)
        stopped.engine.stop_soon()
        web.release()
        with pytest.raises(ExceptionGroup) as caught:
            await running
        assert caught.group_contains(StoppedError)

        last.add("0", [web.url("wide.jpg", row=2)])
        await last.run()
        assert last.written == ["0"]
        assert repr(place.slots) == "<Slots: 0 at work, 0 of them aside>"


async def test_a_job_that_is_stopped_while_it_opens_a_chunk_lets_go_of_it(
    web: Web, settings: IngestSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, may_open, opened = (threading.Event() for _ in range(3))

    def open_late(*arguments: Any) -> object:
        opening.set()
        assert may_open.wait(20)
        job = open_job(*arguments)
        opened.set()
        return job

    async with open_resources(settings, PoolInfo()) as place:
        stopped, again = (Job(settings, place, "same") for _ in range(2))
        stopped.add("0", [web.url("wide.jpg")])
        with monkeypatch.context() as patched:
            patched.setattr(work_module, "open_job", open_late)
            running = asyncio.create_task(stopped.run())
            await asyncio.to_thread(opening.wait, 20)
            stopped.engine.stop_soon()
            for _ in range(20):
                await asyncio.sleep(0)
            may_open.set()
            with pytest.raises(ExceptionGroup) as caught:
                await running
            assert caught.group_contains(StoppedError)
            assert await asyncio.to_thread(opened.wait, 20)
        await again.run()  # its journal is locked, if another holds it
        assert again.written == ["0"]
