"""The settings of `capstan featurize`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstan.errors import SettingError
from capstan.files import sha256_file

DIMENSIONS = 2048  # of a picture's features
WEIGHTS_HELP = "imagenet, a .weights.h5, .keras or torchvision .npz file, or random:SEED"
PRECISION_HELP = "of the network's arithmetic; auto: bfloat16 where the GPU or processor has it"
RUNTIME_HELP = "what calculates; openvino, for processors only, is capstan-captions[openvino]"
SUFFIXES = (".weights.h5", ".keras", ".npz")
PRECISIONS = ("auto", "bfloat16", "float32")
RUNTIMES = ("tensorflow", "openvino")


@dataclass(frozen=True)
class Config:
    """What to read, what to write, and with which network."""

    input: Path
    output: Path
    weights: str = "imagenet"
    image_size: int = 224  # side of the network's square input, pixels
    batch_size: int = 32
    precision: str = "auto"  # of the network's arithmetic; see `capstan.featurize.runtimes.resolve`
    runtime: str = "tensorflow"
    decoders: int = 0  # threads; 0: one per core, up to 8
    workers: int = 0  # processes; 0: one per GPU, or else per NUMA node

    def __post_init__(self) -> None:
        if not 32 <= self.image_size <= 1024:
            raise SettingError(
                f"--image-size {self.image_size}: ResNet50 takes 32 to 1024 pixels; 224 is usual"
            )
        for name, least in (("batch_size", 1), ("decoders", 0), ("workers", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise SettingError(f"--{flag} {getattr(self, name)}: give at least {least}")

    @property
    def decoding_threads(self) -> int:
        """How many threads decode pictures."""
        return self.decoders or min(8, len(os.sched_getaffinity(0)))


def network_identity(weights: str, image_size: int, precision: str, runtime: str) -> dict[str, Any]:
    """What features are known by before the network is loaded; SettingError without the weights."""
    return {
        "weights_source": weights_source(weights),
        "image_size": image_size,
        "precision": precision,
        "runtime": runtime,
    }


def weights_source(weights: str) -> str:
    """What tells one choice of weights from another, without loading them."""
    if weights == "imagenet" or re.fullmatch(r"random:\d+", weights):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise SettingError(f"{weights}: no such weights; give --weights {WEIGHTS_HELP}")
    if not path.name.endswith(SUFFIXES):
        raise SettingError(f"{weights}: unknown kind of weights; give --weights {WEIGHTS_HELP}")
    return f"file:{sha256_file(path)}"
