"""How probable each word of a given caption is: the network over all its words at once, forced.

What it gives for a caption that the search found is what the search gave, word for word.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capstan.train.decode import suppressed_tokens
from capstan.train.vocabulary import END, START

Score = Callable[[NDArray[Any], NDArray[np.int32]], NDArray[np.float32]]


def word_scorer(model: keras.Model) -> Score:
    """A function of features [N, D] and a caption's words [L], without start and end.

    It gives the log-probabilities [N, L + 1], in nats, of each word given those before, then of
    the end; -inf for words that no search says.
    """
    banned = suppressed_tokens(model.output.shape[-1])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, model.inputs[0].shape[1]], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ]
    )  # type: ignore[untyped-decorator]
    def score(features: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
        rows = tf.shape(features)[0]
        said = tf.repeat(tf.concat([[START], words], axis=0)[None], rows, axis=0)
        following = tf.repeat(tf.concat([words, [END]], axis=0)[None], rows, axis=0)
        logits = tf.cast(model([features, said], training=False), tf.float32)
        return tf.gather(tf.nn.log_softmax(logits + banned), following, batch_dims=2)

    return lambda features, words: np.asarray(score(features.astype(np.float32), words))
