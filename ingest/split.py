"""Cut a TSV of caption<TAB>url lines into chunks, the pieces of work of all pipelines.

Writes DIR/NAME.tsv/0000000000000000 and on, numbered in hexadecimal as Pachyderm's
`put file --split line --target-file-datums ROWS` named them. The chunks put together are the TSV,
byte for byte. Running it again rewrites only chunks that changed and removes those left over.
"""

import argparse
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan split`."""
    parser.add_argument("tsv", type=Path, metavar="TSV", help="file of caption<TAB>url lines")
    parser.add_argument("--rows", type=int, default=10_000, metavar="N", help="lines per chunk")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="where to put the chunks, in a directory named like the TSV",
    )


def run(arguments: argparse.Namespace) -> None:
    """Cut the TSV and say what was done."""
    from capstan.chunks import check_cut, cut
    from capstan.files import output_directory

    tsv: Path = arguments.tsv
    check_cut(tsv, arguments.rows)
    directory = output_directory(arguments.output / tsv.name)
    logger.info("%s: %s", directory, cut(tsv, arguments.rows, directory))
