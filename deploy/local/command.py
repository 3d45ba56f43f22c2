"""Run pipelines on this machine: no cluster, no account.

Reads the same specs as Pachyderm, works out their datums and runs the same commands, with /pfs
replaced by a folder. What is unchanged since the last run is skipped; a run that was stopped goes
on with the same command. For one machine: past that, the answer is Pachyderm.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from capstan.deploy.specs import folder
from capstan.errors import DataError, SettingError

if TYPE_CHECKING:  # they load the SDK and more, which --help does without
    from capstan.deploy.specs.read import Spec
    from capstan.records import PipelineResult

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    folder.add_flag(parser)
    add(
        "--repo",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="folder that serves as an input repo; once for each repo that no pipeline makes",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="the run's folder")
    add(
        "--set",
        action="append",
        default=[],
        metavar="PIPELINE.FLAG[=VALUE]",
        help="add --FLAG VALUE to a pipeline's command, as in model.epochs=12",
    )
    add("--jobs", type=int, default=_cores(), metavar="N", help="datums at the same time, at most")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="PIPELINE",
        help="run these alone, on what earlier runs made",
    )
    add("--no-report", action="store_true", help="draw no report.html at the end")


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run(arguments: argparse.Namespace) -> None:
    """Run the pipelines; DataError when a datum failed."""
    from capstan.deploy.local.run import make_plan, run_plan
    from capstan.deploy.specs.read import read_specs

    if arguments.jobs < 1:
        raise SettingError(f"--jobs {arguments.jobs}: give at least 1")
    specs = add_flags(read_specs(arguments.pipelines), arguments.set)
    repos = parse_repos(arguments.repo)
    plan = make_plan(specs, repos, arguments.output, arguments.only, arguments.jobs)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        results, waiting = run_plan(plan)
    finally:
        signal.signal(signal.SIGTERM, previous)
    sys.stdout.write(summary(results, waiting))
    sys.stdout.flush()
    if not arguments.no_report:
        _report(arguments.output)
    if failed := [result for result in results if result.failed]:
        counts = ", ".join(f"{each.failed} of {each.datums} of {each.name}" for each in failed)
        raise DataError(f"datums failed: {counts}; mend the cause and run the same command again")


def parse_repos(flags: Sequence[str]) -> dict[str, Path]:
    """Folders by repo name from `NAME=DIR` flags."""
    repos: dict[str, Path] = {}
    for flag in flags:
        name, equals, directory = flag.partition("=")
        if not (name and equals and directory):
            raise SettingError(f"--repo {flag}: write it as NAME=DIR")
        if name in repos:
            raise SettingError(f"--repo {name}: given twice; give one folder")
        repos[name] = Path(directory)
    return repos


def add_flags(specs: Sequence["Spec"], settings: Sequence[str]) -> list["Spec"]:
    """Specs with `PIPELINE.FLAG[=VALUE]` settings added to their commands."""
    by_name = {spec.name: spec for spec in specs}
    for setting in settings:
        target, equals, value = setting.partition("=")
        name, _, flag = target.partition(".")
        if not flag:
            raise SettingError(f"--set {setting}: write it as PIPELINE.FLAG or PIPELINE.FLAG=VALUE")
        if name not in by_name:
            raise SettingError(
                f"--set {setting}: no pipeline {name}; there are {', '.join(sorted(by_name))}"
            )
        words = (f"--{flag}", value) if equals else (f"--{flag}",)
        by_name[name] = replace(by_name[name], command=(*by_name[name].command, *words))
    return list(by_name.values())


def summary(results: Sequence["PipelineResult"], waiting: Sequence["Spec"]) -> str:
    """What the run did: one line when there was nothing to do, else a table."""
    if not waiting and not any(result.done or result.failed for result in results):
        unchanged = sum(result.skipped for result in results)
        return f"nothing to do: {unchanged:,} datums unchanged\n"
    lines = [f"{'pipeline':<20}{'datums':>9}{'done':>9}{'skipped':>9}{'failed':>9}{'seconds':>10}"]
    lines += [
        f"{each.name:<20}{each.datums:>9,}{each.done:>9,}{each.skipped:>9,}{each.failed:>9,}"
        f"{each.seconds:>10,.1f}"
        for each in results
    ]
    lines += [f"{spec.name:<20}  not run, for its input is not whole" for spec in waiting]
    return "\n".join([*lines, ""])


def _report(folder: Path) -> None:
    """Draw the report; a run is not worse for having none."""
    from capstan.deploy.local.execute import child_environment

    try:
        done = subprocess.run(["capstan", "report", folder], env=child_environment(), check=False)
        why = f"exit status {done.returncode}" if done.returncode else ""
    except OSError as error:
        why = str(error)
    if why:
        logger.warning("capstan report %s: %s; try it by hand", folder, why)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does: programs are ended, nothing half-written stays."""
    raise KeyboardInterrupt
