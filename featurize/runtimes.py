"""What calculates the network: a fixed batch of pictures in, their features out.

TensorFlow is the default. On a processor its graph of constants, with batch-norm folded, runs as
52 fused convolutions near the processor's peak; on a GPU XLA compiles it. OpenVINO is somewhat
faster still on processors (`docs/featurize.md`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capstan.cli import has_bfloat16
from capstan.errors import SettingError
from capstan.featurize.network import Network, forward

Shape = tuple[int | None, int, int, int]  # pictures (None: any number), height, width, 3
Calculate = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # Shape to (pictures, 2048)


def resolve(precision: str) -> str:
    """`auto` is bfloat16 where the processor or GPU calculates in it, else float32."""
    if precision == "auto":
        return "bfloat16" if has_bfloat16() else "float32"
    return precision


def in_tensorflow(network: Network, shape: Shape, precision: str) -> Calculate:
    """The network as one graph for batches of this shape."""
    function = _function(network, shape, precision)
    return lambda pictures: function(pictures).numpy()


def in_openvino(network: Network, shape: Shape, precision: str) -> Calculate:
    """The same graph, calculated by OpenVINO; raises SettingError where it is not installed."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise SettingError(
            "--runtime openvino: not installed; pip install 'capstan-captions[openvino]'"
        ) from error
    graph = _function(network, shape, "float32").get_concrete_function()
    hint = {"bfloat16": "bf16", "float32": "f32"}[precision]
    compiled = openvino.Core().compile_model(
        openvino.convert_model(graph),
        "CPU",
        {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"},
    )
    request = compiled.create_infer_request()
    return lambda pictures: np.array(request.infer([pictures], share_inputs=True)[0])


def _function(network: Network, shape: Shape, precision: str) -> Any:
    return tf.function(
        lambda pictures: forward(network, pictures, tf.dtypes.as_dtype(precision)),
        input_signature=[tf.TensorSpec(shape, tf.uint8)],
        autograph=False,
        jit_compile=bool(tf.config.list_physical_devices("GPU")),
    )


RUNTIMES: Mapping[str, Callable[[Network, Shape, str], Calculate]] = {
    "tensorflow": in_tensorflow,
    "openvino": in_openvino,
}
