"""The whole road on generated pictures, offline, on this machine.

Draws pictures of coloured shapes with captions, serves them from a local web server that also
makes faults, runs all five pipelines over them and captions pictures that it never trained on.
Ends with a report to open in a browser. Run it again and it does nothing.
"""

import argparse
from pathlib import Path

from capstan.deploy.specs.folder import DEFAULT, pipelines_folder
from capstan.files import output_directory


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder of the run")
    parser.add_argument(
        "--short",
        action="store_true",
        help="few pictures and little training: every step runs, captions come out wrong",
    )
    parser.add_argument(
        "--pipelines", type=pipelines_folder, default=DEFAULT, help="folder of specs"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the demo."""
    from capstan.demo.run import FULL, SHORT, run_demo

    folder = output_directory(arguments.output).resolve()
    run_demo(folder, SHORT if arguments.short else FULL, arguments.pipelines)
