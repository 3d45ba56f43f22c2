"""Download the pictures of TSV chunks into image shards.

For every chunk below --input writes, under the same name below --output, a WebDataset .tar of
JPEGs with captions, a .parquet with one line per row, failures and their reasons included, and a
_stats.json, last. Running it again does only what is missing or changed; a killed run goes on
from the rows it had. Rows that fail are accounted for and do not fail the command.

`capstan ingest serve` does the same as a service, for TSVs that are submitted over HTTP.
"""

import argparse

from capstan.ingest.config import IngestSettings
from capstan.ingest.forks import start_server


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan ingest`."""
    IngestSettings.configure(parser)


def run(arguments: argparse.Namespace) -> None:
    """Make the image shards."""
    settings = IngestSettings.from_arguments(arguments)
    start_server()
    from capstan.ingest.run import ingest

    ingest(settings)
