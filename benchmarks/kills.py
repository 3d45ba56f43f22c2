"""Nothing lost: `capstan ingest` killed with SIGKILL again and again, then let end.

    python -m benchmarks.kills [--kills 100] [--rows 20000]

All processes of a run are killed together, after a number of requests drawn by lot from a seed. The
local web's own log says which addresses were asked for again; the shards of the last run are held
against those of an undisturbed one, byte for byte.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from capstan.errors import CapstanError
from capstan.files import data_files
from capstan.testing.photolike import rung
from capstan.testing.web import Fault, Web

CHUNK = 2_000  # rows
FAULTS = [*[Fault.NONE] * 17, Fault.NOT_FOUND, Fault.HTML, Fault.REDIRECT]
IN_FLIGHT = 64  # of each of the processes, where no slow request steps aside
PICTURES = {f"{step}.jpg": rung(step) for step in range(4, 12)}
PATIENCE = 120.0  # seconds without a request


@dataclass
class Asked:
    """Which rows the runs asked for, and which kill each that was asked for again had met.

    That need not be the last kill: a run may itself be killed before it comes to such a row.
    """

    last: dict[str, int] = field(default_factory=dict)  # run that asked for a row, of each row
    again: Counter[int] = field(default_factory=Counter)  # rows, by the run they were lost with

    def note(self, run: int, rows: Set[str]) -> None:
        """Count the rows that a run asked for."""
        self.again.update(self.last[row] for row in rows & self.last.keys())
        self.last.update(dict.fromkeys(rows, run))


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description="Kill capstan ingest again and again.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Web(PICTURES, slow=0.02) as web:
        folder = Path(name)
        write_rows(folder / "in", web, arguments.rows)
        start(folder, "undisturbed").wait()
        web.log.clear()
        asked = kill_often(folder, web, arguments)
        last = len(web.log)
        if start(folder, "killed").wait():
            raise CapstanError("the last run failed")
        asked.note(arguments.kills, rows_asked(web, last))
        report(folder / "undisturbed", folder / "killed", arguments.rows)
        report_asked_again(arguments.kills, asked.again)


def write_rows(directory: Path, web: Web, rows: int) -> None:
    """Chunks of rows, each with an address of its own, one in seven with a fault."""
    directory.mkdir()
    names = sorted(PICTURES)
    for first in range(0, rows, CHUNK):
        with (directory / f"{first // CHUNK:04d}").open("w") as chunk:
            for row in range(first, min(rows, first + CHUNK)):
                url = web.url(names[row % len(names)], FAULTS[row % len(FAULTS)], row)
                chunk.write(f"row {row}\t{url}\n")


def start(folder: Path, output: str) -> "subprocess.Popen[bytes]":
    """Begin a run in a session of its own, quietly."""
    words = [sys.executable, "-m", "capstan.cli", "ingest", "--input", str(folder / "in")]
    words += ["--output", str(folder / output), "--allow-private", "--per-host", "10000"]
    words += ["--in-flight", str(IN_FLIGHT), "--aside", "0", "--processes", "2"]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)


def kill_often(folder: Path, web: Web, arguments: argparse.Namespace) -> Asked:
    """Kill so many runs, each after a share of the requests."""
    lot, asked = random.Random(arguments.seed), Asked()
    share = arguments.rows * 9 // 10 // arguments.kills
    for number in range(arguments.kills):
        begin = len(web.log)
        wanted = lot.randrange(1, 2 * (share + IN_FLIGHT))  # many of them of the run before
        process = start(folder, "killed")
        wait_for(web, begin + wanted, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        settle(web)
        asked.note(number, rows_asked(web, begin))
        print(f"\r{number + 1} kills, {len(asked.last):,} rows asked for", end="", file=sys.stderr)
    print(file=sys.stderr)
    return asked


def wait_for(web: Web, requests: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait for so many requests in all; CapstanError if the run ends before."""
    deadline = time.monotonic() + PATIENCE
    while len(web.log) < requests:
        if process.poll() is not None or time.monotonic() > deadline:
            raise CapstanError("the run ended before it was killed: more --rows, or fewer --kills")
        time.sleep(0.001)


def settle(web: Web) -> None:
    """Wait until the killed run's requests have ended."""
    while web.open:
        time.sleep(0.01)


def rows_asked(web: Web, begin: int) -> set[str]:
    """The rows whose first address was asked for, from a line of the log on."""
    return set(row_paths(web, begin))


def row_paths(web: Web, begin: int) -> list[str]:
    """The first addresses of rows, as often as they were asked for from a line of the log on."""
    paths = (request.path for request in web.log[begin:])
    return [path for path in paths if "hop=" not in path]


def report(undisturbed: Path, killed: Path, rows: int) -> None:
    """Print how the shards of two folders differ; CapstanError if any was lost or doubled."""
    files = {
        folder: {path.relative_to(folder): path for path in data_files(folder)}
        for folder in (undisturbed, killed)
    }
    keys = Counter[str]()
    for path in files[killed].values():
        if path.suffix == ".parquet":
            keys.update(pq.read_table(path, columns=["key"])["key"].to_pylist())
    lost, doubled = rows - len(keys), keys.total() - len(keys)
    same = files[undisturbed].keys() == files[killed].keys() and all(
        path.read_bytes() == files[killed][name].read_bytes()
        for name, path in files[undisturbed].items()
    )
    print(f"{rows:,} rows: {lost} lost, {doubled} doubled")
    print(f"shards {'equal' if same else 'DIFFER FROM'} those of an undisturbed run, byte for byte")
    if lost or doubled or not same:
        raise CapstanError("something was lost, doubled or changed")


def report_asked_again(kills: int, again: Counter[int]) -> None:
    """Print how many rows were asked for again for each kill; CapstanError if too many."""
    most = max(again.values(), default=0)
    print(f"{kills} SIGKILLs; rows asked for again: {again.total():,} in all, at most", end=" ")
    print(f"{most} for one kill (in flight: at most {2 * IN_FLIGHT})")
    if most > 2 * IN_FLIGHT:
        raise CapstanError("rows were asked for again without need")


if __name__ == "__main__":
    main()
