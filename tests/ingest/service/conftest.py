"""A service in this process with real workers, and a local web for its rows."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ingestd_service import ServiceProcess as Running
from capstan.ingest.config import Concurrency, RetryPolicy
from capstan.ingest.config import HttpOptions as WebSettings
from capstan.ingest.service.config import ServiceLimits, ServiceSettings
from capstan.ingest.service.jobs import ENDED, Job
from capstan.ingest.service.service import IngestService
from capstan.testing.web import Fault, Web
from tests.ingest.conftest import encode, gradient
from tests.ingest.service.running import FLAGS

PATIENCE = 40.0  # seconds


@pytest.fixture(scope="session")
def tsvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The --tsv-root of `service`."""
    return tmp_path_factory.mktemp("tsvs")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, tsvs: Path) -> Iterator[Running]:
    """A real `capstan ingest serve` that asks nobody for a token."""
    flags = (*FLAGS, "--tsv-root", str(tsvs), "--max-upload", str(64 << 20))
    with Running(tmp_path_factory.mktemp("service") / "data", flags) as running:
        yield running


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A small JPEG."""
    return encode(gradient(64, 48), quality=90)


@pytest.fixture
def web(picture: bytes) -> Iterator[Web]:
    """A local web of one picture."""
    with Web({"a.jpg": picture}, slow=0.05) as served:
        yield served


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    """One worker, no waits between attempts, a disk of any fullness."""
    return ServiceSettings(
        tmp_path / "data",
        limits=ServiceLimits(min_free=0),
        web=WebSettings(allow_private=True, timeout=20.0),
        patience=RetryPolicy(first_wait=0.0, longest_wait=0.0),
        load=Concurrency(processes=1),
    )


def rows_of(web: Web, count: int, fault: Fault = Fault.NONE, first: int = 0) -> bytes:
    """A TSV of rows with addresses of their own."""
    numbers = range(first, first + count)
    return b"".join(f"row {n}\t{web.url('a.jpg', fault, n)}\n".encode() for n in numbers)


async def submit(
    service: IngestService,
    tsv: bytes,
    name: str = "a.tsv",
    rows_per_chunk: int = 10_000,
    **options: Any,
) -> Job:
    """Submit a TSV."""
    async with service.submitting(name, options, rows_per_chunk) as submission:
        await submission.write(tsv)
        job, is_new = await submission.finish()
    assert is_new
    return job


async def until(service: IngestService, id: str, holds: Callable[[Job], bool]) -> Job:
    """Wait until something holds of a job."""
    async with asyncio.timeout(PATIENCE):
        with service.watch(id) as watch:
            while not holds(job := service.job(id)):
                await watch.next_changes(1.0)
    return job


async def end_of(service: IngestService, id: str) -> Job:
    """Wait until a job is ended."""
    return await until(service, id, lambda job: job.state in ENDED)
