"""A worker: a process that has an engine for each job it has chunks of, all in one workplace."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from capstan.chunks import Chunk
from capstan.errors import CapstanError
from capstan.ingest.config import Settings
from capstan.ingest.messages import Told
from capstan.ingest.service.messages import (
    Asks,
    Beat,
    Begin,
    Drain,
    Ended,
    FromWorker,
    Halt,
    More,
    Piece,
    Ready,
    Says,
    ToWorker,
    Trouble,
    write_piece,
)
from capstan.ingest.supervise import first_error, run_in_child
from capstan.ingest.work import Engine, StoppedError
from capstan.ingest.workplace import Crew, Workplace, open_workplace

BEAT = 1.0  # seconds
NICENESS = 5  # clients of the service are answered first
FULL = {errno.ENOSPC, errno.EDQUOT}


def worker_main(connection: Connection, settings: Settings, crew: Crew) -> None:
    """What each process runs; `settings` are the service's own."""
    os.nice(NICENESS)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # may come to all; the service says Drain
    run_in_child(connection, lambda: Worker(connection).run(settings, crew))


@dataclass(eq=False)
class _Seat:
    """A job here."""

    engine: Engine
    pieces: "asyncio.Queue[Piece | None]" = field(default_factory=asyncio.Queue)


class Worker:
    """The jobs of one process; `run` is its life."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seats: dict[str, _Seat] = {}
        self._draining = False
        self._over = asyncio.Event()

    async def run(self, settings: Settings, crew: Crew) -> None:
        """Do what is asked for until told to drain."""
        loop = asyncio.get_running_loop()
        async with open_workplace(settings, crew) as place, asyncio.TaskGroup() as group:
            self._place, self._group = place, group
            loop.add_reader(self._connection.fileno(), self._hear)
            self._send(Ready())
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
        if isinstance(message, Begin):
            self._begin(message)
        elif isinstance(message, Drain):
            self._drain()
        elif seat := self._seats.get(message.job):  # else it has ended meanwhile
            if isinstance(message, More):
                seat.pieces.put_nowait(message.piece)
            else:
                assert isinstance(message, Halt)
                seat.engine.stop_soon()

    def _begin(self, message: Begin) -> None:
        def tell(told: Told) -> None:
            self._send(Says(message.job, told))

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
        trouble: list[Trouble] = []
        try:
            await seat.engine.run(self._chunks(job, seat))
        except* StoppedError:
            pass
        except* (CapstanError, OSError) as errors:
            trouble.append(_trouble(first_error(errors)))
        del self._seats[job]
        self._send(Ended(job, trouble[0] if trouble else None))
        self._end_if_over()

    async def _chunks(self, job: str, seat: _Seat) -> AsyncIterator[Chunk]:
        while piece := await seat.pieces.get():
            await asyncio.to_thread(write_piece, piece)
            yield piece.chunk
            self._send(Asks(job))

    async def _beat(self, place: Workplace) -> None:
        while True:
            self._send(Beat(place.slots.at_work))
            await asyncio.sleep(BEAT)

    def _end_if_over(self) -> None:
        if self._draining and not self._seats:
            self._over.set()


def _trouble(error: BaseException) -> Trouble:
    if isinstance(error, OSError):
        where = error.filename or "the system"
        return Trouble(f"{where}: {error.strerror or error}", error.errno in FULL)
    return Trouble(str(error), False)
