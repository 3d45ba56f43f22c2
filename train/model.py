"""The captioner's network: inject-and-merge, from standard Keras layers.

    picture features -> normalise -> dropout -> dense --------------------------+ at every step
    words so far -> embedding -> dropout [-> LSTM -> dense] -> concatenate -----+-> LSTM -> words

Captions are padded right, so no state at a real word depends on padding: no masks are needed, the
LSTMs run on cuDNN, and only the loss must pass padding over. A saved model loads in plain Keras,
without this package.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from capstan.cli import has_bfloat16
from capstan.train.settings import Architecture

VARIANCE_FLOOR = 1e-2  # of the mean variance: a feature that hardly varies is not blown up


def build_model(
    architecture: Architecture,
    vocabulary_size: int,
    features: NDArray[np.float32],
    embeddings: NDArray[np.float32] | None = None,
) -> keras.Model:
    """A new captioner: (features [B, D], words [B, T]) -> logits [B, T, V] of each next word.

    `features` (N x D) are training pictures, for the mean and variance to normalise with.
    `embeddings` (V x E) is what the words' vectors start from; E is the architecture's.
    """
    picture = keras.Input((features.shape[1],), name="features")
    words = keras.Input((None,), dtype="int32", name="words")
    image = _image_vector(architecture, picture, features)
    text = layers.Embedding(vocabulary_size, architecture.embedding, name="embedding")
    merged = layers.Concatenate(name="merge")(
        [_at_every_step(image, words), _text_vectors(architecture, text(words))]
    )
    if embeddings is not None:
        text.set_weights([embeddings])
    state = layers.LSTM(architecture.decoder, return_sequences=True, name="decoder")(merged)
    if architecture.hidden:
        state = layers.Dense(architecture.hidden, "relu", name="hidden")(state)
    state = layers.Dropout(architecture.state_dropout, name="state_dropout")(state)
    logits = layers.Dense(vocabulary_size, name="logits")(state)
    return keras.Model([picture, words], logits, name="captioner")


def _at_every_step(image: keras.KerasTensor, words: keras.KerasTensor) -> keras.KerasTensor:
    """[B, I] as [B, T, I]."""
    ones = ops.expand_dims(ops.ones_like(words, dtype=image.dtype), -1)
    return layers.Multiply(name="repeat")([ops.expand_dims(image, 1), ones])


def _text_vectors(architecture: Architecture, text: keras.KerasTensor) -> keras.KerasTensor:
    text = layers.Dropout(architecture.dropout, name="embedding_dropout")(text)
    if not architecture.language:
        return text
    text = layers.LSTM(architecture.language, return_sequences=True, name="language")(text)
    activation = "relu" if architecture.hidden else None
    return layers.Dense(architecture.text, activation, name="text")(text)


def _image_vector(
    architecture: Architecture, picture: keras.KerasTensor, features: NDArray[np.float32]
) -> keras.KerasTensor:
    if architecture.normalise:
        mean, variance = features.mean(axis=0), features.var(axis=0)
        variance += VARIANCE_FLOOR * variance.mean() + np.finfo(np.float32).tiny
        picture = layers.Normalization(
            mean=mean, variance=variance, dtype="float32", name="normalise"
        )(picture)
    picture = layers.Dropout(architecture.dropout, name="feature_dropout")(picture)
    return layers.Dense(architecture.image, "relu", name="image")(picture)


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Layers made inside calculate in this precision; their weights are float32 all the same.

    `auto` is bfloat16 where the processor or GPU calculates in it, and float32 elsewhere.
    """
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16() else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def decoder_states(model: keras.Model) -> keras.Model:
    """The same network up to its last layer: what comes before the logits, [B, T, H]."""
    return keras.Model(model.inputs, model.get_layer("logits").input)
