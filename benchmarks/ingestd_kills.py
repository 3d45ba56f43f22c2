"""The service killed again and again while a client follows its job: the part `kills`."""

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

from aiohttp import ClientSession

from benchmarks.clients import be_clients
from benchmarks.ingestd_service import (
    Followed,
    SentJob,
    ServiceProcess,
    follow,
    run_job,
    shards_of,
    submit,
)
from benchmarks.kills import CHUNK, IN_FLIGHT, PICTURES, report, row_paths, wait_for, write_rows
from capstan.errors import CapstanError
from capstan.testing.web import Web

ROWS = 20_000
YOUNG = 0.25  # of the kills: soon after a start, whether it answers yet or not
SOON = 1.5  # seconds
FLAGS = ("--processes", "2", "--in-flight", str(IN_FLIGHT))


def kills(folder: Path, arguments: argparse.Namespace) -> None:
    """Kill, start again, compare with what an undisturbed service made of the same TSV."""
    rows, flags = arguments.rows or ROWS, (*FLAGS, *arguments.service)
    with Web(PICTURES, slow=0.02) as web:
        write_rows(folder / "in", web, rows)
        tsv = b"".join(chunk.read_bytes() for chunk in sorted((folder / "in").iterdir()))
        submission = SentJob("web.tsv", tsv, CHUNK)
        with ServiceProcess(folder / "undisturbed", flags) as service:
            job = be_clients(service.url, lambda session: run_job(session, submission))
            undisturbed = shards_of(service, job)
        web.log.clear()
        with ServiceProcess(folder / "killed", flags) as service:

            async def work(session: ClientSession) -> Followed:
                job = await submit(session, submission)
                following = asyncio.create_task(follow(session, job["id"]))
                try:
                    await asyncio.to_thread(kill_often, service, web, rows, arguments)
                    return await following
                finally:
                    following.cancel()

            followed = be_clients(service.url, work)
        report_stream(followed)
        report(undisturbed, shards_of(service, followed.job), rows)
        report_asked_again(web, arguments.kills)


def kill_often(service: ServiceProcess, web: Web, rows: int, arguments: argparse.Namespace) -> None:
    """Kill so many times, each after a share of the requests or soon after the start.

    By lot all processes are killed or the first alone, which leaves workers behind; it is started
    again at once.
    """
    lot = random.Random(arguments.seed)
    number = arguments.kills
    for kill in range(number):
        if kill and lot.random() < YOUNG:
            time.sleep(lot.uniform(0, SOON))
        else:
            share = lot.randrange(1, 2 * rows * 9 // 10 // number)
            wait_for(web, len(web.log) + share, service.process)
        service.kill(whole=lot.random() < 0.5)
        service.start()
        print(f"\r{kill + 1} kills, {len(web.log):,} requests", end="", file=sys.stderr)
    print(file=sys.stderr)
    service.wait_ready()


def report_stream(followed: Followed) -> None:
    """Print what the client saw; CapstanError unless it was told that the job is done."""
    job = followed.job
    print(
        f"the client connected {followed.connections} times and was told of the end: {job['state']}"
    )
    if job["state"] != "done" or job["done"] != job["rows"]:
        raise CapstanError(f"the last event says {job['state']}, {job['done']} of {job['rows']}")


def report_asked_again(web: Web, kills: int) -> None:
    """Print how many rows were asked for again; CapstanError if more than were in flight."""
    asked = row_paths(web, 0)
    again = len(asked) - len(set(asked))
    print(
        f"{kills} SIGKILLs; rows asked for again: {again / kills:.0f} a kill "
        f"(in flight: at most {2 * IN_FLIGHT})\n"
    )
    if again > kills * 2 * IN_FLIGHT:
        raise CapstanError("rows were asked for again without need")
