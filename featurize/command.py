"""Turn image shards into feature shards with ResNet50.

Reads every `<chunk>.tar` below --input and writes `<chunk>.npy` (one 2048-d float16 vector a
picture) and `<chunk>.parquet` (key, picture hash, row, or why there is no vector) to --output.
Shards that are already there for the same pictures and weights are skipped.
"""

import argparse
from pathlib import Path

from featurize.config import WEIGHTS_HELP, Config


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--input", type=Path, required=True, help="folder of image shards")
    parser.add_argument("--output", type=Path, required=True, help="folder for feature shards")
    add_network_flags(parser)
    parser.add_argument("--decoders", type=int, default=2, help="threads that decode pictures")


def add_network_flags(parser: argparse.ArgumentParser) -> None:
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


def run(arguments: argparse.Namespace) -> None:
    """Run the stage."""
    from featurize.run import featurize

    featurize(
        Config(
            input=arguments.input,
            output=arguments.output,
            weights=arguments.weights,
            image_size=arguments.image_size,
            batch_size=arguments.batch_size,
            decoders=arguments.decoders,
        )
    )
