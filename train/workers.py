"""A group of training processes: who is in it, and who starts, watches and restarts it.

A process is told its place in a group by TF_CONFIG, on a cluster as here: `capstan train --workers
N` starts N of itself on 127.0.0.1 and watches them. This module does not load TensorFlow.
"""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from capstan.errors import CapstanError, SettingError

logger = logging.getLogger(__name__)

TF_CONFIG = "TF_CONFIG"
SUPERVISED = "CAPSTAN_SUPERVISED"  # set where a parent holds the other end of standard input
RESTARTS = 3  # without a new checkpoint in between
BLAME_SECONDS = 5.0  # for the worker at fault to end after those that lost it
TAIL = 20  # lines of a failed worker's log
Ends = SimpleQueue[tuple[int, int]]  # rank and exit status


class LostWorkerError(CapstanError):
    """Another worker of the group died, hangs or cannot be reached: all must start again."""

    exit_status = 75  # EX_TEMPFAIL: by it the supervisor tells the lost from the losers


@dataclass(frozen=True)
class Place:
    """Which of a group's workers this process is; worker 0 is the chief."""

    rank: int = 0
    size: int = 1


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """This process's place in the group that TF_CONFIG describes; alone without it."""
    text = environment.get(TF_CONFIG)
    if not text:
        return Place()
    try:
        config = json.loads(text)
        jobs = {name: len(config["cluster"].get(name, [])) for name in ("chief", "worker")}
        task, index = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingError(f'{TF_CONFIG}: not {{"cluster": …, "task": …}} ({error!r})') from error
    if not 0 <= index < jobs.get(task, 0):
        raise SettingError(f"{TF_CONFIG}: no {task} {index} in its cluster of chief and worker")
    rank = index + (jobs["chief"] if task == "worker" else 0)
    return Place(rank, sum(jobs.values()))


def is_supervised() -> bool:
    """Whether a supervisor on this machine started this process."""
    return SUPERVISED in os.environ


def end_with_supervisor() -> None:
    """End this process when the supervisor that started it is gone, however that came about."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written: it returns when the other end is closed
        os.kill(os.getpid(), signal.SIGKILL)

    if is_supervised():
        threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class WorkerFailure:
    """How a worker ended that should not have."""

    rank: int
    status: int | None  # negative: the signal that killed it; None: it did not end
    lines: Sequence[str]  # the last of its log; none of the chief, whose log is shown

    def __str__(self) -> str:
        if self.status is None:
            how = "hangs or is stopped"
        elif self.status < 0:
            how = f"was killed by {signal.Signals(-self.status).name}"
        else:
            how = f"ended with status {self.status}"
        said = "".join(f"\n  | {line}" for line in self.lines)
        return f"worker {self.rank} {how}" + (f"; its last words:{said}" if said else "")


def supervise(command: Sequence[str], workers: int, progress: Callable[[], object]) -> None:
    """Run a command as a group of workers until all of it is done.

    When one fails all are ended and started again; CapstanError when that has happened RESTARTS
    times while what `progress` returns stayed the same.
    """
    tries, before = 0, progress()
    with terminable():
        while failure := _run_group(command, workers):
            if failure.status == SettingError.exit_status:
                raise SettingError(str(failure))
            now = progress()
            tries, before = tries + 1 if now == before else 1, now
            if tries > RESTARTS:
                raise CapstanError(f"{failure}\n{RESTARTS} restarts brought nothing new; giving up")
            logger.warning("%s\nstarting all %d again from the last checkpoint", failure, workers)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends what is running here as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run_group(command: Sequence[str], workers: int) -> WorkerFailure | None:
    """Run the group once, to its end or the first failure; nothing of it is left after that."""
    ended: Ends = SimpleQueue()

    def wait(rank: int, process: subprocess.Popen[bytes]) -> None:
        ended.put((rank, process.wait()))

    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="capstan-train-")))
        for rank, environment in enumerate(environments(workers)):
            process = _start(command, environment, logs / str(rank) if rank else None)
            stack.callback(_kill, process)
            threading.Thread(target=wait, args=(rank, process), daemon=True).start()
        blamed = _first_failure(ended, set(range(workers)))
        if blamed is None:
            return None
        rank, status = blamed
        return WorkerFailure(rank, status, _tail(logs / str(rank)) if rank else ())


def _first_failure(ended: Ends, running: set[int]) -> tuple[int, int | None] | None:
    """Rank and status of the worker to blame; None when the chief, who ends last, ended well."""
    while True:
        rank, status = ended.get()
        running.discard(rank)
        if status == LostWorkerError.exit_status:
            break
        if status or not rank:
            return (rank, status) if status else None
    with suppress(Empty):
        while running:  # one of them did what the first has only suffered
            other, status = ended.get(timeout=BLAME_SECONDS)
            running.discard(other)
            if status not in (0, LostWorkerError.exit_status):
                return other, status
    return (min(running), None) if running else (rank, LostWorkerError.exit_status)


def environments(workers: int) -> Iterator[dict[str, str]]:
    """What each worker is told: its place in the group, and its part of the processors."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    threads = str(max(1, _cores() // workers))
    gpus = _gpus()
    if gpus and workers > len(gpus):
        raise SettingError(
            f"--workers {workers}, but there are {len(gpus)} GPUs; give at most that many, or set "
            "CUDA_VISIBLE_DEVICES to nothing"
        )
    each = len(gpus) // workers
    for rank in range(workers):
        task = {"type": "worker", "index": rank}
        yield {
            TF_CONFIG: json.dumps({"cluster": {"worker": addresses}, "task": task}),
            SUPERVISED: str(os.getpid()),
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            **({"CUDA_VISIBLE_DEVICES": ",".join(gpus[rank * each :][:each])} if gpus else {}),
        }


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on; should one be taken meanwhile, the group fails and starts again."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _gpus() -> list[str]:
    """GPUs that workers may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    devices = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted(match[1] for match in devices if match)


def _start(
    command: Sequence[str], environment: Mapping[str, str], log: Path | None
) -> "subprocess.Popen[bytes]":
    """Start a worker; without a log it says what it says where we do."""
    with ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("wb"))
        return subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,  # see end_with_supervisor
            stdout=output,
            stderr=output,
            process_group=0,  # Ctrl-C is for the supervisor to hear
        )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a worker at once: it leaves nothing half-written, and may be stopped or hang."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _tail(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-TAIL:]
