"""Networks with seeded weights, each loaded once for all tests of a process."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import capstan.featurize.extractor
from capstan.featurize import torchvision
from capstan.featurize.extractor import ResNetExtractor
from capstan.featurize.network import STAGES
from capstan.featurize.weights import load_weights

loaded = cache(ResNetExtractor)
read = cache(load_weights)


@pytest.fixture(scope="module")
def each_network_once() -> Iterator[None]:
    """Give commands that run in this process networks that are loaded already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capstan.featurize.extractor, "ResNetExtractor", loaded)
        patch.setattr(capstan.featurize.extractor, "load_weights", read)
        yield


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights: processes of their own load it much sooner than they make random ones."""
    path = tmp_path_factory.mktemp("weights") / "seeded.npz"
    np.savez(path, **torchvision_state())  # type: ignore[arg-type]
    return path


def torchvision_state() -> dict[str, NDArray[np.float32]]:
    """A state_dict of torchvision's ResNet50 with random values, and the head that is not used."""
    generator = np.random.default_rng(7)
    state: dict[str, NDArray[np.float32]] = {"fc.weight": np.zeros((10, 2048), np.float32)}

    def add(weight: str, norm: str, *shape: int) -> None:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        state[f"{weight}.weight"] = generator.normal(0, scale, shape).astype(np.float32)
        for name in torchvision.NORM:
            values = (
                generator.uniform(0.5, 1, shape[0])
                if "var" in name or name == "weight"
                else (generator.normal(0, 0.1, shape[0]))
            )
            state[f"{norm}.{name}"] = values.astype(np.float32)

    add("conv1", "bn1", 64, 3, 7, 7)
    wide = 64
    for layer, blocks in enumerate(STAGES.values(), 1):
        narrow = 32 * 2**layer
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            add(f"{at}.conv1", f"{at}.bn1", narrow, wide, 1, 1)
            add(f"{at}.conv2", f"{at}.bn2", narrow, narrow, 3, 3)
            add(f"{at}.conv3", f"{at}.bn3", 4 * narrow, narrow, 1, 1)
            if block == 0:
                add(f"{at}.downsample.0", f"{at}.downsample.1", 4 * narrow, wide, 1, 1)
            wide = 4 * narrow
    return state
