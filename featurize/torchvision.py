"""ResNet50 from PyTorch: a `.npz` of torchvision's names, made from a `state_dict`.

    numpy.savez("resnet50.npz", **{name: value.numpy() for name, value in state.items()})

torchvision's is v1.5 (a stage's first 3x3 convolution strides, where v1 has the 1x1 before it do
so), its convolutions have no bias, its pixels are red first, scaled to mean 0 and deviation 1.
"""

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capstan.errors import SettingError
from capstan.featurize.network import STAGES, STEM, Convolution, Network, Scaling, block, fold

Arrays = Mapping[str, NDArray[Any]]

EPSILON = 1e-5  # of torch.nn.BatchNorm2d
SCALING = Scaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # its 0.485, ... times 255
NORM = ("weight", "bias", "running_mean", "running_var")


def read(path: str) -> Arrays:
    """The arrays of a `.npz` that a headless ResNet50 needs; raises SettingError without them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in _names()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SettingError(f"{path}: cannot be read as .npz ({error}); save it again") from error
    except KeyError as error:
        raise SettingError(
            f"{path}: not torchvision's ResNet50, for it has no {error.args[0].split()[0]}; save "
            "its state_dict with numpy.savez"
        ) from error


def network(arrays: Arrays) -> Network:
    """The arrays as a network."""
    return Network(
        {name: _convolution(arrays, *sources) for name, sources in _sources().items()},
        SCALING,
        spatial_stride=True,
    )


def _convolution(arrays: Arrays, weight: str, norm: str) -> Convolution:
    kernel = arrays[f"{weight}.weight"].transpose(2, 3, 1, 0)  # (out, in, H, W) to (H, W, in, out)
    return fold(kernel, 0.0, tuple(arrays[f"{norm}.{each}"] for each in NORM), EPSILON)


def _names() -> list[str]:
    return [
        name
        for weight, norm in _sources().values()
        for name in (f"{weight}.weight", *(f"{norm}.{each}" for each in NORM))
    ]


def _sources() -> dict[str, tuple[str, str]]:
    """By our name of each convolution: torchvision's of it and of its batch-norm."""
    sources = {STEM: ("conv1", "bn1")}
    for stage, blocks in STAGES.items():
        for number in range(1, blocks + 1):
            prefix = f"layer{stage - 1}.{number - 1}"
            if number == 1:
                sources[block(stage, 1, 0)] = (f"{prefix}.downsample.0", f"{prefix}.downsample.1")
            for each in (1, 2, 3):
                name = block(stage, number, each)
                sources[name] = (f"{prefix}.conv{each}", f"{prefix}.bn{each}")
    return sources
