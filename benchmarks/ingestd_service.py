"""A `capstan ingest serve` that runs, and what clients ask of it, for `benchmarks.ingestd`.

with Service(folder / "data", ("--in-flight", "64")) as service:
    job = be_clients(service.url, lambda session: run_job(session, Submission("web.tsv", tsv)))
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from benchmarks.clients import Answers
from capstan.errors import CapstanError
from capstan.testing.ports import free_port

START_PATIENCE, STOP_PATIENCE = 30.0, 30.0  # seconds
END_PATIENCE = 900.0  # seconds for a job
UNFINISHED = ("queued", "running", "paused")
RECONNECT = 0.2  # seconds before a stream that broke is asked for again
Job = dict[str, Any]


class ServiceProcess:
    """The command over a data folder; it may be killed, and started again at the same address."""

    def __init__(self, data: Path, flags: tuple[str, ...] = ()) -> None:
        self.data = data
        self._log = data.with_suffix(".log")
        self._port = free_port()
        words = [sys.executable, "-m", "capstan.cli", "ingest", "serve", "--data", str(data)]
        words += ["--port", str(self._port), "--allow-private", "--per-host", "10000"]
        self._words = [*words, *flags]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self.process.pid

    def __repr__(self) -> str:
        return f"<Service {self.url} {self.data}>"

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    def start(self) -> None:
        """Start it; `wait_ready` tells when it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._words, stdout=log, stderr=log, start_new_session=True
            )

    def wait_ready(self) -> None:
        """Wait until it takes jobs; CapstanError if it does not come to that."""
        deadline = time.monotonic() + START_PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if self._is_ready():
                return
            time.sleep(0.01)
        self.kill()
        said = self._log.read_text(errors="replace").strip().splitlines()[-10:]
        raise CapstanError("\n".join(["the service did not start:", *said]))

    def kill(self, whole: bool = True) -> None:
        """SIGKILL to all its processes, or to the first alone."""
        with suppress(ProcessLookupError):  # it ended by itself
            if whole:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=START_PATIENCE):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False


# What clients ask


@dataclass(frozen=True)
class SentJob:
    """A job to be."""

    name: str
    tsv: bytes
    rows_per_chunk: int = 10_000
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Followed:
    """What a client saw of a job."""

    job: Job = field(default_factory=dict)  # as last told
    connections: int = 0
    ended: bool = False  # the stream said so


async def submit(session: ClientSession, job: SentJob, answers: Answers | None = None) -> Job:
    """Submit a job, again for as long as the service tells to wait; counts each answer."""
    query = {"name": job.name, "rows_per_chunk": str(job.rows_per_chunk), **job.options}
    headers = {"Content-Type": "text/tab-separated-values"}
    clock = asyncio.get_running_loop().time
    while True:
        begin = clock()
        async with session.post(
            "/api/jobs", params=query, data=job.tsv, headers=headers
        ) as response:
            said: Job = await response.json()
        if answers:
            answers.add(response.status, clock() - begin)
        if response.status == 201:
            return said
        if response.status != 429:
            raise CapstanError(f"{job.name}: answered {response.status}, {said.get('error')}")
        await asyncio.sleep(float(response.headers["Retry-After"]))


async def follow(session: ClientSession, job_id: str) -> Followed:
    """Follow a job's events to their end, connecting again whenever the stream breaks."""
    followed = Followed()
    try:
        async with asyncio.timeout(END_PATIENCE):
            while not followed.ended:
                try:
                    await _follow_once(session, job_id, followed)
                except (ClientError, ConnectionError):
                    await asyncio.sleep(RECONNECT)
    except TimeoutError as error:
        raise CapstanError(f"job {job_id} did not end within {END_PATIENCE:.0f} s") from error
    return followed


async def _follow_once(session: ClientSession, job_id: str, followed: Followed) -> None:
    path, endless = f"/api/jobs/{job_id}/events", ClientTimeout(total=None)
    async with session.get(path, timeout=endless, raise_for_status=True) as response:
        followed.connections += 1
        async for event, data in events(response):
            followed.job = json.loads(data)
            followed.ended |= event == "end"


async def events(response: ClientResponse) -> AsyncIterator[tuple[str, str]]:
    """Kind and data of the events of a stream (WHATWG HTML, 9.2.6) whose lines end in LF."""
    kind, data = "message", list[str]()
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(":")
        if name == "event":
            kind = value.removeprefix(" ")
        elif name == "data":
            data.append(value.removeprefix(" "))
        elif line == b"\n":
            if data:
                yield kind, "\n".join(data)
            kind, data = "message", []


async def run_job(session: ClientSession, job: SentJob) -> Job:
    """Submit a job and follow it to its end; CapstanError unless it is done."""
    submitted = await submit(session, job)
    ended = (await follow(session, submitted["id"])).job
    if ended["state"] != "done":
        raise CapstanError(f"{job.name}: {ended['state']}, {ended['why']}")
    return ended


async def show(session: ClientSession, job: Job) -> Job:
    """A job as it is now."""
    now: Job = json.loads(await fetch(session, f"/api/jobs/{job['id']}"))
    return now


async def fetch(session: ClientSession, path: str) -> bytes:
    """What an address of the service has; CapstanError for any answer but 200."""
    async with session.get(path) as response:
        body = await response.read()
    if response.status != 200:
        raise CapstanError(f"{path}: answered {response.status}, {body[:200].decode()}")
    return body


def shards_of(service: ServiceProcess, job: Job) -> Path:
    """Where a job's shards lie."""
    return service.data / "jobs" / str(job["id"]) / "shards"
