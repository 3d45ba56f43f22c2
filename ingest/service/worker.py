"""A worker: a process that has an engine for each job it has chunks of, all in one resources."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from capstan.chunks import Chunk
from capstan.errors import CapstanError
from capstan.ingest.config import IngestSettings
from capstan.ingest.messages import Told
from capstan.ingest.resources import EngineResources, PoolInfo, open_resources
from capstan.ingest.service.messages import (
    ChunkPayload,
    ChunkRequest,
    Drain,
    EngineEvent,
    EngineExited,
    EngineFailure,
    FromWorker,
    Heartbeat,
    NextChunk,
    StartJob,
    StopJob,
    ToWorker,
    WorkerReady,
    write_payload,
)
from capstan.ingest.supervise import first_error, run_in_child
from capstan.ingest.work import Engine, StoppedError

BEAT = 1.0  # seconds
NICENESS = 5  # clients of the service are answered first
FULL = {errno.ENOSPC, errno.EDQUOT}


def worker_main(connection: Connection, settings: IngestSettings, pool_info: PoolInfo) -> None:
    """What each process runs; `settings` are the service's own."""
    os.nice(NICENESS)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # may come to all; the service says Drain
    run_in_child(connection, lambda: IngestWorker(connection).run(settings, pool_info))


@dataclass(eq=False)
class _Seat:
    """A job here."""

    engine: Engine
    pieces: "asyncio.Queue[ChunkPayload | None]" = field(default_factory=asyncio.Queue)


class IngestWorker:
    """The jobs of one process; `run` is its life."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seats: dict[str, _Seat] = {}
        self._draining = False
        self._over = asyncio.Event()

    async def run(self, settings: IngestSettings, pool_info: PoolInfo) -> None:
        """Do what is asked for until told to drain."""
        loop = asyncio.get_running_loop()
        async with open_resources(settings, pool_info) as place, asyncio.TaskGroup() as group:
            self._place, self._group = place, group
            loop.add_reader(self._connection.fileno(), self._hear)
            self._send(WorkerReady())
            beating = group.create_task(self._beat(place))
            await self._over.wait()
            beating.cancel()
            loop.remove_reader(self._connection.fileno())

    def _send(self, message: FromWorker) -> None:
        self._connection.send(message)

    def _hear(self) -> None:
        try:
            message: ToWorker = self._connection.recv()
        except (EOFError, ConnectionError):
            os._exit(1)  # the service died
        if isinstance(message, StartJob):
            self._begin(message)
        elif isinstance(message, Drain):
            self._drain()
        elif seat := self._seats.get(message.job):  # else it has ended meanwhile
            if isinstance(message, NextChunk):
                seat.pieces.put_nowait(message.piece)
            else:
                assert isinstance(message, StopJob)
                seat.engine.stop_soon()

    def _begin(self, message: StartJob) -> None:
        def tell(told: Told) -> None:
            self._send(EngineEvent(message.job, told))

        seat = _Seat(Engine(message.settings, self._place, tell))
        seat.pieces.put_nowait(message.piece)
        self._seats[message.job] = seat
        self._group.create_task(self._do(message.job, seat))
        if self._draining:
            seat.engine.stop_soon()

    def _drain(self) -> None:
        self._draining = True
        for seat in self._seats.values():
            seat.engine.stop_soon()
        self._end_if_over()

    async def _do(self, job: str, seat: _Seat) -> None:
        trouble: list[EngineFailure] = []
        try:
            await seat.engine.run(self._chunks(job, seat))
        except* StoppedError:
            pass
        except* (CapstanError, OSError) as errors:
            trouble.append(_trouble(first_error(errors)))
        del self._seats[job]
        self._send(EngineExited(job, trouble[0] if trouble else None))
        self._end_if_over()

    async def _chunks(self, job: str, seat: _Seat) -> AsyncIterator[Chunk]:
        while piece := await seat.pieces.get():
            await asyncio.to_thread(write_payload, piece)
            yield piece.chunk
            self._send(ChunkRequest(job))

    async def _beat(self, place: EngineResources) -> None:
        while True:
            self._send(Heartbeat(place.slots.at_work))
            await asyncio.sleep(BEAT)

    def _end_if_over(self) -> None:
        if self._draining and not self._seats:
            self._over.set()


def _trouble(error: BaseException) -> EngineFailure:
    if isinstance(error, OSError):
        where = error.filename or "the system"
        return EngineFailure(f"{where}: {error.strerror or error}", error.errno in FULL)
    return EngineFailure(str(error), False)
