"""The compiled loss beside TensorFlow's own operations."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from capstan.train.losses import SIZES, word_losses
from capstan.train.vocabulary import PAD
from tests.examples import examples

WORDS, WIDTH = 12, 6


def plain(
    logits: Callable[[tf.Tensor], tf.Tensor],
    states: tf.Tensor,
    targets: tf.Tensor,
    smoothing: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Objective and loss, from one-hot targets."""
    real = tf.not_equal(targets, PAD)
    scores = tf.cast(logits(tf.boolean_mask(states, real)), tf.float32)
    hot = tf.one_hot(tf.boolean_mask(targets, real), WORDS)
    spread = (1 - smoothing) * hot + smoothing / WORDS
    return tuple(
        tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(labels, scores))
        for labels in (spread, hot)
    )


@examples(25)
@given(
    st.lists(st.lists(st.integers(0, WORDS - 1), min_size=3, max_size=3), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.1, 30.0]),
)
def test_value_and_gradients_are_tensorflows(
    targets: list[list[int]], smoothing: float, scale: float
) -> None:
    generator = np.random.default_rng(0)
    kernel = tf.Variable(scale * generator.normal(size=(WIDTH, WORDS)), dtype=tf.float32)
    states = tf.Variable(generator.normal(size=(len(targets), 3, WIDTH)), dtype=tf.float32)
    words = tf.constant(targets, tf.int32)

    def logits(rows: tf.Tensor) -> tf.Tensor:
        return tf.matmul(rows, kernel)

    with tf.GradientTape() as tape:
        objective, loss, count = word_losses(logits, states, words, smoothing)
        halved = objective / 2
    gradients = tape.gradient(halved, [kernel, states])
    with tf.GradientTape() as tape:
        expected, expected_loss = plain(logits, states, words, smoothing)
        expected_half = expected / 2
    expected_gradients = tape.gradient(expected_half, [kernel, states])
    assert int(count) == np.count_nonzero(targets)
    assert float(objective) == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5, abs=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * scale)


def test_bfloat16_scores_have_a_bfloat16_gradient_of_float32_arithmetic() -> None:
    generator = np.random.default_rng(0)
    scores = tf.constant(generator.normal(size=(4, 1, WORDS)), tf.bfloat16)
    words = tf.constant([[3], [0], [1], [11]])

    with tf.GradientTape() as tape:
        tape.watch(scores)
        objective, _, _ = word_losses(lambda rows: rows, scores, words, 0.1)
    gradient = tape.gradient(objective, scores)
    with tf.GradientTape() as tape:
        exact = tf.cast(scores, tf.float32)
        tape.watch(exact)
        expected, _ = plain(lambda rows: rows, exact, words, 0.1)
    assert gradient.dtype == tf.bfloat16
    assert float(objective) == pytest.approx(float(expected), rel=1e-6)
    exact_gradient = tape.gradient(expected, exact).numpy()
    np.testing.assert_allclose(gradient.numpy().astype(np.float32), exact_gradient, rtol=4e-3)


def test_sizes_are_few_and_near() -> None:
    assert SIZES[0] == 64
    assert SIZES[-1] > 10_000_000
    assert (np.diff(SIZES) / SIZES[:-1]).max() <= 1 / 8
    assert len(SIZES[(SIZES >= 1024) & (SIZES < 2048)]) == 8
