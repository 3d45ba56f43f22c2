"""Runs pipelines in order, each over its datums in parallel, and says what it did.

A run folder holds `repos/<pipeline>/` (outputs), `lineage/`, `logs/` and `run.json`. Nothing is
under a final name before it is whole, so a run killed at any time goes on where it was.
"""

import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from capstan.deploy.local.datums import datum_name, datums, open_repo
from capstan.deploy.local.execute import (
    CancelledError,
    DatumFailure,
    DatumTask,
    Surroundings,
    run_datum,
)
from capstan.deploy.local.globs import compile_glob
from capstan.deploy.local.lineage import DatumRecords, Hashes, datum_id, sources
from capstan.deploy.specs.read import Spec, leaves
from capstan.errors import SettingError
from capstan.files import input_directory, output_directory, read_json, write_json
from capstan.progress import Progress
from capstan.records import RUN_FORMAT, RUN_VERSION, PipelineResult

logger = logging.getLogger(__name__)

SHOWN_FAILURES = 3


@dataclass(frozen=True)
class RunPlan:
    """What to run: specs in order, and the folders of the repos that come from outside."""

    specs: Sequence[Spec]
    repos: Mapping[str, Path]
    output: Path
    jobs: int


def make_plan(
    specs: Sequence[Spec], repos: Mapping[str, Path], output: Path, only: Sequence[str], jobs: int
) -> RunPlan:
    """Put pipelines in order; SettingError when an input comes from nowhere.

    A pipeline whose repo is given is not run, nor is a spout or a service; with `only`, the others
    are not run either, and what earlier runs made stands for them.
    """
    by_name = {spec.name: spec for spec in specs}
    for name in (name for name in only if name not in by_name):
        raise SettingError(f"--only {name}: no such pipeline; there are {', '.join(by_name)}")
    _check_given(specs, repos)
    wanted = {
        spec.name: [leaf.repo for leaf in leaves(spec.input)]
        for spec in specs
        if spec.name not in repos and not spec.forever and (not only or spec.name in only)
    }
    earlier = {name: output / "repos" / name for name in by_name if only and name not in wanted}
    folders = {name: path for name, path in earlier.items() if path.is_dir()} | dict(repos)
    for reader, repo in (
        (name, repo) for name, repos_read in wanted.items() for repo in repos_read
    ):
        if repo not in wanted and repo not in folders:
            raise SettingError(
                f"repo {repo}, which {reader} reads, comes from nowhere; give its folder with "
                f"--repo {repo}=DIR"
            )
    try:
        order = [name for name in TopologicalSorter(wanted).static_order() if name in wanted]
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise SettingError(f"pipelines in a circle: {circle}; cut it") from error
    return RunPlan([by_name[name] for name in order], folders, output, jobs)


def _check_given(specs: Sequence[Spec], given: Mapping[str, Path]) -> None:
    """Refuse folders that are not there, repos that no one reads, and globs that do not compile."""
    inputs = [leaf for spec in specs for leaf in leaves(spec.input)]
    for leaf in inputs:
        compile_glob(leaf.glob)
    for repo, path in given.items():
        input_directory(path, f"--repo {repo}=DIR")
        if repo not in (names := {leaf.repo for leaf in inputs}):
            raise SettingError(
                f"--repo {repo}: no pipeline reads it; they read {', '.join(sorted(names))}"
            )


def run_plan(plan: RunPlan) -> tuple[list[PipelineResult], list[Spec]]:
    """Run all pipelines whose inputs are whole; returns results, and those that had to wait."""
    with _open_run(plan.output):
        started = time.time()
        run, waiting = _Run(plan), []
        results: list[PipelineResult] = []
        broken: set[str] = set()
        for spec in plan.specs:
            _write_run(plan, started, None, results)
            if broken.intersection(leaf.repo for leaf in leaves(spec.input)):
                waiting.append(spec)
                broken.add(spec.name)
                continue
            result, whole = run.pipeline(spec)
            results.append(result)
            if not whole:
                broken.add(spec.name)
        _write_run(plan, started, time.time(), results)
    return results, waiting


