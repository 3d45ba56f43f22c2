"""How soon capstan begins, however many rows there are: the part `start` of the benchmark."""

import argparse
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.ingest_memory import SHARD, STEPS
from benchmarks.ingest_tools import Capstan, ToolTask, write_rows
from benchmarks.processes import kill_tree
from capstan.testing.ports import free_port

PATIENCE = 120.0  # seconds for the first request


def start(folder: Path, arguments: argparse.Namespace) -> None:
    """Seconds until the first request, of ever more rows; the run is killed then."""
    capstan = Capstan(arguments.per_host, arguments.capstan)
    print("\n| rows | chunks | first request after |\n|---|---|---|")
    port = free_port()
    for count in STEPS:
        urls = [f"http://127.0.0.1:{port}/{row}.jpg" for row in range(count)]
        task = ToolTask(write_rows(folder / f"start-{count}", urls, SHARD))
        seconds = [seconds_to_first_request(port, capstan, task) for _ in range(arguments.rounds)]
        print(
            f"| {count:,} | {count // SHARD:,} | {median(seconds):.2f} s "
            f"({min(seconds):.2f}-{max(seconds):.2f}) |",
            flush=True,
        )


def seconds_to_first_request(port: int, capstan: Capstan, task: ToolTask) -> float:
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
