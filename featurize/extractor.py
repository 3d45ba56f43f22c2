"""The network itself: batches of pixels in, 2048 numbers a picture out."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from featurize.weights import load_resnet50
from pipeline.records import Extractor

DIMENSIONS = 2048
PREPROCESSING = "caffe-center-crop"  # Keras' ResNet50 preprocessing after `featurize.pictures`


class ResNetExtractor:
    """ResNet50 with average pooling, for batches of one fixed shape (a short one is padded)."""

    def __init__(self, weights: str, image_size: int, batch_size: int) -> None:
        self._model, sha256 = load_resnet50(weights, image_size)
        self.identity = Extractor(
            name="resnet50-avg",
            weights=weights.rsplit("/", 1)[-1],
            weights_sha256=sha256,
            image_size=image_size,
            preprocessing=PREPROCESSING,
        )
        self.batch_size = batch_size
        shape = (batch_size, image_size, image_size, 3)
        self._features = tf.function(
            self._forward, input_signature=[tf.TensorSpec(shape, tf.uint8)], autograph=False
        )

    def _forward(self, pictures: tf.Tensor) -> tf.Tensor:
        pixels = keras.applications.resnet50.preprocess_input(tf.cast(pictures, tf.float32))
        return self._model(pixels, training=False)

    def extract(self, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Features (N, 2048) float16 of RGB pictures (N, S, S, 3), any N."""
        parts = [np.empty((0, DIMENSIONS), np.float16)]
        for start in range(0, len(pictures), self.batch_size):
            batch = pictures[start : start + self.batch_size]
            missing = self.batch_size - len(batch)
            padded = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else batch
            parts.append(self._features(padded).numpy()[: len(batch)].astype(np.float16))
        return np.concatenate(parts)

    def __repr__(self) -> str:
        return f"<ResNetExtractor {self.identity} batch {self.batch_size}>"
