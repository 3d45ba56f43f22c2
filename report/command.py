"""Draw a run as one HTML file: what came in, what was lost and why, what the model learned.

The file carries its pictures and drawings and loads nothing; it can be sent to anyone. Stages that
were not run are named as such. Give --output to write elsewhere than RUN/report.html.
"""

import argparse
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `capstan run` wrote")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write; RUN/report.html when not given"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the report and say where it is."""
    from report.page import write_report

    output = arguments.output or arguments.run / "report.html"
    write_report(arguments.run, output)
    logger.info("report: %s", output.resolve().as_uri())
