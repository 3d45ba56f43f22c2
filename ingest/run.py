"""A whole run: what is to do, the processes that do it, and what came of it."""

import asyncio
import logging
import multiprocessing
import os
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import uvloop

from ingest.chunks import Chunk, find_chunks
from ingest.config import Settings
from ingest.images import check_decoders
from ingest.sink import IMAGE_SHARDS, Sink
from ingest.spool import remove_spools
from ingest.work import SPOOLS, Tally, Written, identity, work
from pipeline.errors import CapstanError, DataError, SettingError
from pipeline.files import input_directory, output_directory
from pipeline.progress import Progress
from pipeline.shards import STATS_SUFFIX, read_image_stats

logger = logging.getLogger(__name__)

RESOLVER_THREADS = "128"  # uvloop asks for names in libuv's pool, by default two at a time
STOP_PATIENCE = 5.0  # seconds for a process to end before it is killed


@dataclass
class Summary:
    """What the shards of a run hold."""

    rows: int = 0
    images: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, stats: dict[str, Any]) -> None:
        """Add a shard by its stats."""
        self.rows += stats["rows"]
        self.images += stats["images"]
        self.failures.update(stats["failures"])

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.failures.most_common())
        failed = f"{self.failures.total():,} failures" + (f" ({reasons})" if reasons else "")
        return f"{self.rows:,} rows = {self.images:,} images + {failed}"


def ingest(settings: Settings, sink: Sink = IMAGE_SHARDS) -> Summary:
    """Make the shards of all chunks that changed; log and return what all shards hold.

    Raises SettingError for directories or a Pillow that cannot be used, DataError for input that
    is no TSV of captions and URLs.
    """
    check_directories(settings.input, settings.output)
    chunks = find_chunks(settings.input)
    check_input(settings.input, chunks)
    check_decoders()
    summary, todo = Summary(), []
    for chunk in chunks:
        if (stats := unchanged(chunk, settings, sink)) is None:
            todo.append(chunk)
        else:
            summary.add(stats)
            (settings.output / SPOOLS / chunk.name).unlink(missing_ok=True)
    logger.info(
        "%d chunks: %d unchanged, %d to do", len(chunks), len(chunks) - len(todo), len(todo)
    )
    if todo:
        for root in (settings.output, settings.output / SPOOLS):
            for directory in sorted({(root / chunk.name).parent for chunk in todo}):
                output_directory(directory)
        for stats in supervise(todo, settings, sink):
            summary.add(stats)
    remove_spools(settings.output / SPOOLS)
    if summary.rows != (rows := sum(chunk.rows for chunk in chunks)):
        raise DataError(
            f"{settings.input}: {rows:,} rows became {summary.rows:,}; chunks were altered during "
            "the run, so run the same command again"
        )
    event = {"rows": summary.rows, "images": summary.images, "failures": dict(summary.failures)}
    logger.info("%s", summary, extra={"event": {"ingested": event}})
    return summary


def check_directories(source: Path, output: Path) -> None:
    """Refuse directories that cannot be used; shards among the chunks would be taken for chunks."""
    input_directory(source)
    if output.resolve().is_relative_to(source.resolve()):
        raise SettingError(f"{output}: lies in {source}; give a directory outside with --output")
    output_directory(output)


def check_input(directory: Path, chunks: Sequence[Chunk]) -> None:
    """Refuse input without a single row of two columns."""
    if not chunks:
        raise DataError(f"{directory}: no chunks in it; make them with `capstan split`")
    if not any(chunk.has_tab for chunk in chunks):
        raise DataError(
            f"{chunks[0].path}: no line of it"
            + (f" or of {len(chunks) - 1} more chunks" if len(chunks) > 1 else "")
            + " has a tab; expected caption<TAB>url"
        )


def unchanged(chunk: Chunk, settings: Settings, sink: Sink = IMAGE_SHARDS) -> dict[str, Any] | None:
    """The stats of a chunk's shard if it is whole and would come out the same, else None."""
    try:
        stats = read_image_stats(settings.output / f"{chunk.name}{STATS_SUFFIX}", sink.format)
    except DataError:  # missing, or of another version or kind: made again
        return None
    if any(stats.get(name) != value for name, value in identity(chunk, settings, sink).items()):
        return None
    for suffix, description in stats["files"].items():
        path = settings.output / f"{chunk.name}{suffix}"
        if not path.is_file() or path.stat().st_size != description["bytes"]:
            return None
    return stats


# The parent's side


def supervise(chunks: Sequence[Chunk], settings: Settings, sink: Sink) -> Iterator[dict[str, Any]]:
    """Run the processes and show their progress; yield each shard's stats once it is written.

    Raises what a process reports, and CapstanError when one dies.
    """
    context = multiprocessing.get_context("spawn")
    taken = context.Value("q", 0)
    count = settings.processes(len(chunks))
    per_host = settings.load.per_host // count
    processes: dict[Connection, SpawnProcess] = {}

    def start(name: str, main: Callable[..., None], *arguments: Any) -> None:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=main, name=name, args=(theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        processes[ours] = process

    try:
        for share in sink.shares(count, start):
            start("ingest", process_main, _Share(chunks, taken, settings, per_host, share))
        with Progress("ingest", "rows", sum(chunk.rows for chunk in chunks)) as progress:
            yield from _listen(processes, progress)
    finally:
        for connection, process in processes.items():
            stop(process)
            connection.close()


def _listen(
    processes: dict[Connection, SpawnProcess], progress: Progress
) -> Iterator[dict[str, Any]]:
    kept = 0
    talking = set(processes)
    while talking:
        for connection in wait(talking):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except EOFError:
                talking.remove(connection)
                check_exit(processes[connection])
                continue
            if isinstance(message, Exception):
                raise message
            if isinstance(message, Written):
                yield message.stats
            elif isinstance(message, Tally):
                kept += message.kept
                for reason, count in message.reasons.items():
                    progress.add(count, reason)
                progress.note(f"{kept:,} from a stopped run" if kept else "")


def check_exit(process: SpawnProcess) -> None:
    """Raise CapstanError if a process that closed its pipe did not end well."""
    process.join()
    code = process.exitcode or 0
    if code:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        raise CapstanError(
            f"{process.name} process {process.pid} {how}; "
            "run the same command again to go on from the rows that were done"
        )


def stop(process: SpawnProcess) -> None:
    """End a process that may have ended already; its spools stay for the next run."""
    process.terminate()
    process.join(STOP_PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


# The child's side


@dataclass(frozen=True)
class _Share:
    """What a process is told."""

    chunks: Sequence[Chunk]
    taken: "Synchronized[int]"  # how many of them some process has begun
    settings: Settings
    per_host: int
    sink: Sink

    def take(self) -> Iterator[Chunk]:
        while True:
            with self.taken.get_lock():
                index = self.taken.value
                self.taken.value += 1
            if index >= len(self.chunks):
                return
            yield self.chunks[index]


def process_main(connection: Connection, share: _Share) -> None:
    """What each process runs; sends Tally, Written and, at worst, the error that ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too and ends us
    warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, which is left out
    _raise_file_limit()
    os.environ.setdefault("UV_THREADPOOL_SIZE", RESOLVER_THREADS)
    with closing(connection), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        parent = multiprocessing.parent_process()
        assert parent is not None
        runner.get_loop().add_reader(parent.sentinel, os._exit, 1)  # it died: leave no orphan
        try:
            runner.run(
                work(share.take(), share.settings, share.per_host, connection.send, share.sink)
            )
        except* (CapstanError, OSError) as errors:
            connection.send(_first(errors))


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
