"""The worker processes: started, listened to, and started again when they die."""

import asyncio
import logging
import multiprocessing
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from capstan.ingest.config import IngestSettings
from capstan.ingest.resources import PoolInfo
from capstan.ingest.scheduling.pauses import Pauses
from capstan.ingest.service.fair_queue import WorkerSlots
from capstan.ingest.service.messages import Drain, FromWorker, Heartbeat, ToWorker, WorkerReady
from capstan.ingest.service.worker import worker_main

logger = logging.getLogger(__name__)

YOUNG = 5.0  # seconds; a worker that dies sooner is started again after a while
LONGEST_WAIT = 10.0  # seconds
STOP_PATIENCE = 9.0  # seconds for workers to drain


class WorkerProcess:
    """One worker process, from its start to its death."""

    def __init__(self, process: SpawnProcess, connection: Connection) -> None:
        self.process, self._connection = process, connection
        self.bench = WorkerSlots()
        self.is_ready = False
        self.in_flight = 0
        self.began = time.monotonic()

    def __repr__(self) -> str:
        return f"<Hand {self.process.pid}: {len(self.bench.seats)} jobs>"

    def send(self, message: ToWorker) -> None:
        """Tell it something; if it has died, that is heard soon."""
        with suppress(OSError):
            self._connection.send(message)

    def listen(self, hear: Callable[[FromWorker], None]) -> None:
        """Pass on what it says until it is gone; blocks."""
        with suppress(EOFError, OSError):
            while True:
                hear(self._connection.recv())

    def join(self) -> str:
        """Wait for the end of a process that is gone; returns how it ended. Blocks."""
        self.process.join()
        self._connection.close()
        code = self.process.exitcode or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


class WorkerPool:
    """All workers. `hear` is called with what they say, `lost` when one has died."""

    def __init__(
        self,
        settings: IngestSettings,
        count: int,
        hear: Callable[[WorkerProcess, FromWorker], None],
        lost: Callable[[WorkerProcess, str], None],
    ) -> None:
        self._settings, self._count = settings, count
        self._hear, self._lost = hear, lost
        self._context = multiprocessing.get_context("spawn")
        self._pool_info = PoolInfo(count, Pauses.shared(self._context))
        self._loop = asyncio.get_running_loop()
        self._worker_pool: set[WorkerProcess] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._threads = ThreadPoolExecutor(count, "listen")

    @property
    def ready(self) -> list[WorkerProcess]:
        """Workers that take chunks, the least busy first."""
        ready = [hand for hand in self._worker_pool if hand.is_ready]
        return sorted(ready, key=lambda hand: len(hand.bench.seats))

    @property
    def in_flight(self) -> int:
        """Rows being fetched or decoded."""
        return sum(hand.in_flight for hand in self._worker_pool)

    def start(self) -> None:
        """Start all."""
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._count)]

    def stop_soon(self) -> None:
        """Let none begin anything more."""
        self._stopping.set()
        for hand in self._worker_pool:
            hand.send(Drain())

    async def stop(self) -> None:
        """Wait for those told to stop, and kill those that take too long."""
        self.stop_soon()
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=STOP_PATIENCE)
            for hand in self._worker_pool if late else ():
                hand.process.kill()
            await asyncio.gather(*self._keepers)

    async def _keep(self) -> None:
        """Keep one worker running."""
        wait = 0.0
        while not self._stopping.is_set():
            hand = await self._start()
            how = await self._loop.run_in_executor(self._threads, self._live, hand)
            self._worker_pool.discard(hand)
            if self._stopping.is_set():
                return
            logger.error("worker %s %s; started again", hand.process.pid, how)
            self._lost(hand, how)
            young = time.monotonic() - hand.began < YOUNG
            wait = min(LONGEST_WAIT, max(0.5, 2 * wait)) if young else 0.0
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()

    async def _start(self) -> WorkerProcess:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=worker_main,
            name="ingest",
            args=(theirs, self._settings, self._pool_info),
            daemon=True,
        )
        await asyncio.to_thread(process.start)
        theirs.close()
        hand = WorkerProcess(process, ours)
        self._worker_pool.add(hand)
        if self._stopping.is_set():
            hand.send(Drain())
        return hand

    def _live(self, hand: WorkerProcess) -> str:
        def hear(message: FromWorker) -> None:
            self._loop.call_soon_threadsafe(self._heard, hand, message)

        hand.listen(hear)
        return hand.join()

    def _heard(self, hand: WorkerProcess, message: FromWorker) -> None:
        if isinstance(message, WorkerReady):
            hand.is_ready = True
        elif isinstance(message, Heartbeat):
            hand.in_flight = message.in_flight
            return
        elif isinstance(message, Exception):
            logger.error("worker %s: %s", hand.process.pid, message)
            return
        self._hear(hand, message)
