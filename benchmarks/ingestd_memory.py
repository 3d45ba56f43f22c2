"""The memory of the service and its workers over a long job: the part `memory`."""

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiohttp import ClientSession

from benchmarks.clients import be_clients
from benchmarks.ingestd_jobs import HOSTS, JobRows, check
from benchmarks.ingestd_service import UNFINISHED, Job, ServiceProcess, show, submit
from benchmarks.processes import memory_of
from capstan.errors import CapstanError
from capstan.testing.simulated_web import SimulatedWeb
from capstan.testing.virtual_hosts import VirtualHost

ROWS = 200_000
INTERVAL = 0.5  # seconds
LINES = 10  # of the table
MIB = 1 << 20


@dataclass(frozen=True)
class MemorySample:
    """What was held when so many rows were done, in bytes."""

    done: int
    all: int  # processes together
    service: int  # the first process alone


def memory(folder: Path, arguments: argparse.Namespace) -> None:
    """Small bodies, many rows."""
    count = arguments.rows or ROWS
    with (
        SimulatedWeb([VirtualHost(f"host-{number}") for number in range(HOSTS)]) as web,
        ServiceProcess(folder / "data", arguments.service) as service,
    ):
        submission = JobRows(web).submission("long.tsv", count)

        async def work(session: ClientSession) -> list[MemorySample]:
            job = await submit(session, submission)
            samples = await watch(session, job, service.pid)
            await check(session, [(job, submission)])
            return samples

        print_samples(be_clients(service.url, work), count)


async def watch(session: ClientSession, job: Job, pid: int) -> list[MemorySample]:
    """Samples until a job ends."""
    samples = []
    process = psutil.Process(pid)
    while (now := await show(session, job))["state"] in UNFINISHED:
        together = await asyncio.to_thread(memory_of, pid)
        samples.append(MemorySample(now["done"], together, process.memory_info().rss))
        await asyncio.sleep(INTERVAL)
    if len(samples) < LINES:
        raise CapstanError("the job ended too soon to tell of its memory: give more --rows")
    return samples


def print_samples(samples: list[MemorySample], rows: int) -> None:
    """Print the most that was held in each tenth of the job, in Markdown."""
    print(f"\n| rows of {rows:,} | all processes | ratio | the service's first process |")
    print("|---|---|---|---|")
    step = rows / LINES
    parts = [[each for each in samples if each.done // step == line] for line in range(LINES)]
    first = max(each.all for each in parts[0])
    for line, part in enumerate(parts):
        if part:
            most, alone = max(each.all for each in part), max(each.service for each in part)
            print(
                f"| to {step * (line + 1):,.0f} | {most / MIB:,.0f} MiB | {most / first:.2f} x "
                f"| {alone / MIB:,.0f} MiB |"
            )
    print(flush=True)
