"""`capstan load` of a long TSV: rows/s and peak memory, of the split alone and of all.

    python -m benchmarks.load [--rows N] [--like TSV] [--address grpc://HOST:PORT]

The TSV is made of the rows of --like again and again, each with its number added to the caption so
that no chunk is like another; without it, of made-up rows as long as those of Conceptual Captions.
It is loaded into the project --project of the Pachyderm at --address, whose repo rawdata it fills,
or else into a server in this process that speaks the protocol, counts the bytes and drops them.
Then it is loaded again, unchanged (not into the latter, which has dropped it), and with one row
changed. Nothing else may write to the repo meanwhile.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import ProcessRun, run
from capstan.chunks import PIECE, boundaries
from capstan.pachyderm.connection import ADDRESS, PROJECT
from capstan.testing.pachd import Pachd

CHUNK = 10_000  # rows
LIMIT = 3_600.0  # seconds
MADE_UP = b"%s\thttp://host-%d.example/pictures/%032d.jpg\n"
WORDS = b"a person in a hat walks along the street beside a very old yellow house"
MIB = 1 << 20


def main() -> None:
    """Make the TSV, load it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_300_000)
    parser.add_argument("--like", type=Path, help="a TSV to take rows from")
    parser.add_argument("--address", help="of a Pachyderm to load into")
    parser.add_argument("--project", default="default")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="capstan-load-") as folder:
        tsv = Path(folder) / "long.tsv"
        write(tsv, arguments.rows, arguments.like)
        size = tsv.stat().st_size
        print(f"{arguments.rows:,} rows, {size / MIB:,.0f} MiB, {os.cpu_count()} cores\n")
        print("| | seconds | rows/s | peak memory |\n|---|---|---|---|", flush=True)
        line("split alone", split(tsv), arguments.rows)
        with server(arguments) as environment:
            load("load", tsv, environment, arguments.rows)
            if arguments.address:
                load("load again, unchanged", tsv, environment, arguments.rows)
                with tsv.open("r+b") as file:
                    file.write(b"A")
                load("load again, one row changed", tsv, environment, arguments.rows)


def write(tsv: Path, rows: int, like: Path | None) -> None:
    """Write a TSV of so many different rows."""
    lines = like.read_bytes().splitlines() if like else made_up()
    with tsv.open("wb") as file:
        for number, row in enumerate(islice(cycle(lines), rows)):
            caption, _, rest = row.partition(b"\t")
            file.write(b"%s %d\t%s\n" % (caption, number, rest))


def made_up() -> list[bytes]:
    """Rows as long as people's."""
    return [
        MADE_UP[:-1] % (WORDS[number % 20 : 40 + number % 32], number % 997, number)
        for number in range(10_000)
    ]


def split(tsv: Path) -> float:
    """Seconds to find where chunks begin and to read them, as a load does with a new TSV."""
    started = time.monotonic()
    with tsv.open("rb") as file:
        spans = list(boundaries(file, CHUNK))
        file.seek(0)
        while file.read(PIECE):
            pass
    assert spans[-1][1] == tsv.stat().st_size
    return time.monotonic() - started


@contextmanager
def server(arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The environment that names the server."""
    if arguments.address:
        yield {**os.environ, ADDRESS: arguments.address, PROJECT: arguments.project}
        return
    with Pachd() as pachd:
        pachd.repos["rawdata"], pachd.keep = [], False
        yield {**os.environ, ADDRESS: pachd.address, PROJECT: "photos"}
        print(f"\nreceived: {sum(size for _, _, size in pachd.streams[0]) / MIB:,.0f} MiB")


def load(what: str, tsv: Path, environment: dict[str, str], rows: int) -> None:
    """Run the command and print how it did."""
    log = tsv.with_name("log")
    words = [sys.executable, "-m", "capstan.cli", "load", str(tsv), "--rows", str(CHUNK)]
    ran = run(words, environment, log, LIMIT)
    line(
        f"{what}: {log.read_text().splitlines()[-1].rpartition('chunks: ')[2]}",
        ran.seconds,
        rows,
        ran,
    )


def line(what: str, seconds: float, rows: int, ran: ProcessRun | None = None) -> None:
    """Print a row of the table."""
    memory = f"{ran.peak / MIB:,.0f} MiB" if ran else ""
    print(f"| {what} | {seconds:.1f} | {rows / seconds:,.0f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
