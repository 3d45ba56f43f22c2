"""Where ResNet50's weights come from: `imagenet`, a file, or a seed; and their identity."""

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.applications import resnet
from keras.src.backend.config import keras_home
from numpy.typing import NDArray

from capstan.errors import SettingError
from capstan.featurize import torchvision
from capstan.featurize.network import STEM, Network, Scaling, fold
from capstan.records import Extractor

IMAGENET_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET_URL = resnet.BASE_WEIGHTS_PATH + IMAGENET_FILE
IMAGENET_MD5 = resnet.WEIGHTS_HASHES["resnet50"][1]
CAFFE = Scaling((123.68, 116.779, 103.939), (1, 1, 1))  # what Keras' ResNet50 was trained with


@dataclass(frozen=True)
class Weights:
    """A network ready to calculate, and what its features are known by."""

    network: Network
    identity: Extractor


def load_weights(weights: str, image_size: int) -> Weights:
    """Load `imagenet`, a `.weights.h5`, `.keras` or `.npz` file, or `random:SEED`.

    Raises SettingError for a file that holds no ResNet50, or weights that cannot be had.
    """
    name = weights.rsplit("/", 1)[-1]
    if weights.endswith(".npz"):
        arrays = torchvision.read(weights)
        values = (arrays[each] for each in sorted(arrays))
        identity = Extractor(
            "resnet50v1.5-avg", name, sha256_values(values), image_size, "torch-center-crop"
        )
        return Weights(torchvision.network(arrays), identity)
    model, sha256 = load_resnet50(weights, image_size)
    identity = Extractor("resnet50-avg", name, sha256, image_size, "caffe-center-crop")
    return Weights(keras_network(model), identity)


def keras_network(model: keras.Model) -> Network:
    """The convolutions of Keras' own ResNet50, folded; it takes blue first, the network red."""
    convolutions = {}
    for layer in model.layers:
        name, _, kind = layer.name.rpartition("_")
        if kind != "conv":
            continue
        norm = model.get_layer(f"{name}_bn")
        values = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        kernel = layer.kernel.numpy()
        convolutions[name] = fold(
            kernel[:, :, ::-1] if name == STEM else kernel,
            layer.bias.numpy(),
            tuple(value.numpy() for value in values),
            norm.epsilon,
        )
    return Network(convolutions, CAFFE)


def load_resnet50(weights: str, image_size: int) -> tuple[keras.Model, str]:
    """Build the headless, average-pooled ResNet50 and load its weights; return their SHA-256 too.

    Input (N, image_size, image_size, 3) as Keras' own `preprocess_input` leaves it, output
    (N, 2048).
    """
    if weights.startswith("random:"):
        return _random(int(weights.removeprefix("random:")), image_size)
    if weights == "imagenet":
        model = _resnet50(image_size)
        model.load_weights(_imagenet_file())
    elif weights.endswith(".keras"):
        model = _read_model(weights, image_size)
    else:
        model = _resnet50(image_size)
        _read_weights(model, weights)
    return model, _sha256(model)


def _resnet50(image_size: int) -> keras.Model:
    return keras.applications.ResNet50(
        weights=None, include_top=False, pooling="avg", input_shape=(image_size, image_size, 3)
    )


def _imagenet_file() -> str:
    try:
        path: str = keras.utils.get_file(
            IMAGENET_FILE, IMAGENET_URL, cache_subdir="models", file_hash=IMAGENET_MD5
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise SettingError(
            f"imagenet: cannot be downloaded ({error}); put {IMAGENET_FILE} into "
            f"{Path(keras_home()) / 'models'} or give --weights PATH"
        ) from error
    return path


def _read_weights(model: keras.Model, path: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers left out
            model.load_weights(path)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        raise SettingError(
            f"{path}: not weights of a headless ResNet50 ({_line(error)})"
        ) from error


def _read_model(path: str, image_size: int) -> keras.Model:
    model = _resnet50(image_size)
    try:
        model.set_weights(keras.models.load_model(path, compile=False).get_weights())
    except (OSError, ValueError, KeyError) as error:
        raise SettingError(f"{path}: not a headless ResNet50 ({_line(error)})") from error
    return model


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


def _random(seed: int, image_size: int) -> tuple[keras.Model, str]:
    """Seeded weights, with batch-norm statistics measured on seeded noise so that features scale.

    Their identity is that of the weights before that measurement, whose last bits differ between
    processors.
    """
    keras.utils.set_random_seed(seed)
    model = _resnet50(image_size)
    identity = _sha256(model)
    calibrate(model, _noise(seed, image_size))
    return model, identity


def calibrate(model: keras.Model, pictures: Any) -> None:
    """Set every batch-norm's statistics to those of preprocessed `pictures` (N, H, W, 3)."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(pictures, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _noise(seed: int, image_size: int) -> Any:
    """Pictures of blotches from coarse to fine, (16, S, S, 3), mean about zero as after caffe's."""
    generator = np.random.default_rng(seed)
    pictures = []
    for cells in (2, 4, 8, 16) * 4:
        blotches = generator.uniform(-128, 128, (1, cells, cells, 3)).astype(np.float32)
        pictures.append(keras.ops.image.resize(blotches, (image_size, image_size)))
    return keras.ops.concatenate(pictures)


def _sha256(model: keras.Model) -> str:
    return sha256_values(variable.numpy() for variable in model.variables)


def sha256_values(arrays: Iterable[NDArray[Any]]) -> str:
    """Identity of the weights themselves, whatever file they came from."""
    digest = hashlib.sha256()
    for values in arrays:
        array = np.ascontiguousarray(values, dtype="<f4")
        digest.update(f"{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
