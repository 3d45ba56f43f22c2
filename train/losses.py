"""The loss over a vocabulary, the costliest part of a training step, in two compiled passes.

The scores of all words at all positions are far larger than any cache. TensorFlow's own operations
go over them a dozen times; XLA makes one pass of the loss and one of its gradient. What is compiled
is compiled for each number of positions, so these are rounded up to a few (`SIZES`).
"""

from typing import Any

import numpy as np
import tensorflow as tf

from capstan.train.vocabulary import PAD

# Eight sizes from each power of two to the next: 4 % of padding on average, few to compile.
SIZES = np.unique(
    [max(64, (8 + part) << octave) for octave in range(24) for part in range(8)]
).astype(np.int32)


def word_losses(
    logits: Any, states: tf.Tensor, targets: tf.Tensor, smoothing: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What to minimise, cross-entropy (nats), and number of words, summed over all but padding.

    What to minimise is the cross-entropy with `smoothing` of each target spread evenly over all
    words (Szegedy et al. 2016); only it has a gradient. `logits` is the output layer: it sees the
    states [B, T, H] at words only, of which `targets` [B, T] are the next.
    """
    real = tf.not_equal(targets, PAD)
    rows, words = tf.boolean_mask(states, real), tf.boolean_mask(targets, real)
    count = tf.size(words)
    missing = tf.gather(SIZES, tf.searchsorted(SIZES, [count]))[0] - count
    rows, words = tf.pad(rows, [[0, missing], [0, 0]]), tf.pad(words, [[0, missing]])
    objective, loss = _cross_entropy(logits(rows), words, smoothing)
    return objective, loss, tf.cast(count, tf.float32)


def _cross_entropy(
    scores: tf.Tensor, words: tf.Tensor, smoothing: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums over the rows of scores [N, V] whose word is not padding."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def of(scores: tf.Tensor) -> Any:
        objective, loss, normalisers = _forward(scores, words, smoothing)

        def gradient(factor: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            return _backward(scores, words, normalisers, factor, smoothing)

        return (objective, loss), gradient

    objective, loss = of(scores)
    return objective, tf.stop_gradient(loss)


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
def _forward(scores: tf.Tensor, words: tf.Tensor, smoothing: float) -> tuple[tf.Tensor, ...]:
    """Objective and loss, summed, and the logarithm of each row's sum of exponentials [N]."""
    scores = tf.cast(scores, tf.float32)
    normalisers = tf.reduce_logsumexp(scores, axis=1)
    losses = normalisers - tf.reduce_sum(_chosen(scores, words) * scores, axis=1)
    spread = normalisers - tf.reduce_mean(scores, axis=1)
    weights = tf.cast(words != PAD, tf.float32)
    loss = tf.reduce_sum(weights * losses)
    return (1 - smoothing) * loss + smoothing * tf.reduce_sum(weights * spread), loss, normalisers


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
def _backward(
    scores: tf.Tensor,
    words: tf.Tensor,
    normalisers: tf.Tensor,
    factor: tf.Tensor,
    smoothing: float,
) -> tf.Tensor:
    """The objective's gradient by the scores [N, V], times a factor: probability less target."""
    probabilities = tf.exp(tf.cast(scores, tf.float32) - normalisers[:, None])
    target = (1 - smoothing) * _chosen(probabilities, words) + smoothing / scores.shape[1]
    weights = factor * tf.cast(words != PAD, tf.float32)
    return tf.cast(weights[:, None] * (probabilities - target), scores.dtype)


def _chosen(scores: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """1 at each row's word, 0 elsewhere: compared in passing, never in memory."""
    return tf.cast(tf.range(scores.shape[1])[None] == words[:, None], tf.float32)
