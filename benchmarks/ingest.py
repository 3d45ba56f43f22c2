"""`capstan ingest` beside img2dataset on the same local web, as whole processes, in turn.

    python -m benchmarks.ingest kept new-connections tls tls-new resized [--rows N] [--rounds N]

Parts:

    kept             originals, connections kept open; loopback nginx, JPEGs of 90 KB
    new-connections  the same with a connection for each row
    tls, tls-new     the same over TLS
    resized          to 256 pixels, aspect ratio kept, JPEG quality 95
    replay           originals from the simulated web of --report (`benchmarks/replay.py`)
    harsh            the same with a fifth of the hosts dead or trickling
    polite           the same with a rate limit at every host; capstan alone, judged by the log
    memory           capstan alone on 10,000, 100,000 and 1,000,000 small bodies, or up to --rows
    start            capstan alone: how soon the first of as many rows is asked for

Every row has a URL of its own. img2dataset runs in an environment that is made for it, with the
number of threads that is fastest at the part, without EXIF. Prints tables in Markdown.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from benchmarks.ingest_memory import memory
from benchmarks.ingest_replay import harsh, polite, replay
from benchmarks.ingest_rounds import (
    Scratch,
    check_whole,
    disk_rate,
    machine,
    print_table,
    print_without_start,
)
from benchmarks.ingest_start import start
from benchmarks.ingest_tools import (
    Capstan,
    Finished,
    Img2dataset,
    Tool,
    ToolTask,
    peer_python,
    write_rows,
)
from benchmarks.nginx import Behaviour, photo_urls, photos_served
from capstan.errors import CapstanError

SHARD = 10_000  # rows at most
START_ROWS = 20
CALIBRATION = 3  # the peer's threads are chosen on this part of the rows


@dataclass(frozen=True)
class Part:
    """A comparison over nginx."""

    title: str
    behaviour: Behaviour
    rows: int
    threads: tuple[int, ...]  # of the peer, to choose from
    resize: bool = False


PARTS = {
    "kept": Part("originals, kept connections", Behaviour(), 20_000, (4, 8, 16, 32)),
    "new-connections": Part(
        "originals, a connection each", Behaviour(keep_alive=False), 20_000, (4, 8, 16, 32)
    ),
    "tls": Part("originals, TLS, kept connections", Behaviour(tls=True), 8_000, (4, 8, 16, 32)),
    "tls-new": Part(
        "originals, TLS, a connection each",
        Behaviour(keep_alive=False, tls=True),
        8_000,
        (4, 8, 16, 32),
    ),
    "resized": Part("resized to 256", Behaviour(), 6_000, (2, 4, 8, 16), resize=True),
}


OTHERS = {"replay": replay, "harsh": harsh, "polite": polite, "memory": memory, "start": start}


def main() -> int:
    """Run the parts that were asked for."""
    arguments = parse()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}, {date.today()}: python -m benchmarks.ingest {' '.join(sys.argv[1:])}")
    try:
        for name in arguments.parts:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                runner(name)(Path(folder), arguments)
    except CapstanError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=[*PARTS, *OTHERS])
    parser.add_argument("--rows", type=int, help="of each part, in place of its own number")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the peer, a process; else the best of some")
    parser.add_argument(
        "--capstan",
        type=lambda text: tuple(shlex.split(text)),
        default=(),
        metavar="FLAGS",
        help="more flags for capstan, as in --capstan='--in-flight 512'",
    )
    parser.add_argument("--report", type=Path, help="what the real web answered; for replays")
    parser.add_argument("--time-scale", type=float, default=1.0, help="0.1: ten times as fast")
    parser.add_argument("--per-host", type=int, default=10_000, help="capstan's, in replays")
    parser.add_argument("--no-peer", action="store_true", help="capstan alone")
    parser.add_argument("--peer-python", default="python3.12", help="makes the peer's environment")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench-ingest"), help="on the disk to measure"
    )
    return parser.parse_args()


def runner(name: str) -> Callable[[Path, argparse.Namespace], None]:
    """What runs a part."""
    return OTHERS.get(name) or partial(over_nginx, PARTS[name])


def over_nginx(part: Part, folder: Path, arguments: argparse.Namespace) -> None:
    """Compare on files that nginx serves."""
    count = arguments.rows or part.rows
    scratch = Scratch(folder, arguments.rounds)
    with photos_served(folder, part.behaviour) as nginx:
        urls = photo_urls(nginx, count)
        trust = {"SSL_CERT_FILE": str(nginx.authority)} if part.behaviour.tls else {}

        def task(name: str, rows: int) -> ToolTask:
            shard = min(SHARD, -(-rows // 2))
            return ToolTask(write_rows(folder / name, urls[:rows], shard), part.resize, trust)

        tools: list[Tool] = [Capstan(flags=arguments.capstan)]
        if not arguments.no_peer:
            few = task("few", count // CALIBRATION)
            tools.append(choose_peer(scratch, few, part.threads, arguments))
        few_rows = task("start", START_ROWS)
        starts = [] if arguments.no_peer else [scratch.run(tool, few_rows) for tool in tools]
        results = scratch.alternate(tools, task("all", count))
    check_whole(results, count)
    peer = None if arguments.no_peer else str(tools[-1])
    print_table(f"{part.title}, {count:,} rows", results, peer)
    if peer:
        seconds = [run.ran.seconds for run in starts]
        print_without_start(results, dict(zip(results, seconds, strict=True)), peer)
    print_disk(folder, results[str(tools[0])][0])


def print_disk(folder: Path, run: Finished) -> None:
    """Print what the disk could take at best of what a run wrote."""
    disk = disk_rate(folder, run.bytes)
    print(
        f"{run.bytes / run.images / 1e3:.0f} KB written a row; the disk alone takes "
        f"{disk / 1e6:,.0f} MB/s = {disk * run.images / run.bytes:,.0f} rows/s\n"
    )


def choose_peer(
    scratch: Scratch, trial: ToolTask, threads: tuple[int, ...], arguments: argparse.Namespace
) -> Img2dataset:
    """The peer as fast as it can be made, or as asked for."""
    peer = Img2dataset(peer_python(arguments.peer_python), 2, arguments.threads or threads[0])
    return peer if arguments.threads else scratch.best(peer, threads, trial)


if __name__ == "__main__":
    sys.exit(main())
