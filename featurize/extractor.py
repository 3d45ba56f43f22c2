"""The extractor: pictures in, 2048 numbers each out, in batches of one fixed shape."""

import logging

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capstan.errors import CapstanError
from capstan.featurize.config import DIMENSIONS
from capstan.featurize.memory import available
from capstan.featurize.runtimes import RUNTIMES, Calculate, resolve
from capstan.featurize.weights import load_weights

logger = logging.getLogger(__name__)

BYTES_PER_PIXEL = {"float32": 280, "bfloat16": 145}  # measured on a processor, all layers' at most


class ResNetExtractor:
    """ResNet50 with average pooling; a batch that is short is padded, if not told otherwise.

    Padded, a picture's features depend on nothing but the picture: the shape is always the same.
    """

    def __init__(
        self,
        weights: str,
        image_size: int,
        batch_size: int,
        precision: str = "auto",
        runtime: str = "tensorflow",
        *,
        padded: bool = True,
    ) -> None:
        self._weights = load_weights(weights, image_size)
        self._precision, self._runtime = resolve(precision), runtime
        self.identity, self.batch_size = self._weights.identity, batch_size
        self._fixed = padded
        while self.batch_size > 1 and not self._has_room():
            self._halve()
        self._calculate = self._compile()

    def _has_room(self) -> bool:
        """Whether a batch fits into memory; on a GPU that is found out by trying."""
        if tf.config.list_physical_devices("GPU") or (free := available()) is None:
            return True
        pixels = self.batch_size * self.identity.image_size**2
        return pixels * BYTES_PER_PIXEL[self._precision] < free

    def _compile(self) -> Calculate:
        side = self.identity.image_size
        shape = (self.batch_size if self._fixed else None, side, side, 3)
        return RUNTIMES[self._runtime](self._weights.network, shape, self._precision)

    def extract(self, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Features (N, 2048) float16 of RGB pictures (N, S, S, 3), any N.

        Where memory does not suffice, the batch is halved for good. Raises CapstanError where it
        does not for a single picture.
        """
        parts = [np.empty((0, DIMENSIONS), np.float16)]
        done = 0
        while done < len(pictures):
            batch = pictures[done : done + self.batch_size]
            try:
                features = self._calculate(self._padded(batch))[: len(batch)]
            except (tf.errors.ResourceExhaustedError, MemoryError):
                self._halve()
                self._calculate = self._compile()
                continue
            parts.append(features.astype(np.float16))
            done += len(batch)
        return np.concatenate(parts)

    def _padded(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        missing = self.batch_size - len(batch) if self._fixed else 0
        return np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else batch

    def _halve(self) -> None:
        if self.batch_size == 1:
            raise CapstanError(
                f"not enough memory for a single picture of {self.identity.image_size} pixels; "
                "free some memory, or give a smaller --image-size"
            ) from None
        smaller = self.batch_size // 2
        logger.warning(
            "not enough memory for --batch-size %d: going on with %d", self.batch_size, smaller
        )
        self.batch_size = smaller

    def __repr__(self) -> str:
        return (
            f"<ResNetExtractor {self.identity} batch {self.batch_size}, {self._precision} in "
            f"{self._runtime}>"
        )