@contextmanager
def _open_run(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process alone."""
    output_directory(folder)
    if not (folder / "run.json").exists() and any((folder / "repos").glob("*")):
        raise SettingError(
            f"{folder}: not a run, but holds repos/; give another folder with --output"
        )
    if (folder / "run.json").exists():
        read_json(folder / "run.json", RUN_FORMAT, RUN_VERSION)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingError(
                f"{folder}: another `capstan run` is at work there; wait for it, or give another "
                "folder with --output"
            ) from error
        for left_over in folder.glob(".scratch-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        yield


def _write_run(
    plan: RunPlan, started: float, finished: float | None, results: Sequence[PipelineResult]
) -> None:
    record: dict[str, Any] = {
        "format": RUN_FORMAT,
        "version": RUN_VERSION,
        "repos": {name: str(path.absolute()) for name, path in plan.repos.items()},
        "pipelines": [asdict(result) for result in results],
        "started": started,
        "finished": finished,
    }
    write_json(plan.output / "run.json", record)


class _Run:
    """The state of a run: repos as they get known, and hashes."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._hashes = Hashes(plan.output / ".hashes.json")
        self._repos = {name: open_repo(name, path) for name, path in plan.repos.items()}

    def pipeline(self, spec: Spec) -> tuple[PipelineResult, bool]:
        """Bring one pipeline's repo up to date; also whether those that read it can go on."""
        begin = time.monotonic()
        ledger = DatumRecords(self._plan.output, spec.name, self._hashes)
        tasks = self._tasks(spec)
        ledger.keep({task.id: datum_name(task.datum) for task in tasks})
        todo = [task for task in tasks if task.id not in ledger.records]
        failures = self._run_tasks(spec, ledger, todo)
        self._hashes.save()
        self._repos[spec.name] = open_repo(spec.name, ledger.repo)
        _show_failures(spec, failures)
        seconds = round(time.monotonic() - begin, 3)
        done = len(todo) - len(failures)
        result = PipelineResult(
            spec.name, len(tasks), done, len(tasks) - len(todo), len(failures), seconds
        )
        return result, all(failure.recovered for failure in failures)

    def _tasks(self, spec: Spec) -> list[DatumTask]:
        assert spec.input is not None
        tasks = []
        for datum in datums(spec.input, self._repos):
            files = sources(datum, self._repos, self._hashes)
            tasks.append(DatumTask(datum_id(spec, files, self._hashes), datum, files))
        self._hashes.save()
        return tasks

    def _run_tasks(
        self, spec: Spec, ledger: DatumRecords, tasks: Sequence[DatumTask]
    ) -> list[DatumFailure]:
        if not tasks and ledger.records:
            logger.info("%s: %s datums unchanged", spec.name, f"{len(ledger.records):,}")
        elif not tasks:
            globs = ", ".join(f"{leaf.repo}:{leaf.glob}" for leaf in leaves(spec.input))
            logger.warning("%s: no datums, for nothing matches %s", spec.name, globs)
        if not tasks:
            return []
        scratch = self._plan.output.resolve() / f".scratch-{os.getpid()}" / spec.name
        cancelled = threading.Event()
        workers = min(spec.parallelism, self._plan.jobs)
        with Progress(spec.name, "datums", len(tasks)) as progress:
            around = Surroundings(spec, self._repos, ledger, scratch, cancelled, progress.note)
            with ThreadPoolExecutor(workers) as pool:
                futures = [pool.submit(_run_counted, task, around, progress) for task in tasks]
                try:
                    wait(futures, return_when=FIRST_EXCEPTION)
                finally:  # after an error or Ctrl-C the others end now
                    cancelled.set()
                    pool.shutdown(cancel_futures=True)
                    progress.note("")
        shutil.rmtree(scratch.parent, ignore_errors=True)
        return _failures(futures)


def _run_counted(task: DatumTask, around: Surroundings, progress: Progress) -> DatumFailure | None:
    failure = run_datum(task, around)
    progress.add(reason=None if failure is None else "failed")
    return failure


def _failures(futures: Sequence[Future[DatumFailure | None]]) -> list[DatumFailure]:
    """What the tasks returned; raises what went wrong in one of them."""
    errors = [future.exception() for future in futures if not future.cancelled()]
    for error in errors:
        if error is not None and not isinstance(error, CancelledError):
            raise error
    return [failure for future in futures if (failure := future.result()) is not None]


def _show_failures(spec: Spec, failures: Sequence[DatumFailure]) -> None:
    for failure in failures[:SHOWN_FAILURES]:
        name = datum_name(failure.task.datum)
        logger.error("%s: datum %s failed: %s; its log:", spec.name, name, failure.why)
        for line in failure.last_lines():
            logger.error("    %s", line)
        logger.error("    (all of it: %s)", failure.log)
    if more := failures[SHOWN_FAILURES:]:
        logger.error("%s: %d more failed, see %s", spec.name, len(more), more[0].log.parent)
