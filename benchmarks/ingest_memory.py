"""Memory and start of capstan as a run grows: the parts `memory` and `start` of the benchmark."""

import argparse
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.ingest_rounds import Scratch, check_whole
from benchmarks.ingest_tools import Capstan, Finished, Task, write_rows
from benchmarks.nginx import free_port
from benchmarks.photolike import SMALLEST
from benchmarks.processes import kill_tree
from benchmarks.simulated_web import SimulatedWeb
from benchmarks.virtual_hosts import Host

STEPS = (10_000, 100_000, 1_000_000)  # rows
SHARD = 2_000  # rows, so that no run is short of shards
HOSTS = 50
LIMIT = 7_200.0  # seconds
MIB = 1 << 20
PATIENCE = 120.0  # seconds for the first request


@dataclass(frozen=True)
class Size:
    """What a run's processes held together."""

    rows: int
    run: Finished

    @property
    def steady(self) -> float:
        """Bytes, the median over the run."""
        return median(self.run.ran.memory)


def memory(folder: Path, arguments: argparse.Namespace) -> None:
    """Small bodies, ever more rows."""
    most = arguments.rows or STEPS[-1]
    capstan = Capstan(arguments.per_host, arguments.capstan)
    scratch = Scratch(folder)
    hosts = [Host(f"host-{number}") for number in range(HOSTS)]
    sizes = []
    with SimulatedWeb(hosts) as web:
        for count in [step for step in STEPS if step < most] + [most]:
            urls = [
                web.url(f"host-{row % HOSTS}", f"{SMALLEST}.jpg", row=row) for row in range(count)
            ]
            task = Task(write_rows(folder / f"rows-{count}", urls, SHARD), limit=LIMIT)
            sizes.append(Size(count, scratch.run(capstan, task)))
            check_whole({str(capstan): [sizes[-1].run]}, count)
    print_sizes(sizes)


def print_sizes(sizes: list[Size]) -> None:
    """Print a table, in Markdown; ratios to the shortest run."""
    print("\n| rows | peak memory | ratio | median memory | ratio | images/s |")
    print("|---|---|---|---|---|---|")
    first = sizes[0]
    for size in sizes:
        peak = size.run.ran.peak
        print(
            f"| {size.rows:,} | {peak / MIB:,.0f} MiB | {peak / first.run.ran.peak:.2f} x "
            f"| {size.steady / MIB:,.0f} MiB | {size.steady / first.steady:.2f} x "
            f"| {size.run.rate:,.0f} |"
        )
    print(flush=True)


def start(folder: Path, arguments: argparse.Namespace) -> None:
    """Seconds until the first request, of ever more rows; the run is killed then."""
    capstan = Capstan(arguments.per_host, arguments.capstan)
    print("\n| rows | chunks | first request after |\n|---|---|---|")
    port = free_port()
    for count in STEPS:
        urls = [f"http://127.0.0.1:{port}/{row}.jpg" for row in range(count)]
        task = Task(write_rows(folder / f"start-{count}", urls, SHARD))
        seconds = [seconds_to_first_request(port, capstan, task) for _ in range(arguments.rounds)]
        print(
            f"| {count:,} | {count // SHARD:,} | {median(seconds):.2f} s "
            f"({min(seconds):.2f}-{max(seconds):.2f}) |",
            flush=True,
        )


def seconds_to_first_request(port: int, capstan: Capstan, task: Task) -> float:
    """From the start of a command to its first connection to a port of loopback."""
    with (
        tempfile.TemporaryDirectory() as output,
        socket.create_server(("127.0.0.1", port)) as server,
    ):
        server.settimeout(PATIENCE)
        began = time.monotonic()
        words = capstan.words(task, Path(output) / "images")
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        try:
            server.accept()[0].close()
            return time.monotonic() - began
        finally:
            kill_tree(process)
