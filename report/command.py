"""Draw a run as one HTML file: what came in, what was lost and why, what the model learned.

The file carries its pictures and drawings and loads nothing; it can be sent to anyone. Stages that
were not run are named as such. Give --model in place of RUN for a model trained without a run: its
scores, learning curves and captions, with pictures when --images says where their shards are. Give
--statistics for what an ingestion saw of the web: its speed, failures, statuses, hosts and shards.
"""

import argparse
import logging
from pathlib import Path

from capstan.errors import SettingError
from capstan.files import input_directory

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="folder that `capstan run` wrote"
    )
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="--output folder of `capstan train` or `evaluate`"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="image shards of the model's pictures"
    )
    parser.add_argument(
        "--statistics", type=Path, metavar="DIR", help="--statistics folder of `capstan ingest`"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write; report.html in the folder drawn when not given",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the report and say where it is."""
    folders = (arguments.run, arguments.model, arguments.statistics)
    given = [folder for folder in folders if folder is not None]
    if len(given) != 1:
        raise SettingError("RUN, --model, --statistics: give one of them, the folder to draw")
    if arguments.images is not None and arguments.model is None:
        raise SettingError(f"--images {arguments.images}: goes with --model alone")
    output = arguments.output or given[0] / "report.html"
    if arguments.statistics is not None:
        from capstan.report.web import write_web_report

        write_web_report(arguments.statistics, output)
    else:
        _write_run(arguments, output)
    logger.info("report: %s", output.resolve().as_uri())


def _write_run(arguments: argparse.Namespace, output: Path) -> None:
    from capstan.report.page import write_report
    from capstan.report.run import read_model, read_run

    if arguments.model is None:
        write_report(read_run(arguments.run), output)
        return
    images = arguments.images
    shards = None if images is None else input_directory(images, "--images")
    write_report(read_model(input_directory(arguments.model, "--model"), shards), output)
