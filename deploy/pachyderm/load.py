"""Put a TSV of caption<TAB>url lines into a Pachyderm, cut into chunks, as one commit.

The files are those of `pachctl put file --split line --target-file-datums ROWS` in Pachyderm 1, and
of `capstan split`: /NAME.tsv/0000000000000000 and on, numbered in hexadecimal. All or nothing: a
load that fails or is stopped leaves no trace. Loading again sends the chunks that have changed and
removes those left over; if there are none, no commit is made.
"""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from capstan.errors import DataError
from capstan.pachyderm import connection
from capstan.progress import Progress

if TYPE_CHECKING:
    from capstan.pachyderm.server import Change, Commit, Server

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan load`."""
    parser.add_argument("tsv", type=Path, metavar="TSV", help="file of caption<TAB>url lines")
    parser.add_argument("--rows", type=int, default=10_000, metavar="N", help="lines per chunk")
    parser.add_argument("--repo", default="rawdata", help="repo to put it in, on branch master")
    connection.add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Load the TSV and say what was done."""
    from capstan.chunks import check_cut
    from capstan.pachyderm.connect import open_server

    tsv: Path = arguments.tsv
    check_cut(tsv, arguments.rows)
    with open_server(connection.find(arguments)) as server:
        logger.info("%s", load(server, tsv, arguments.repo, arguments.rows))


@dataclass(frozen=True)
class LoadPlan:
    """What of a TSV has to be sent, and what is to go."""

    send: list[tuple[str, int, int]]  # path and byte range of a chunk
    stale: list[str]  # paths
    unchanged: int


def load(server: "Server", tsv: Path, repo: str, rows: int) -> str:
    """Make `repo` hold the TSV's chunks of so many lines; return what was done, in words.

    DataError for a TSV that is none or changes meanwhile; CapstanError if there is no such repo, or
    its master is being written to.
    """
    from capstan.chunks import Cut, check_columns
    from capstan.pachyderm.commits import finished_head, writable_head

    check_columns(tsv)
    head = writable_head(server, repo)
    before = _identity(tsv)
    with tsv.open("rb") as file:
        plan = make_plan(server, head, file, rows)
        cut = Cut(len(plan.send), plan.unchanged, len(plan.stale))
        if not (plan.send or plan.stale):
            return f"{repo}:/{tsv.name}: {cut}; nothing to do"
        with Progress("load", "chunks", len(plan.send)) as progress:
            server.modify(repo, _changes(plan, file, progress, before))
    return f"{repo}@{finished_head(server, repo).id}:/{tsv.name}: {cut}"


def make_plan(server: "Server", head: "Commit | None", file: BinaryIO, rows: int) -> LoadPlan:
    """Compare a TSV's chunks with the files of a commit."""
    from capstan.chunks import CHUNK_NAME, boundaries
    from capstan.pachyderm.commits import is_same

    folder = f"/{Path(file.name).name}"
    there = {each.path: each for each in server.files(head, folder)} if head else {}
    if folder in there:
        raise DataError(f"{folder} is a file there, not a folder; `pachctl delete file` it")
    send, wanted = [], set()
    with Path(file.name).open("rb") as scanned:
        for number, (start, end) in enumerate(boundaries(scanned, rows)):
            path = f"{folder}/{number:016x}"
            wanted.add(path)
            old = there.get(path)
            if not (head and old and is_same(server, head, old, file, (start, end))):
                send.append((path, start, end))
    stale = [path for path in there if path not in wanted and CHUNK_NAME.fullmatch(Path(path).name)]
    return LoadPlan(send, stale, len(wanted) - len(send))


def _changes(
    plan: LoadPlan, file: BinaryIO, progress: Progress, before: tuple[int, int]
) -> Iterator["Change"]:
    from capstan.chunks import pieces
    from capstan.pachyderm.server import Delete, Put

    for path in plan.stale:
        yield Delete(path)
    for path, start, end in plan.send:
        yield Put(path, pieces(file, start, end))
        progress.add()
    if _identity(Path(file.name)) != before:
        raise DataError(f"{file.name}: changed while it was loaded; run again")


def _identity(tsv: Path) -> tuple[int, int]:
    status = tsv.stat()
    return status.st_mtime_ns, status.st_size
