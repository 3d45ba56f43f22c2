"""Draw a run as one HTML file: what came in, what was lost and why, what the model learned.

The file carries its pictures and drawings and loads nothing; it can be sent to anyone. Stages that
were not run are named as such. Give --model in place of RUN for a model trained without a run: its
scores, learning curves and captions, with pictures when --images says where their shards are.
"""

import argparse
import logging
from pathlib import Path

from pipeline.errors import SettingError
from pipeline.files import input_directory

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
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write; report.html in RUN or --model when not given",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the report and say where it is."""
    folder, model, images = arguments.run, arguments.model, arguments.images
    if (folder is None) == (model is None):
        raise SettingError("RUN, --model: give one of them, the folder to draw")
    if images is not None and model is None:
        raise SettingError(f"--images {images}: goes with --model; a RUN has its own image shards")
    from report.page import write_report
    from report.run import read_model, read_run

    if model is None:
        drawn = read_run(folder)
    else:
        shards = None if images is None else input_directory(images, "--images")
        drawn = read_model(input_directory(model, "--model"), shards)
    output = arguments.output or drawn.path / "report.html"
    write_report(drawn, output)
    logger.info("report: %s", output.resolve().as_uri())
