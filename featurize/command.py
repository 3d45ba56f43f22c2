"""Turn image shards into feature shards with ResNet50.

Reads every `<chunk>.tar` below --input and writes `<chunk>.npy` (one 2048-d float16 vector a
picture) and `<chunk>.parquet` (key, picture hash, row, or why there is no vector) to --output.
Shards that are already there for the same pictures and weights are skipped.
"""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from capstan.featurize.config import (
    PRECISION_HELP,
    PRECISIONS,
    RUNTIME_HELP,
    RUNTIMES,
    WEIGHTS_HELP,
    Config,
)
from capstan.pachyderm.datums import WORKER_PORT


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--input", type=Path, required=True, help="folder of image shards")
    parser.add_argument("--output", type=Path, required=True, help="folder for feature shards")
    _add_network_flags(parser)
    parser.add_argument(
        "--decoders",
        type=int,
        default=Config.decoders,
        help="threads that decode pictures, per process; 0: one per core, up to 8",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=Config.workers,
        help="processes, which share the shards; 0: one per GPU, or else per NUMA node",
    )
    parser.add_argument(
        "--datum-batching",
        action="store_true",
        help="in a Pachyderm pipeline with transform.datum_batching: ask the worker for datum "
        "after datum, with the network loaded once; elsewhere of no effect",
    )


def _add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say which network extracts the features."""
    parser.add_argument(
        "--weights",
        default=Config.weights,
        help=f"{WEIGHTS_HELP}; Keras downloads imagenet once",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=Config.image_size,
        help="side of the network's square input in pixels",
    )
    parser.add_argument(
        "--batch-size", type=int, default=Config.batch_size, help="pictures at once"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=Config.precision,
        help=PRECISION_HELP,
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default=Config.runtime,
        help=RUNTIME_HELP,
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the stage."""
    config = Config(**{field.name: getattr(arguments, field.name) for field in fields(Config)})
    from capstan.featurize.run import featurize, featurize_datums

    if arguments.datum_batching and WORKER_PORT in os.environ:
        featurize_datums(config)
    featurize(config)
