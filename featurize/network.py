"""ResNet50 as 53 convolutions: batch-norm folded into each, for inference only.

He et al. 2015 (arXiv:1512.03385), average-pooled. A batch-norm at inference is an affine map of a
convolution's output, so it disappears into kernel and bias; what is left is a convolution, a bias,
sometimes a sum, and a ReLU, which TensorFlow, XLA and OpenVINO each calculate as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

STAGES = {2: 3, 3: 4, 4: 6, 5: 3}  # number in Keras' names, blocks


@dataclass(frozen=True)
class Convolution:
    """A convolution with its batch-norm folded in: kernel (H, W, in, out) and bias (out), float32.

    The bias is that of the folded batch-norm, never all zero in a trained network.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Scaling:
    """What becomes of pixels first: (pixel - mean) / deviation, for red, green and blue."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


@dataclass(frozen=True)
class Network:
    """All that one ResNet50 calculates with; see `block` and `STEM` for the names."""

    convolutions: Mapping[str, Convolution]  # the first takes red, green, blue
    scaling: Scaling
    spatial_stride: bool = False  # v1.5: a stage's first 3x3 convolution strides, not its 1x1


STEM = "conv1"


def block(stage: int, number: int, convolution: int) -> str:
    """Name of a convolution, as in Keras: `conv2_block1_0`."""
    return f"conv{stage}_block{number}_{convolution}"


def forward(network: Network, pictures: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Features (N, 2048) float32 of RGB pictures (N, S, S, 3) uint8, calculated in `dtype`."""
    state = tf.cast(pictures, tf.float32) - tf.constant(network.scaling.mean)
    if network.scaling.deviation != (1, 1, 1):
        state /= tf.constant(network.scaling.deviation)
    state = tf.nn.relu(_convolve(network.convolutions[STEM], tf.cast(state, dtype), stride=2))
    state = tf.nn.max_pool2d(state, 3, 2, _margins(3))
    for stage, blocks in STAGES.items():
        for number in range(1, blocks + 1):
            state = _block(network, state, stage, number)
    return tf.reduce_mean(tf.cast(state, tf.float32), [1, 2])


def _block(network: Network, state: tf.Tensor, stage: int, number: int) -> tf.Tensor:
    reduce, spatial, expand = (
        network.convolutions[block(stage, number, each)] for each in (1, 2, 3)
    )
    shortcut = network.convolutions.get(block(stage, number, 0))
    stride = 2 if number == 1 and stage > min(STAGES) else 1
    early, late = (1, stride) if network.spatial_stride else (stride, 1)
    inner = tf.nn.relu(_convolve(reduce, state, early))
    inner = tf.nn.relu(_convolve(spatial, inner, late))
    inner = _convolve(expand, inner)
    return tf.nn.relu(inner + (_convolve(shortcut, state, stride) if shortcut else state))


def _convolve(convolution: Convolution, state: tf.Tensor, stride: int = 1) -> tf.Tensor:
    kernel, bias = (
        tf.constant(array, state.dtype) for array in (convolution.kernel, convolution.bias)
    )
    margins = _margins(len(convolution.kernel))
    return tf.nn.bias_add(tf.nn.conv2d(state, kernel, stride, margins), bias)


def _margins(size: int) -> list[list[int]]:
    """Zeros around a picture, the same on all sides, for a window of this many pixels."""
    return [[0, 0], [size // 2, size // 2], [size // 2, size // 2], [0, 0]]


def fold(
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32] | float,
    norm: tuple[NDArray[np.float32], ...],
    epsilon: float,
) -> Convolution:
    """A convolution and the batch-norm after it (gamma, beta, mean, variance) as one."""
    gamma, beta, mean, variance = (array.astype(np.float64) for array in norm)
    scale = gamma / np.sqrt(variance + epsilon)
    return Convolution(
        (kernel * scale).astype(np.float32), ((bias - mean) * scale + beta).astype(np.float32)
    )
