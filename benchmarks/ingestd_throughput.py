"""A job through the service beside `capstan ingest` on the same rows: the part `throughput`."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.clients import be_clients
from benchmarks.ingest_rounds import Scratch, check_whole, print_table
from benchmarks.ingest_tools import Capstan, Finished, Tool, ToolTask, capstan_finished, write_rows
from benchmarks.ingestd_service import SentJob, ServiceProcess, run_job
from benchmarks.nginx import Behaviour, photo_urls, photos_served
from benchmarks.processes import ProcessRun, memory_watched, processor_seconds_of

ROWS, SHARD, START_ROWS = 20_000, 10_000, 20
AS_THEY_CAME = {"resize_mode": "no", "check": "header"}  # as `Capstan` asks for


@dataclass(frozen=True)
class ThroughService:
    """A job of a service that runs already, from its submission to the end of its events."""

    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(["a job of capstan ingest serve", *self.flags])

    def run(self, task: ToolTask, output: Path) -> Finished:
        """Do the task with a service over a fresh folder."""
        chunks = sorted(task.rows.chunks.glob("*/*"))
        tsv = b"".join(chunk.read_bytes() for chunk in chunks)
        job = SentJob("web.tsv", tsv, task.rows.shard, AS_THEY_CAME)
        with ServiceProcess(output, self.flags) as service, memory_watched(service.pid) as samples:
            processor, started = processor_seconds_of(service.pid), time.monotonic()
            be_clients(service.url, lambda session: run_job(session, job))
            seconds = time.monotonic() - started
            processor = processor_seconds_of(service.pid) - processor
        return capstan_finished(ProcessRun(seconds, processor, tuple(samples)), output)


def throughput(folder: Path, arguments: argparse.Namespace) -> None:
    """Compare on files that nginx serves."""
    count = arguments.rows or ROWS
    scratch = Scratch(folder, arguments.rounds)
    command, service = Capstan(), ThroughService(arguments.service)
    tools: list[Tool] = [command, service]
    with photos_served(folder, Behaviour()) as nginx:
        urls = photo_urls(nginx, count)
        few = ToolTask(write_rows(folder / "few", urls[:START_ROWS], START_ROWS // 2))
        starts = scratch.alternate(tools, few)
        task = ToolTask(write_rows(folder / "all", urls, min(SHARD, -(-count // 2))))
        results = scratch.alternate(tools, task)
    check_whole(results, count)
    print_table(f"originals of 90 KB, kept connections, {count:,} rows", results, str(command))
    print_start(*(_seconds(starts[str(tool)]) for tool in tools))
    bare = count / (_seconds(results[str(command)]) - _seconds(starts[str(command)]))
    ratio = count / _seconds(results[str(service)]) / bare
    print(
        f"against the command without its {START_ROWS} rows' time, the job reaches {ratio:.2f} x\n"
    )


def print_start(command: float, service: float) -> None:
    """Say how the start counts."""
    print(
        "The table counts all of the command, its start and end included; of the service, which "
        f"runs before, what a client waits from submitting the job to its end. {START_ROWS} rows "
        f"take the command {command:.2f} s, a job {service:.2f} s."
    )


def _seconds(runs: Sequence[Finished]) -> float:
    return median(run.ran.seconds for run in runs)
