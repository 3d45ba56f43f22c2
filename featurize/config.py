"""The settings of `capstan featurize`."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SettingError
from pipeline.files import sha256_file

WEIGHTS_HELP = "imagenet, a .weights.h5 or .keras file, or random:SEED"


@dataclass(frozen=True)
class Config:
    """What to read, what to write, and with which network."""

    input: Path
    output: Path
    weights: str = "imagenet"
    image_size: int = 224  # side of the network's square input, pixels
    batch_size: int = 32
    decoders: int = 2  # threads

    def __post_init__(self) -> None:
        if not 32 <= self.image_size <= 1024:
            raise SettingError(
                f"--image-size {self.image_size}: ResNet50 takes 32 to 1024 pixels; 224 is usual"
            )
        for name in ("batch_size", "decoders"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise SettingError(f"--{flag} {getattr(self, name)}: give at least 1")


def weights_source(weights: str) -> str:
    """What tells one choice of weights from another, without loading them."""
    if weights == "imagenet" or re.fullmatch(r"random:\d+", weights):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise SettingError(f"{weights}: no such weights; give --weights {WEIGHTS_HELP}")
    if not path.name.endswith((".weights.h5", ".keras")):
        raise SettingError(f"{weights}: unknown kind of weights; give --weights {WEIGHTS_HELP}")
    return f"file:{sha256_file(path)}"
