"""Where pipeline specs are: a folder that a flag names, or those that come with Capstan."""

import argparse
from pathlib import Path

DEFAULT = "deploy/pipelines"
SHIPPED = Path(__file__).parents[1] / "pipelines"


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add --pipelines."""
    parser.add_argument(
        "--pipelines",
        type=pipelines_folder,
        default=DEFAULT,
        metavar="DIR",
        help="folder of pipeline specs, *.json",
    )


def pipelines_folder(named: str) -> Path:
    """Return the folder that is named; away from a checkout the default is what is installed."""
    folder = Path(named)
    return SHIPPED if named == DEFAULT and not folder.is_dir() else folder
