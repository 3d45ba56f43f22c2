"""Decoding in processes of its own: a picture that crashes or hangs the decoder costs one row.

A process answers in the order it was asked, so of the pictures it leaves unanswered the first is
the one that ended it. That one is tried once more, as a process may be killed for memory that
others took; those behind it just go to the next process. A picture that takes too long is ended by
an alarm that the process has set for itself, so that not even an orphan lives longer. An orphan
that waits for work finds its socket closed.
"""

import asyncio
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Self, cast

from capstan.errors import CapstanError
from capstan.ingest.config import ImageOptions
from capstan.ingest.decode.images import prepare, prepare_undecoded
from capstan.malloc import keep_memory
from capstan.records import Failure, Image, Reason

Function = Callable[[bytes, ImageOptions], Image | Failure]

TIME_LIMIT = 30.0  # seconds for one picture
AHEAD = 2  # pictures at a process at a time, so that it need not wait for the next
TRIES = 2
BUFFER = 1 << 20  # bytes of requests read at a time
SIZE = struct.Struct("<I")  # bytes of the message that follows
START = "import sys; from capstan.ingest.decode.pool import serve; serve(int(sys.argv[1]))"


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process does with pictures."""

    function: Function
    time_limit: float  # seconds


@dataclass(slots=True, eq=False)
class _Job:
    data: bytes
    pictures: ImageOptions
    result: "asyncio.Future[Image | Failure]"
    tries: int = 1

    def end(self, result: Image | Failure) -> None:
        if not self.result.done():  # it is when its row was given up
            self.result.set_result(result)


class Decoders:
    """Decoder processes of one event loop, as an async context manager.

    `function` must be importable by its name. The processes start when the first picture needs one,
    or at `start`.
    """

    def __init__(
        self,
        count: int = 1,
        function: Function = prepare,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        work = _Work(function, time_limit)
        self._work = work
        self._workers = [_Worker(work) for _ in range(count)]
        self._slots = asyncio.Semaphore(count * AHEAD)
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Decoders {[len(worker.jobs) for worker in self._workers]}>"

    def start(self) -> None:
        """Start the processes, which takes them a moment."""
        for worker in self._workers if not self._tasks else ():
            task = asyncio.create_task(worker.run())
            task.add_done_callback(worker.ended)
            self._tasks.append(task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def prepare(self, data: bytes, pictures: ImageOptions) -> Image | Failure:
        """What the function makes of a body, or that it crashed or hung.

        What a header alone decides needs no process. Raises CapstanError when none starts.
        """
        if self._work.function is prepare and pictures.check == "header":
            result = prepare_undecoded(data, pictures)
            if result is not None:
                return result
        self.start()
        async with self._slots:
            worker = min(self._workers, key=lambda worker: len(worker.jobs))
            return await worker.give(data, pictures)


@dataclass(eq=False)
class _Worker:
    """One process after another, and the pictures that the present one has not answered."""

    work: _Work
    jobs: deque[_Job] = field(default_factory=deque)
    _channel: "_Channel | None" = None  # while the process is ready
    _error: BaseException | None = None  # why there is no process any more

    def give(self, data: bytes, pictures: ImageOptions) -> "asyncio.Future[Image | Failure]":
        if self._error:
            raise self._error
        job = _Job(data, pictures, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        if self._channel:
            self._channel.ask(job)
        return job.result

    async def run(self) -> None:
        """Keep a process running until cancelled."""
        while True:
            self._blame(await self._run_process())

    def ended(self, task: "asyncio.Task[None]") -> None:
        """Tell those who wait that no answer will come."""
        self._error = asyncio.CancelledError() if task.cancelled() else task.exception()
        assert self._error
        for job in self.jobs:
            if not job.result.done():
                job.result.set_exception(self._error)

    async def _run_process(self) -> int:
        """Have a process answer pictures until it ends; return how it ended."""
        process, ours = _start()
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: _Channel(self._hear), sock=ours)
        try:
            channel.send(pickle.dumps(self.work))
            await channel.closed
        finally:
            was_ready, self._channel = self._channel is not None, None
            channel.close()
            process.kill()
            status = process.wait()
        if not was_ready:
            raise CapstanError(f"a decoder process does not start (status {status})")
        return status

    def _hear(self, channel: "_Channel", message: bytes) -> None:
        """Settle a picture; the first message says that the process is ready for some."""
        if self._channel:
            self.jobs.popleft().end(pickle.loads(message))
            return
        self._channel = channel
        for job in self.jobs:
            channel.ask(job)

    def _blame(self, status: int) -> None:
        """Settle the picture that ended a process."""
        jobs = deque(job for job in self.jobs if not job.result.done())
        if jobs and jobs[0] is self.jobs[0]:
            if status == -signal.SIGALRM:
                jobs.popleft().end(Failure(Reason.DECODER_TIMEOUT))
            elif jobs[0].tries == TRIES:
                jobs.popleft().end(Failure(Reason.DECODER_CRASH))
            else:
                jobs[0].tries += 1
        self.jobs = jobs


def _start() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """A process that waits for its work, and the socket to it.

    Not by `multiprocessing`, whose daemons may have no children. In a process group of its own, it
    hears neither Ctrl-C nor what else is meant for its parent, which may still need it to finish.
    """
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,
        )
    return process, ours


class _Channel(asyncio.Protocol):
    """Messages to a process and from it; `hear` is given each, and what it came from.

    Not asyncio's streams, which took the loop a tenth longer.
    """

    def __init__(self, hear: "Callable[[_Channel, bytes], None]") -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hear = hear
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def send(self, *contents: bytes) -> None:
        """Send messages at once, as each write wakes the process, which would find a part only."""
        assert self._transport
        self._transport.writelines([piece for content in contents for piece in _message(content)])

    def ask(self, job: _Job) -> None:
        """Send a picture."""
        self.send(_pickled(job.pictures), job.data)

    def close(self) -> None:
        """Close at once."""
        assert self._transport
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= SIZE.size:
            end = SIZE.size + SIZE.unpack_from(self._received)[0]
            if len(self._received) < end:
                break
            message = bytes(memoryview(self._received)[SIZE.size : end])
            del self._received[:end]
            self._hear(self, message)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():  # it is when the wait for it was cancelled
            self.closed.set_result(None)


@lru_cache(64)
def _pickled(pictures: ImageOptions) -> bytes:
    return pickle.dumps(pictures)


@lru_cache(64)
def _unpickled(pictures: bytes) -> ImageOptions:
    return cast(ImageOptions, pickle.loads(pictures))


def _message(content: bytes) -> tuple[bytes, bytes]:
    return SIZE.pack(len(content)), content


# The child's side


def serve(descriptor: int) -> None:
    """Answer pictures until the parent's end of the socket closes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keep_memory()
    warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, which is left out
    # Closed by our end alone: a parent that hears of it sooner would cut a traceback short.
    parent = socket.socket(fileno=descriptor)
    requests = cast(BinaryIO, parent.makefile("rb", buffering=BUFFER))
    with suppress(ConnectionError, EOFError):
        work: _Work = pickle.loads(_read(requests))
        _answer(parent, b"ready")
        while True:
            pictures, data = _unpickled(_read(requests)), _read(requests)
            signal.setitimer(signal.ITIMER_REAL, work.time_limit)  # its default is to end us
            result = work.function(data, pictures)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _answer(parent, pickle.dumps(result))


def _read(requests: BinaryIO) -> bytes:
    head = requests.read(SIZE.size)
    if len(head) < SIZE.size:
        raise EOFError
    (size,) = SIZE.unpack(head)
    return requests.read(size)


def _answer(parent: socket.socket, content: bytes) -> None:
    parent.sendall(b"".join(_message(content)))
