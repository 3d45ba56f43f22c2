"""How far the pipelines on a Pachyderm are: states, the newest job of each, its datums.

Pipelines come in the order of the data. With --follow until no job is under way.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from capstan.errors import SettingError
from capstan.pachyderm import connection
from capstan.progress import duration

if TYPE_CHECKING:
    from capstan.pachyderm.server import Pipeline, PipelineJob, Server

HEADER = f"{'pipeline':<16}{'state':<12}{'job':<12}{'datums':>15}{'failed':>8}{'time':>9}  reads"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan status`."""
    parser.add_argument(
        "--follow", action="store_true", help="show again until nothing is under way"
    )
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="time between two looks"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a look")
    connection.add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Look, show and, if so asked, look again."""
    from capstan.pachyderm.connect import open_server

    if arguments.interval < 0:
        raise SettingError(f"--interval {arguments.interval:g}: give 0 seconds or more")
    with open_server(connection.find(arguments)) as server:
        shown = ""
        while True:
            stations = look(server)
            show = as_json if arguments.json else as_text
            text = show(server.project, stations)
            if text != shown:
                _write(text, over=shown, redraw=arguments.follow and not arguments.json)
            shown = text
            if not (arguments.follow and under_way(stations)):
                return
            time.sleep(arguments.interval)


@dataclass(frozen=True)
class Station:
    """A pipeline and its newest job."""

    pipeline: "Pipeline"
    job: "PipelineJob | None"


def look(server: "Server") -> list[Station]:
    """All pipelines of the project, after those that they read from."""
    from capstan.deploy.pachyderm.order import in_order

    pipelines = {pipeline.name: pipeline for pipeline in server.pipelines()}
    order = in_order({name: pipeline.inputs for name, pipeline in pipelines.items()})
    return [Station(pipelines[name], server.job(name)) for name in order]


def under_way(stations: Sequence[Station]) -> bool:
    """Whether a job will go on by itself: neither its pipeline nor one before it is stopped."""
    from capstan.pachyderm.server import STOPPED

    stuck: set[str] = set()
    for station in stations:
        if station.pipeline.state in STOPPED or stuck & set(station.pipeline.inputs):
            stuck.add(station.pipeline.name)
    return any(
        station.job and not station.job.ended and station.pipeline.name not in stuck
        for station in stations
    )


def as_text(project: str, stations: Sequence[Station]) -> str:
    """A table, and below it why what failed has failed."""
    if not stations:
        return f"project {project} has no pipelines; make them with `capstan up`\n"
    reasons = [
        f"{station.pipeline.name}: {' '.join(why.split())}"
        for station in stations
        for why in (station.pipeline.reason, station.job.reason if station.job else "")
        if why
    ]
    return "\n".join([HEADER, *map(_line, stations), *reasons, ""])


def _line(station: Station) -> str:
    pipeline, job = station.pipeline, station.job
    start = f"{pipeline.name:<16}{pipeline.state:<12}"
    if job is None:
        middle = f"{'none yet':<12}{'':>32}"
    else:
        datums = f"{job.done:,}/{job.total:,}"
        middle = f"{job.state:<12}{datums:>15}{job.lost:>8,}{_age(job):>9}"
    return f"{start}{middle}  {', '.join(pipeline.inputs)}"


def _age(job: "PipelineJob") -> str:
    if job.started is None:
        return ""
    return duration(((job.finished or datetime.now(UTC)) - job.started).total_seconds())


def as_json(project: str, stations: Sequence[Station]) -> str:
    """One line."""
    pipelines = [_entry(station) for station in stations]
    return json.dumps({"project": project, "pipelines": pipelines}, default=str) + "\n"


def _entry(station: Station) -> Mapping[str, Any]:
    entry = asdict(station.pipeline)
    del entry["spec"]
    return entry | {
        "job": asdict(station.job) | {"done": station.job.done} if station.job else None
    }


def _write(text: str, over: str, redraw: bool) -> None:
    if redraw and over and sys.stdout.isatty():
        sys.stdout.write(f"\x1b[{len(over.splitlines())}F\x1b[J")
    sys.stdout.write(text)
    sys.stdout.flush()
