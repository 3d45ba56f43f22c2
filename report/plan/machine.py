"""A simulated machine: cores and the threads that share them, link, disk."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

Steps = Generator[simpy.Event, Any, None]


class Cores:
    """Cores that all threads of a machine share, first come first served."""

    def __init__(self, env: simpy.Environment, number: int) -> None:
        self.env, self.number, self.free = env, number, simpy.Resource(env, number)
        self.busy = 0.0  # core seconds


class Threads:
    """So many threads with one queue; each takes a core for one piece of work at a time."""

    def __init__(self, cores: Cores, number: int = 1) -> None:
        self._cores, self._free = cores, simpy.Resource(cores.env, number)
        self.number, self.busy = number, 0.0  # seconds of all threads

    def work(self, seconds: float) -> Steps:
        """Work for so long, once a thread and a core are free."""
        if seconds <= 0:
            return
        with self._free.request() as thread:
            yield thread
            with self._cores.free.request() as core:
                yield core
                yield self._cores.env.timeout(seconds)
        self.busy += seconds
        self._cores.busy += seconds


class SimLink:
    """A link, a disk, a host or a store: passes so much a second, first come first served."""

    def __init__(self, env: simpy.Environment, per_second: float) -> None:
        self._env, self._per_second = env, per_second
        self._free_at = env.now
        self.passed = 0.0

    def send(self, amount: float) -> float:
        """Seconds from now until so much is through."""
        self.passed += amount
        self._free_at = max(self._env.now, self._free_at) + amount / self._per_second
        return self._free_at - self._env.now

    @property
    def busy(self) -> float:
        """Seconds that it was at work, or will have been."""
        return self.passed / self._per_second


@dataclass(frozen=True)
class MachineSize:
    """Of a worker. `bandwidth` and `disk` are bytes per second."""

    cores: int
    bandwidth: float
    disk: float
    servers: int = 1  # threads of a web on this very machine, as in benchmarks


class Machine:
    """What the processes of a worker share."""

    def __init__(self, env: simpy.Environment, size: MachineSize) -> None:
        self.cores = Cores(env, size.cores)
        self.link, self.disk = SimLink(env, size.bandwidth), SimLink(env, size.disk)
        self.servers = Threads(self.cores, size.servers)
