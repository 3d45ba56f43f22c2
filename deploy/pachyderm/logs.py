"""Print what a pipeline's programs on a Pachyderm wrote, with the datum that they worked on."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from capstan.errors import SettingError
from capstan.pachyderm import connection

if TYPE_CHECKING:
    from capstan.pachyderm.server import LogLine


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan logs`."""
    parser.add_argument("pipeline", metavar="PIPELINE")
    parser.add_argument("--job", metavar="ID", help="of this job only, as `capstan status --json`")
    parser.add_argument("--tail", type=int, default=0, metavar="N", help="last lines of a worker")
    parser.add_argument("--follow", action="store_true", help="go on until interrupted")
    parser.add_argument("--all", action="store_true", help="also what the workers themselves say")
    connection.add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print line by line."""
    from capstan.pachyderm.connect import open_server
    from capstan.pachyderm.server import LogFilter

    if arguments.tail < 0:
        raise SettingError(f"--tail {arguments.tail}: give a number of lines")
    wanted = LogFilter(
        arguments.pipeline, arguments.job, arguments.follow, arguments.tail, arguments.all
    )
    with open_server(connection.find(arguments)) as server:
        if wanted.pipeline not in (known := [each.name for each in server.pipelines()]):
            raise SettingError(
                f"{wanted.pipeline}: no such pipeline in project {server.project}; there are "
                f"{', '.join(known) or 'none'}"
            )
        try:
            for line in server.logs(wanted):
                sys.stdout.write(as_text(line))
                sys.stdout.flush()
        except BrokenPipeError:  # `| head` has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_text(line: "LogLine") -> str:
    """Time, worker and datum, as far as known, before the message."""
    time = line.time.strftime("%H:%M:%S") if line.time else ""
    return f"{' '.join(filter(None, (time, line.worker, line.datum[:12])))}: {line.message}\n"
