"""An ingest worker, row by row in simulated time: rows arrive, are fetched, decoded and written.

What `ingest.work` does, with the policies of `ingest` and times from measured rates:
`report.plan.arrival` says whose turn it is, `report.plan.fetch` asks, and here are the processes
around them.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import simpy

from capstan.ingest.scheduling.host import RETRYABLE, HostLimits
from capstan.ingest.work import APPETITE_PATIENCE, READ_AT_ONCE
from capstan.records import Reason
from capstan.report.plan.arrival import SimChunk, SimFetch, SimFrontier, SimHost, SimSlot, SimSlots
from capstan.report.plan.costs import Costs, FetchPolicy, SimStats
from capstan.report.plan.fetch import Fetcher
from capstan.report.plan.machine import Machine, MachineSize, Steps, Threads
from capstan.report.plan.web import IMAGE, SimRow


def simulate(
    chunks: Sequence[Sequence[SimRow]],
    size: MachineSize,
    costs: Costs,
    manner: FetchPolicy,
    seed: int = 0,
) -> SimStats:
    """Let a worker finish chunks of rows, and say how that went."""
    env = simpy.Environment()
    worker = SimWorker(env, size, costs, manner, seed)
    env.run(env.process(worker.run(chunks)))
    return worker.seen


class SimWorker:
    """What the processes of a worker share."""

    def __init__(
        self,
        env: simpy.Environment,
        size: MachineSize,
        costs: Costs,
        manner: FetchPolicy,
        seed: int,
    ) -> None:
        self.env, self.costs, self.manner = env, costs, manner
        self.machine, self.cores = Machine(env, size), size.cores
        self.random = np.random.default_rng(seed)
        self.seen = SimStats()

    def run(self, chunks: Sequence[Sequence[SimRow]]) -> Steps:
        """Finish all chunks."""
        load = self.manner.load
        count = max(1, min(load.processes or self.cores, len(chunks), load.per_host))
        processes = [Process(self, count) for _ in range(count)]
        yield self.env.timeout(self.costs.start)
        untaken = iter(chunks)
        yield self.env.all_of([self.env.process(each.run(untaken)) for each in processes])
        self._sum_up(processes)

    def _sum_up(self, processes: Sequence["Process"]) -> None:
        """How busy each part was, once it began."""
        self.seen.seconds = self.env.now
        seconds = max(self.env.now - self.costs.start, 1e-9)
        machine, count = self.machine, len(processes)
        decoders = [process.decoders for process in processes]
        self.seen.busy = {
            "cores": machine.cores.busy / seconds / self.cores,
            "event loops": sum(process.loop.busy for process in processes) / seconds / count,
            "decoders": sum(each.busy for each in decoders)
            / seconds
            / sum(each.number for each in decoders),
            "link": machine.link.busy / seconds,
            "disk": machine.disk.busy / seconds,
        }


class Process:
    """One event loop with its decoders and the thread that writes shards."""

    def __init__(self, worker: SimWorker, processes: int) -> None:
        self._worker, self._env = worker, worker.env
        cores, manner = worker.machine.cores, worker.manner
        self.loop, self._writer = Threads(cores), Threads(cores)
        self.decoders = Threads(cores, max(1, worker.cores // processes))
        most, patience = manner.load.per_host // processes, manner.patience
        limits = HostLimits(max(1, most), patience.host_patience, patience.deadline)
        self._frontier = SimFrontier(self._env, limits, self._give_up)
        self._slots = SimSlots(manner.load)
        self._fetcher = Fetcher(worker.machine, self.loop, worker.costs, manner, worker.seen)
        self._unbegun = self._unwritten = 0  # rows, chunks
        self._changed = self._env.event()

    # Arrival

    def run(self, chunks: Iterator[Sequence[SimRow]]) -> Steps:
        """Take chunks while there are some, then wait for the last shard."""
        for rows in chunks:
            chunk = SimChunk(len(rows), len(rows))
            self._unwritten += 1
            for number, row in enumerate(rows):
                self._unbegun += 1
                self._frontier.add(SimFetch(row, chunk))
                if number % READ_AT_ONCE == 0:
                    yield from self._room()
            yield from self._appetite()
        while self._unwritten:
            yield self._changed

    def _room(self) -> Steps:
        self._dispatch()
        while self._frontier.is_full:
            yield self._changed

    def _appetite(self) -> Steps:
        """Wait until all rows have begun, or a moment: no slow host keeps others from coming."""
        self._dispatch()
        patience = self._env.timeout(APPETITE_PATIENCE)
        while self._unbegun and not patience.processed:
            yield self._changed | patience
        yield from self._room()

    def _dispatch(self) -> None:
        """Let rows go while there are slots."""
        while self._slots.free and (taken := self._frontier.take()):
            slot = SimSlot(self._env, self._slots, self._dispatch)
            self._env.process(self._run_fetch(*taken, slot))
        if self._changed.callbacks:
            self._changed.succeed()
            self._changed = self._env.event()

    def _begin(self, fetch_task: SimFetch) -> None:
        if fetch_task.began is None:
            fetch_task.began = self._env.now
            self._unbegun -= 1

    # One row

    def _run_fetch(self, fetch_task: SimFetch, known: SimHost, slot: SimSlot) -> Steps:
        """One request for a row, and what follows from it."""
        asked = self._env.now
        self._begin(fetch_task)
        fetch_task.attempts += 1
        end = yield from self._fetcher.fetch(fetch_task, slot)
        slot.fetched()
        self._frontier.leave(fetch_task, known, end, asked)
        self._dispatch()
        if end == IMAGE:
            yield from self._decode(fetch_task.row)
        slot.give_back()
        self._try_again_or_finish(fetch_task, end)

    def _decode(self, row: SimRow) -> Steps:
        costs = self._worker.costs
        yield from self.decoders.work(costs.picture + costs.picture_byte * row.bytes)

    def _try_again_or_finish(self, fetch_task: SimFetch, end: str) -> None:
        """As `ingest.scheduling.retry`: by reason, growing waits, before the row's deadline."""
        patience, now = self._worker.manner.patience, self._env.now
        wait = min(patience.longest_wait, patience.first_wait * 2.0 ** (fetch_task.attempts - 1))
        wait += patience.first_wait * self._worker.random.random()
        assert fetch_task.began is not None
        over = now - fetch_task.began + wait >= patience.deadline
        if end not in RETRYABLE or fetch_task.attempts >= patience.attempts or over:
            self._finish(fetch_task, end)
        else:
            later = self._env.timeout(wait)
            assert later.callbacks is not None
            later.callbacks.append(lambda _: self._come_back(fetch_task))

    def _come_back(self, fetch_task: SimFetch) -> None:
        self._frontier.add(fetch_task)
        self._dispatch()

    def _give_up(self, fetch_task: SimFetch) -> None:
        self._begin(fetch_task)
        self._finish(fetch_task, Reason.HOST_DOWN)

    def _finish(self, fetch_task: SimFetch, end: str) -> None:
        self._worker.seen.end(str(end), self._env.now)
        chunk, stored = fetch_task.chunk, self._worker.costs.stored
        if end == IMAGE:
            chunk.stored += fetch_task.row.bytes if stored is None else stored
        chunk.left -= 1
        if chunk.left == 0:
            self._env.process(self._write(chunk))

    def _write(self, chunk: SimChunk) -> Steps:
        """Make a chunk's shard."""
        costs = self._worker.costs
        yield from self._writer.work(
            (costs.row * chunk.rows + costs.byte * chunk.stored) * costs.shard
        )
        yield self._env.timeout(self._worker.machine.disk.send(chunk.stored))
        self._unwritten -= 1
        self._dispatch()
