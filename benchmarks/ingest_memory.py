"""The memory of capstan's processes as a run grows: the part `memory` of the benchmark."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.ingest_rounds import Scratch, check_whole
from benchmarks.ingest_tools import Capstan, Finished, ToolTask, write_rows
from capstan.testing.photolike import SMALLEST
from capstan.testing.simulated_web import SimulatedWeb
from capstan.testing.virtual_hosts import VirtualHost

STEPS = (10_000, 100_000, 1_000_000)  # rows
SHARD = 2_000  # rows, so that no run is short of shards
HOSTS = 50
LIMIT = 7_200.0  # seconds
MIB = 1 << 20


@dataclass(frozen=True)
class MemoryPeak:
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
    hosts = [VirtualHost(f"host-{number}") for number in range(HOSTS)]
    sizes = []
    with SimulatedWeb(hosts) as web:
        for count in [step for step in STEPS if step < most] + [most]:
            urls = [
                web.url(f"host-{row % HOSTS}", f"{SMALLEST}.jpg", row=row) for row in range(count)
            ]
            task = ToolTask(write_rows(folder / f"rows-{count}", urls, SHARD), limit=LIMIT)
            sizes.append(MemoryPeak(count, scratch.run(capstan, task)))
            check_whole({str(capstan): [sizes[-1].run]}, count)
    print_sizes(sizes)


def print_sizes(sizes: list[MemoryPeak]) -> None:
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
