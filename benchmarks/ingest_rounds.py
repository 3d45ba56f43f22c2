"""Alternated runs of tools on one task, and the table of what came of them."""

import os
import platform
import shutil
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Self

from benchmarks.ingest_tools import Finished, Img2dataset, Tool, ToolTask
from capstan.errors import CapstanError

BLOCK = os.urandom(1 << 20)


@dataclass
class Scratch:
    """A folder of runs; each gets a fresh one below it, on the same disk."""

    folder: Path
    rounds: int = 3
    _numbers: "count[int]" = field(default_factory=count)

    def run(self, tool: Tool, task: ToolTask) -> Finished:
        """Run once and remove what was written, with the disk at rest before."""
        output = self.folder / f"run-{next(self._numbers)}"
        os.sync()
        finished = tool.run(task, output)
        shutil.rmtree(output)
        print(f"  {tool}: {finished.images:,} images in {finished.ran.seconds:.1f} s", flush=True)
        return finished

    def alternate(self, tools: Sequence[Tool], task: ToolTask) -> dict[str, list[Finished]]:
        """Every tool once in each round, in turn."""
        results: dict[str, list[Finished]] = {str(tool): [] for tool in tools}
        for _ in range(self.rounds):
            for tool in tools:
                results[str(tool)].append(self.run(tool, task))
        return results

    def best(self, peer: Img2dataset, threads: Iterable[int], task: ToolTask) -> Img2dataset:
        """The peer with the number of threads that is fastest at a task."""
        rates = {each: self.run(peer.with_threads(each), task).rate for each in threads}
        found = max(rates, key=lambda each: rates[each])
        tried = ", ".join(f"{each}: {rate:,.0f}/s" for each, rate in rates.items())
        print(f"threads tried for {peer.name}: {tried}; best: {found}", flush=True)
        return peer.with_threads(found)


def check_whole(results: dict[str, list[Finished]], rows: int) -> None:
    """Raise CapstanError when a run did not bring every row."""
    for name, runs in results.items():
        for run in runs:
            if run.images != rows:
                raise CapstanError(
                    f"{name}: {run.images:,} images of {rows:,} rows; {run.failures.most_common(3)}"
                )


def print_table(title: str, results: dict[str, list[Finished]], peer: str | None = None) -> None:
    """Print medians and, with the name of the peer's row, ratios to it; Markdown.

    Ratios per processor second tell less of what else the machine was doing.
    """
    columns = ("images/s", "spread", "ratio", "per processor s", "ratio", "images", "peak memory")
    print(f"\n| {title} | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    base = Medians.of(results[peer]) if peer else None
    for name, runs in results.items():
        print(f"| {name} | {' | '.join(Medians.of(runs).cells(base))} |")
    print(flush=True)


@dataclass(frozen=True)
class Medians:
    """Of several runs."""

    rate: float  # images per second
    slowest: float
    fastest: float
    processor_rate: float  # images per processor second
    images: float
    peak: float  # bytes

    @classmethod
    def of(cls, runs: Sequence[Finished]) -> Self:
        """The medians of some runs."""
        rates = [run.rate for run in runs]
        return cls(
            statistics.median(rates),
            min(rates),
            max(rates),
            statistics.median(run.images / run.ran.processor for run in runs),
            statistics.median(run.images for run in runs),
            statistics.median(run.ran.peak for run in runs),
        )

    def cells(self, base: "Medians | None") -> list[str]:
        """Texts of a table's line, with ratios to `base`."""
        return [
            f"{self.rate:,.0f}",
            f"{self.slowest:,.0f}-{self.fastest:,.0f}",
            _ratio(self.rate, base.rate) if base else "",
            f"{self.processor_rate:,.0f}",
            _ratio(self.processor_rate, base.processor_rate) if base else "",
            f"{self.images:,.0f}",
            f"{self.peak / 2**20:,.0f} MiB",
        ]


def _ratio(rate: float, base: float) -> str:
    return f"{rate / base:.2f} x" if base else "all"  # the base was killed with no shard whole


def print_without_start(
    results: dict[str, list[Finished]], starts: dict[str, float], peer: str
) -> None:
    """Print the rates less the seconds that each tool takes for next to no rows.

    Nothing is printed where those are most of the time: they vary too much to be taken off.
    """
    for name, runs in results.items():
        if starts[name] > min(run.ran.seconds for run in runs) / 2:
            print(
                f"too few rows to tell what {name} does without its start of {starts[name]:.1f} s"
            )
            return
    rates = {
        name: statistics.median(run.images / (run.ran.seconds - starts[name]) for run in runs)
        for name, runs in results.items()
    }
    for name, rate in rates.items():
        print(
            f"without the {starts[name]:.1f} s that it takes for next to no rows, {name}: "
            f"{rate:,.0f} images/s, {rate / rates[peer]:.2f} x"
        )


def disk_rate(folder: Path, size: int) -> float:
    """Bytes per second of one long write that ends on the disk itself."""
    path = folder / "disk"
    os.sync()
    started = time.monotonic()
    with path.open("wb") as file:
        for _ in range(max(1, size // len(BLOCK))):
            file.write(BLOCK)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.monotonic() - started
    path.unlink()
    return size / seconds


def machine() -> str:
    """The machine in a line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Python {platform.python_version()}"
