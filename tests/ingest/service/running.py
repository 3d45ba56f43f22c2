"""Clients of a real `capstan ingest serve`, and a local web for its rows."""

import io
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from aiohttp import ClientSession
from PIL import Image

from benchmarks.ingestd_service import SentJob, ServiceProcess, run_job
from capstan.testing.web import Fault, Web

FLAGS = ("--processes", "1", "--in-flight", "16")
Line = tuple[str, str]  # caption, address


def jpeg(number: int) -> bytes:
    """A small picture of a colour of its own."""
    file = io.BytesIO()
    Image.new("RGB", (48, 32), ((37 * number) % 256, 90, 160)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="session")
def web() -> Iterator[Web]:
    """Where pictures are."""
    with Web({f"{number}.jpg": jpeg(number) for number in range(8)}) as served:
        yield served


@pytest.fixture
async def session(service: ServiceProcess) -> AsyncIterator[ClientSession]:
    """A client of it."""
    async with ClientSession(service.url) as client:
        yield client


def lines(web: Web, rows: int, first: int = 0, failing: int = 4) -> list[Line]:
    """Rows for a job, of which one in `failing` is not found; addresses begin at a number."""
    return [
        (
            f"picture {number}",
            web.url(
                f"{number % 8}.jpg",
                Fault.NONE if number % failing else Fault.NOT_FOUND,
                row=first + number,
            ),
        )
        for number in range(rows)
    ]


def tsv(rows: Sequence[Line]) -> bytes:
    """As a TSV."""
    return "".join(f"{caption}\t{url}\n" for caption, url in rows).encode()


async def done(session: ClientSession, rows: Sequence[Line], chunk: int = 10) -> dict[str, Any]:
    """A job of these rows, done."""
    return await run_job(session, SentJob("web.tsv", tsv(rows), chunk))
