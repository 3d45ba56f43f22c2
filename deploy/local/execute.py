"""Runs one datum: its files under a scratch `/pfs`, its program, its outputs into the repo."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from capstan.cli import LOG_FORMAT_VARIABLE
from capstan.deploy.local.datums import Datum, Repo
from capstan.deploy.local.lineage import DatumInput, DatumRecords
from capstan.deploy.local.staging import collect, publish, stage
from capstan.deploy.specs.read import Spec
from capstan.errors import DataError, SettingError
from capstan.progress import INTERVAL_VARIABLE

PFS = re.compile(r"(?<![\w./-])/pfs(?![\w-])")
GRACE = 5.0  # seconds between asking a program to end and killing it
LAST_LINES = 8


@dataclass(frozen=True)
class DatumTask:
    """A datum to run."""

    id: str
    datum: Datum
    sources: Sequence[DatumInput]


@dataclass(frozen=True)
class DatumFailure:
    """Why a datum has no outputs, and where its program said more."""

    task: DatumTask
    why: str
    log: Path
    recovered: bool = False  # by err_cmd, so that pipelines behind go on with the other datums

    def last_lines(self) -> list[str]:
        """The end of the program's log, JSON lines as their messages."""
        lines = self.log.read_bytes()[-(2**16) :].decode(errors="replace").splitlines()
        messages = [str(_log_entry(line).get("message", line)) for line in lines]
        return [message for message in messages if message.strip()][-LAST_LINES:]


@dataclass(frozen=True)
class Surroundings:
    """What the datums of one pipeline share. `note` shows a program's progress."""

    spec: Spec
    repos: Mapping[str, Repo]
    ledger: DatumRecords
    scratch: Path
    cancelled: threading.Event
    note: Callable[[str], None]


class CancelledError(Exception):
    """The run ends before the datum does."""


class _FailedTryError(Exception):
    """One try of a datum failed."""

    recovered = False


class _TimedOutError(_FailedTryError):
    """It took longer than datum_timeout."""


def run_datum(task: DatumTask, around: Surroundings) -> DatumFailure | None:
    """Run a datum, as often as its spec allows, and put its outputs and its record in place."""
    log = around.ledger.logs / f"{task.id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    why, recovered = "", False
    for number in range(1, around.spec.tries + 1):
        try:
            _try(task, around, log)
            return None
        except _FailedTryError as error:
            why, recovered = str(error), recovered or error.recovered
            _append(log, f"try {number} of {around.spec.tries}: {why}")
        except DataError as error:  # its outputs cannot be used; another try would make the same
            return DatumFailure(task, str(error), log)
        finally:
            shutil.rmtree(around.scratch / task.id, ignore_errors=True)
    return DatumFailure(task, why, log, recovered)


def _try(task: DatumTask, around: Surroundings, log: Path) -> None:
    started, begin = time.time(), time.monotonic()
    pfs, ledger = around.scratch / task.id / "pfs", around.ledger
    present = stage(task.datum, around.repos, pfs)
    _run_commands(task, around, pfs, log)
    paths = collect(pfs, present)
    publish(task.id, ledger, paths, pfs / "out")
    entry = {
        "pipeline": around.spec.name,
        "datum": task.id,
        "inputs": [asdict(source) for source in task.sources],
        "command": list(around.spec.command),
        "outputs": [asdict(output) for output in ledger.outputs(paths)],
        "started": round(started, 3),
        "seconds": round(time.monotonic() - begin, 3),
        "log": log.relative_to(ledger.logs.parents[1]).as_posix(),
    }
    ledger.record(task.id, entry)


def _run_commands(task: DatumTask, around: Surroundings, pfs: Path, log: Path) -> None:
    """The program; after a failure that is no time-out also err_cmd, as the server does."""
    try:
        _run_program(task, around, pfs, log)
    except _FailedTryError as error:
        spec = around.spec
        if spec.recovery and not isinstance(error, _TimedOutError):
            recovery = replace(spec, command=spec.recovery, stdin=spec.recovery_stdin)
            with suppress(_FailedTryError):
                _run_program(task, replace(around, spec=recovery), pfs, log)
                error.recovered = True
        raise


