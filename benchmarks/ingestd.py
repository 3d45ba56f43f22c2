"""The ingest service: throughput, many jobs at once, SIGKILLs, memory.

    python -m benchmarks.ingestd throughput jobs kills memory [--rows N] [--rounds N]

Parts, each with the real command `capstan ingest serve` over a folder of its own:

    throughput  a job beside `capstan ingest` on the same rows, alternated; loopback nginx, JPEGs of
                90 KB kept as they came
    jobs        1,000 jobs of 20 rows from 50 clients at once, alone and while a large job runs: how
                soon submissions are answered, how soon small jobs end; every row is looked for
    kills       30 SIGKILLs by lot during a job, the service started again at once: no row lost or
                doubled, the same bytes as undisturbed, a client's stream of events that ends right
    memory      all processes over a job of 200,000 small bodies

Prints tables in Markdown. Exit status 1 when anything was lost.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

from benchmarks.ingest_rounds import machine
from benchmarks.ingestd_jobs import jobs
from benchmarks.ingestd_kills import kills
from benchmarks.ingestd_memory import memory
from benchmarks.ingestd_throughput import throughput
from capstan.errors import CapstanError

PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "throughput": throughput,
    "jobs": jobs,
    "kills": kills,
    "memory": memory,
}


def main() -> int:
    """Run the parts that were asked for."""
    arguments = parse()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}, {date.today()}: python -m benchmarks.ingestd {' '.join(sys.argv[1:])}")
    try:
        for name in arguments.parts:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                PARTS[name](Path(folder), arguments)
    except CapstanError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--rows", type=int, help="of the large job, in place of the part's own")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput")
    parser.add_argument("--jobs", type=int, default=1_000, help="small ones, of jobs")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the lot that kills are drawn by")
    parser.add_argument(
        "--service",
        type=lambda text: tuple(shlex.split(text)),
        default=(),
        metavar="FLAGS",
        help="more flags for the service, as in --service='--in-flight 512'",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench-ingestd"), help="on the disk to measure"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
