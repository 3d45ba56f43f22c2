"""Many small jobs from many clients at once, with and without a large one: the part `jobs`."""

import argparse
import asyncio
import io
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

import pyarrow.compute as pc
import pyarrow.parquet as pq
from aiohttp import ClientSession

from benchmarks.clients import Answers, be_clients
from benchmarks.ingestd_service import (
    UNFINISHED,
    Job,
    SentJob,
    ServiceProcess,
    fetch,
    follow,
    run_job,
    show,
    submit,
)
from capstan.errors import CapstanError
from capstan.testing.photolike import SMALLEST
from capstan.testing.simulated_web import SimulatedWeb
from capstan.testing.virtual_hosts import VirtualHost

CLIENTS, SMALL = 50, 20  # the latter: rows of a small job
LARGE = 200_000  # rows of the large one
CHUNK = 2_000  # rows
SINGLE = 10  # small jobs, one after the other
HOSTS = 50
COLUMNS = (
    "accepted",
    "answer to a submission",
    "told to wait",
    "all submitted after",
    "all ended after",
    f"one small job (of {SINGLE})",
)


Submitted = list[tuple[Job, SentJob]]


@dataclass(frozen=True)
class Burst:
    """What many clients saw."""

    answers: Answers  # to submissions
    finished: float  # seconds from the first submission to the end of the last job


class JobRows:
    """Rows for jobs, each with an address of its own."""

    def __init__(self, web: SimulatedWeb) -> None:
        self._web, self._numbers = web, count()

    def submission(self, name: str, rows: int) -> SentJob:
        """A job of so many rows."""
        numbers = [next(self._numbers) for _ in range(rows)]
        lines = [f"row {number}\t{self._url(number)}\n" for number in numbers]
        return SentJob(name, "".join(lines).encode(), CHUNK)

    def _url(self, number: int) -> str:
        return self._web.url(f"host-{number % HOSTS}", f"{SMALLEST}.jpg", row=number)


def jobs(folder: Path, arguments: argparse.Namespace) -> None:
    """Small jobs alone, then while a large one runs."""
    small, large = arguments.jobs, arguments.rows or LARGE
    with (
        SimulatedWeb([VirtualHost(f"host-{number}") for number in range(HOSTS)]) as web,
        ServiceProcess(folder / "data", arguments.service) as service,
    ):
        rows = JobRows(web)

        async def work(session: ClientSession) -> None:
            print_line("alone", await burst(session, rows, small), await one_by_one(session, rows))
            submission = rows.submission("large.tsv", large)
            job = await submit(session, submission)
            seen, seconds = await burst(session, rows, small), await one_by_one(session, rows)
            share = await share_done(session, job)
            print_line(f"beside a job of {large:,} rows", seen, seconds)
            ended = (await follow(session, job["id"])).job
            await check(session, [(ended, submission)])
            print(
                f"\nno row lost or doubled; the large job was {share:.0%} done after the others\n"
            )

        print(f"\n{small:,} jobs of {SMALL} rows from {CLIENTS} clients at once")
        print(f"\n| | {' | '.join(COLUMNS)} |")
        print("|---" * (len(COLUMNS) + 1) + "|", flush=True)
        be_clients(service.url, work)


def print_line(name: str, seen: Burst, seconds: list[float]) -> None:
    """Print a line of the table, in Markdown."""
    accepted, refused = seen.answers.count(201), seen.answers.count(429)
    cells = (
        f"{accepted:,}",
        seen.answers.latency(201),
        f"{refused:,}",
        f"{seen.answers.seconds:.1f} s",
        f"{seen.finished:.1f} s",
        f"{median(seconds):.2f} s, at most {max(seconds):.2f} s",
    )
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


async def burst(session: ClientSession, rows: JobRows, number: int) -> Burst:
    """Submit so many jobs from all clients at once and wait until all have ended well."""
    answers, submitted = Answers(), Submitted()
    waiting = iter([rows.submission(f"small-{job}.tsv", SMALL) for job in range(number)])
    begin = time.monotonic()

    async def client() -> None:
        for submission in waiting:
            submitted.append((await submit(session, submission, answers), submission))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    answers.seconds = time.monotonic() - begin
    following = iter([job["id"] for job, _ in submitted])

    async def follower() -> None:
        for job_id in following:
            await follow(session, job_id)

    await asyncio.gather(*(follower() for _ in range(CLIENTS)))
    seen = Burst(answers, time.monotonic() - begin)
    await check(session, submitted)
    return seen


async def one_by_one(session: ClientSession, rows: JobRows) -> list[float]:
    """Seconds from submission to end of small jobs, each submitted after the one before."""
    seconds = []
    for number in range(SINGLE):
        begin = time.monotonic()
        await run_job(session, rows.submission(f"single-{number}.tsv", SMALL))
        seconds.append(time.monotonic() - begin)
    return seconds


async def share_done(session: ClientSession, job: Job) -> float:
    """How much of a job is done; CapstanError if all of it is."""
    now = await show(session, job)
    if now["state"] not in UNFINISHED:
        raise CapstanError("the large job ended before the small ones: give more --rows")
    return float(now["done"] / now["rows"])


async def check(session: ClientSession, submitted: Iterable[tuple[Job, SentJob]]) -> None:
    """Raise CapstanError unless every row of these jobs came to one picture of its own address."""
    for job, submission in submitted:
        body = await fetch(session, f"/api/jobs/{job['id']}/outcomes.parquet")
        table = pq.read_table(io.BytesIO(body), columns=["url", "status"])
        pictures = table.filter(pc.equal(table["status"], "success"))["url"].to_pylist()
        asked = [line.rpartition("\t")[2] for line in submission.tsv.decode().splitlines()]
        if pictures != asked:
            raise CapstanError(
                f"{submission.name}: {len(asked)} rows, {table.num_rows} outcomes, "
                f"{len(set(pictures) & set(asked))} of the pictures"
            )