def _run_program(task: DatumTask, around: Surroundings, pfs: Path, log: Path) -> None:
    spec = around.spec
    words = [_rooted(word, pfs) for word in spec.command]
    stdin = pfs.parent / "stdin"
    stdin.write_text("".join(_rooted(line, pfs) + "\n" for line in spec.stdin))
    folder = Path(_rooted(spec.working_dir, pfs)) if spec.working_dir else Path()
    with _process_group() as group, stdin.open("rb") as source, log.open("ab") as sink:
        begin = sink.tell()
        try:
            process = subprocess.Popen(
                words,
                stdin=source,
                stdout=sink,
                stderr=sink,
                cwd=folder if folder.is_dir() else None,  # else it is the container's own
                env=_environment(task, spec, pfs),
                process_group=group,
            )
        except OSError as error:
            raise SettingError(
                f"{spec.file}: transform.cmd: {words[0]}: {error.strerror} on this machine; "
                "install it or change the command"
            ) from error
        with log.open("rb") as lines:
            lines.seek(begin)
            _wait(process, around, lines)
    if process.returncode not in spec.accepted:
        raise _FailedTryError(_status(process.returncode))


@contextmanager
def _process_group() -> Iterator[int]:
    """A process group that ends with the block, or with this process however that ends.

    A shell leads it and waits for its pipe to close, which even SIGKILL cannot keep from happening.
    """
    script = "trap '' TERM; read line; kill -KILL 0"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, process_group=0) as leader:
        yield leader.pid


def _rooted(text: str, pfs: Path) -> str:
    return PFS.sub(lambda _: str(pfs), text)


def _environment(task: DatumTask, spec: Spec, pfs: Path) -> dict[str, str]:
    """Pachyderm's variables, the spec's own, and what makes programs log for the report."""
    environment = child_environment()
    for piece in task.datum:
        environment[piece.input.name] = f"{pfs}/{piece.input.name}{piece.path}"
        for variable, key in (("JOIN_ON", piece.join_key), ("GROUP_BY", piece.group_key)):
            if key:
                environment[f"PACH_DATUM_{piece.input.name}_{variable}"] = key
    environment["PACH_DATUM_ID"] = task.id
    environment |= {name: _rooted(value, pfs) for name, value in spec.env.items()}
    return environment | {LOG_FORMAT_VARIABLE: "json", INTERVAL_VARIABLE: "1"}


def child_environment() -> dict[str, str]:
    """This process's environment; programs beside its Python, such as `capstan`, come first."""
    path = os.environ.get("PATH", os.defpath)
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}"}


def _wait(process: subprocess.Popen[bytes], around: Surroundings, lines: BinaryIO) -> None:
    """Wait for the program's end, showing its progress; raises when it must end before."""
    timeout, pause = around.spec.timeout, 0.005
    deadline = None if timeout is None else time.monotonic() + timeout
    while process.poll() is None:
        if around.cancelled.wait(pause):
            _end(process)
            raise CancelledError
        if deadline is not None and time.monotonic() > deadline:
            _end(process)
            raise _TimedOutError(f"timed out after {timeout:g} s (datum_timeout)")
        if note := _latest_progress(lines.readlines()):
            around.note(note)
        pause = min(2 * pause, 0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the program's group to end, then make the program."""
    os.killpg(os.getpgid(process.pid), signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _status(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    name = signal.Signals(-returncode).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _latest_progress(lines: Sequence[bytes]) -> str:
    for line in reversed(lines):
        entry = _log_entry(line.decode(errors="replace"))
        if "progress" in entry:
            return str(entry.get("message", ""))
    return ""


def _log_entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line) if line.startswith("{") else {}
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _append(log: Path, message: str) -> None:
    entry = {"time": round(time.time(), 3), "level": "warning", "message": message}
    with log.open("a") as file:
        file.write(json.dumps(entry) + "\n")
