"""The settings that --featurize adds to `capstan ingest`."""

from dataclasses import dataclass

from capstan.featurize.config import (
    PRECISION_HELP,
    PRECISIONS,
    RUNTIME_HELP,
    RUNTIMES,
    WEIGHTS_HELP,
    Config,
)
from capstan.ingest.config import Flags, flag


@dataclass(frozen=True)
class NetworkOptions(Flags):
    """with --featurize, the network."""

    weights: str = flag(Config.weights, f"{WEIGHTS_HELP}; Keras downloads imagenet once")
    feature_size: int = flag(
        Config.image_size, "side of the network's square input in pixels", 32, 1024
    )
    batch_size: int = flag(Config.batch_size, "pictures that the network is given at once", 1)
    precision: str = flag(Config.precision, PRECISION_HELP, choices=PRECISIONS)
    runtime: str = flag(Config.runtime, RUNTIME_HELP, choices=RUNTIMES)
