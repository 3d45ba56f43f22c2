"""The processes of a run: one event loop each, fed with chunks, watched by their parent."""

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import uvloop

from capstan.chunks import Chunk
from capstan.errors import CapstanError
from capstan.ingest.config import IngestSettings
from capstan.ingest.forks import start_server
from capstan.ingest.messages import ChunkBegun, ShardDone, Tally
from capstan.ingest.resources import PoolInfo
from capstan.ingest.scheduling.pauses import Pauses
from capstan.ingest.sink import Sink
from capstan.ingest.statistics import RunStatistics
from capstan.ingest.work import StoppedError, work
from capstan.malloc import keep_memory
from capstan.progress import Progress

# Python's own 700, 10, 10 took a seventh of the time: a row makes dozens of short-lived objects.
COLLECT_AFTER = 50_000, 20, 20
STOP_PATIENCE = 9.5  # seconds for a process to end before it is killed: time to drain


def supervise(
    chunks: Sequence[Chunk], settings: IngestSettings, sink: Sink, statistics: RunStatistics
) -> Iterator[ShardDone]:
    """Run the processes and show their progress; yield each chunk's shard once it is whole.

    Raises what a process reports, and CapstanError when one dies.
    """
    context = start_server()
    taken = context.Value("q", 0)
    count = settings.processes(len(chunks))
    pool_info = PoolInfo(count, Pauses.shared(context))
    processes: dict[Connection, BaseProcess] = {}

    def start(name: str, main: Callable[..., None], *arguments: Any) -> None:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=main, name=name, args=(theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        processes[ours] = process

    try:
        for share in sink.shares(count, start):
            start("ingest", process_main, _Share(chunks, taken, settings, pool_info, share))
        with Progress("ingest", "rows") as progress:
            yield from _listen(processes, _Tallies(chunks, progress, statistics))
    except KeyboardInterrupt:
        for process in processes.values():
            process.kill()  # at once, as is expected of Ctrl-C; SIGTERM leaves time
        raise
    finally:
        for process in processes.values():
            process.terminate()
        for connection, process in processes.items():
            end(process)
            connection.close()


class _Tallies:
    """Adds up what the processes say. How many rows there are is estimated until all is read."""

    def __init__(
        self, chunks: Sequence[Chunk], progress: Progress, statistics: RunStatistics
    ) -> None:
        self._progress, self._statistics = progress, statistics
        self._unread = sum(chunk.path.stat().st_size for chunk in chunks)  # bytes
        self._rows = self._bytes = self._todo = 0  # of the chunks that were read
        self._kept = 0

    def begun(self, chunk: ChunkBegun) -> None:
        """Count a chunk that was read."""
        self._unread -= chunk.bytes
        self._rows, self._bytes = self._rows + chunk.rows, self._bytes + chunk.bytes
        self._todo += chunk.rows if chunk.todo else 0
        self._progress.expect(self._todo + self._unread * self._rows // max(1, self._bytes))

    def tally(self, tally: Tally) -> None:
        """Count rows that ended."""
        self._kept += tally.kept
        for reason, count in tally.reasons.items():
            self._progress.add(count, reason)
        rows = tally.reasons.total() - tally.kept
        images = tally.reasons[None] - tally.kept_images
        self._statistics.tick(rows, images, tally.bytes)
        self._progress.note(f"{self._kept:,} from a stopped run" if self._kept else "")


def _listen(processes: dict[Connection, BaseProcess], tallies: _Tallies) -> Iterator[ShardDone]:
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
            if isinstance(message, ShardDone):
                yield message
            elif isinstance(message, Tally):
                tallies.tally(message)
            elif isinstance(message, ChunkBegun):
                tallies.begun(message)


def check_exit(process: BaseProcess) -> None:
    """Raise CapstanError if a process that closed its pipe did not end well."""
    process.join()
    code = process.exitcode or 0
    if code:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        raise CapstanError(
            f"{process.name} process {process.pid} {how}; "
            "run the same command again to go on from the rows that were done"
        )


def end(process: BaseProcess) -> None:
    """Wait for a process that was told to end; its journals stay for the next run."""
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
    settings: IngestSettings
    pool_info: PoolInfo
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
    """What each process runs; sends Tally, Begun, Shard and, at worst, the error that ended it."""
    run_in_child(
        connection,
        lambda: work(share.take(), share.settings, share.pool_info, connection.send, share.sink),
    )


def run_in_child(connection: Connection, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the loop of a process until it ends or its parent does; send the error that ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too and ends us
    _raise_file_limit()
    keep_memory()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    with closing(connection), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        parent = multiprocessing.parent_process()
        assert parent is not None
        runner.get_loop().add_reader(parent.sentinel, os._exit, 1)  # it died: leave no orphan
        runner.get_loop().set_exception_handler(report)
        try:
            runner.run(main())
        except* StoppedError:
            pass
        except* (CapstanError, OSError) as errors:
            connection.send(first_error(errors))


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what callbacks of a loop raised, but for uvloop's error when TLS is given up midway."""
    given_up = isinstance(context.get("exception"), RuntimeError)
    if not (given_up and context["message"].startswith("Fatal error on SSL protocol")):
        loop.default_exception_handler(context)


def first_error(error: BaseException) -> BaseException:
    """One error out of a group of them."""
    return first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
