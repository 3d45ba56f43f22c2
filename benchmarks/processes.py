"""A command with all its processes: how long it ran and how much memory it held at its peak."""

import ctypes
import resource
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from capstan.errors import CapstanError

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
ORPHAN_PATIENCE = 5.0  # seconds
INTERVAL = 0.25  # seconds between samples of memory; each takes some milliseconds


@dataclass(frozen=True)
class ProcessRun:
    """What a command took."""

    seconds: float
    processor: float  # seconds, of all its processes that have ended in good order
    memory: tuple[int, ...] = field(repr=False)  # bytes, a sample each interval
    killed: bool = False  # it took too long

    @property
    def peak(self) -> int:
        """The most bytes held at a time."""
        return max(self.memory, default=0)


def run(
    words: Sequence[str], environment: Mapping[str, str], log: Path, limit: float
) -> ProcessRun:
    """Run a command to its end, its output into a file; it is killed after `limit` seconds.

    Raises CapstanError when it fails.
    """
    _adopt_orphans()
    ours = set(psutil.Process().children())
    started, processor = time.monotonic(), _processor_seconds()
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=dict(environment))
    status = None
    try:
        with memory_watched(process.pid) as samples:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(limit)
            seconds = time.monotonic() - started
    finally:
        kill_tree(process)
        psutil.wait_procs(set(psutil.Process().children()) - ours, ORPHAN_PATIENCE)
    if status:
        said = log.read_text(errors="replace").strip().splitlines()[-10:]
        raise CapstanError("\n".join([f"{_name(words)} ended with {status}:", *said]))
    return ProcessRun(seconds, _processor_seconds() - processor, tuple(samples), status is None)


def _adopt_orphans() -> None:
    """Become the parent of processes that outlive theirs, so that their seconds are counted."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _name(words: Sequence[str]) -> str:
    return " ".join(words[:4])


def memory_of(pid: int) -> int:
    """Bytes that a process and all it has started hold, pages that they share counted once (PSS).

    Zero for a process that has ended.
    """
    total = 0
    for each in _tree(pid):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += each.memory_full_info().pss
    return total


def processor_seconds_of(pid: int) -> float:
    """Seconds of processors that a process and all it has started took so far."""
    total = 0.0
    for each in _tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a command."""
    for child in _tree(process.pid)[1:]:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.kill()
    process.wait()


@contextmanager
def memory_watched(pid: int) -> Iterator[list[int]]:
    """What `memory_of` says each interval while the block runs."""
    samples: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            samples.append(memory_of(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
