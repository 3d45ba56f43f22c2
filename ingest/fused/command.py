"""With --featurize, for those who may not store pictures, the features alone are kept.

A chunk then becomes a feature shard as `capstan featurize` makes it (.npy and .parquet), an
_outcomes.parquet with one line per row, failures and their reasons included, and a _stats.json,
last. Pictures are held in memory only; what a killed run had computed is not computed again.
"""

import argparse
from dataclasses import fields
from importlib.util import find_spec

from capstan.errors import SettingError
from capstan.ingest import command
from capstan.ingest.config import IngestSettings
from capstan.ingest.fused.config import NetworkOptions

__doc__ = f"{command.__doc__}\n{__doc__}"  # the help of `capstan ingest` as a whole


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan ingest` and those of --featurize."""
    command.configure(parser)
    parser.add_argument(
        "--featurize", action="store_true", help="make feature shards; no picture is ever written"
    )
    NetworkOptions.configure(parser)


def run(arguments: argparse.Namespace) -> None:
    """Make image shards, or feature shards."""
    network = NetworkOptions.from_arguments(arguments)
    if arguments.featurize:
        _featurize(IngestSettings.from_arguments(arguments), network)
    elif network == NetworkOptions():
        command.run(arguments)
    else:
        flags = ", ".join(f"--{field.name.replace('_', '-')}" for field in fields(NetworkOptions))
        raise SettingError(f"{flags}: these are of --featurize; give that too")


def _featurize(settings: IngestSettings, network: NetworkOptions) -> None:
    if find_spec("tensorflow") is None:
        raise SettingError(
            "capstan ingest --featurize needs tensorflow; pip install 'capstan-captions[fused]'"
        )
    from capstan.ingest.fused.sink import feature_sink
    from capstan.ingest.run import ingest

    ingest(settings, feature_sink(network))
