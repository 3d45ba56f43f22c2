"""Features to captions: batched search with carried state, one traced function.

`Stepper` is the network one word at a time; a search (greedy here) only ever calls its `start` and
`step`, with the state's rows in any order and number.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from train.vocabulary import END, PAD, START, UNKNOWN

BATCH = 256
NEVER = -1e9  # log-probability of words that are not to be said

State = tuple[tf.Tensor, ...]  # each [B, ...]: the picture's vector, then the LSTMs' states


class Stepper:
    """A captioner's network, one word at a time, over the same weights."""

    def __init__(self, model: keras.Model) -> None:
        self._image = keras.Model(model.inputs[0], model.get_layer("image").output)
        self._embedding, self._text = model.get_layer("embedding"), model.get_layer("text")
        self._language = model.get_layer("language").cell
        self._decoder = model.get_layer("decoder").cell
        names = {layer.name for layer in model.layers}
        self._head = [model.get_layer(name) for name in ("hidden", "logits") if name in names]
        self.feature_size = int(model.inputs[0].shape[1])
        banned = np.zeros(model.output.shape[-1], np.float32)
        banned[[PAD, START, UNKNOWN]] = NEVER
        self._banned = tf.constant(banned)

    def start(self, features: tf.Tensor) -> State:
        """State before the first word, from features [B, D]."""
        rows = tf.shape(features)[0]
        sizes = (self._language.units, self._decoder.units)
        empty = [tf.zeros([rows, size]) for size in sizes for _ in "hc"]
        return (self._image(features, training=False), *empty)

    def step(self, state: State, words: tf.Tensor) -> tuple[State, tf.Tensor]:
        """State after one more word each [B], and log-probabilities [B, V] of the next."""
        image, *rest = state
        text, language = self._language(self._embedding(words), rest[:2], training=False)
        merged = tf.concat([image, self._text(text)], axis=1)
        output, decoder = self._decoder(merged, rest[2:], training=False)
        for layer in self._head:
            output = layer(output)
        return (image, *language, *decoder), tf.nn.log_softmax(output + self._banned)


class Greedy:
    """Says the most probable word at each step."""

    def __init__(self, model: keras.Model, max_length: int) -> None:
        """`max_length` is in words."""
        self._stepper, self._max_length = Stepper(model), max_length
        signature = [tf.TensorSpec([None, self._stepper.feature_size], tf.float32)]
        self._search = tf.function(self._search_batch, input_signature=signature)

    def __call__(self, features: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Word numbers (B x max_length, padded after `endseq`) and summed log-probabilities (B)."""
        words = np.full((len(features), self._max_length), PAD, np.int32)
        scores = np.zeros(len(features), np.float32)
        for start in range(0, len(features), BATCH):
            rows = slice(start, start + BATCH)
            said, score = self._search(features[rows].astype(np.float32))
            words[rows, : len(said)] = said.numpy().T
            scores[rows] = score.numpy()
        return words, scores

    def _search_batch(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Words [L, B], L being the longest caption's, and log-probabilities [B]."""
        rows = tf.shape(features)[0]

        def more(index: tf.Tensor, last: tf.Tensor, *_: Any) -> tf.Tensor:
            open_rows = tf.reduce_any(tf.logical_and(last != END, last != PAD))
            return tf.logical_and(index < self._max_length, open_rows)

        def say(
            index: tf.Tensor, last: tf.Tensor, said: tf.Tensor, score: tf.Tensor, state: State
        ) -> tuple[Any, ...]:
            state, probabilities = self._stepper.step(state, last)
            is_open = tf.logical_and(last != END, last != PAD)
            best = tf.argmax(probabilities, axis=1, output_type=tf.int32)
            score += tf.where(is_open, tf.reduce_max(probabilities, axis=1), 0.0)
            best = tf.where(is_open, best, PAD)
            return index + 1, best, said.write(index, best), score, state

        said = tf.TensorArray(tf.int32, size=self._max_length, element_shape=[None])
        first = (0, tf.fill([rows], START), said, tf.zeros([rows]), self._stepper.start(features))
        index, _, said, score, _ = tf.while_loop(more, say, first)
        return said.gather(tf.range(index)), score
