"""Features to captions: beam search over all pictures at once, in one traced function.

`Stepper` is the network one word at a time; the search only ever calls its `start` and `step`,
with the state's rows in any order and number.

The search keeps the `beam` most probable beginnings of each picture's caption. At each step all of
them are continued by every word, and by ending there; endings among the `beam` best continuations
become captions. A caption Y, its end counted as a word, is ranked by

    log P(Y) / |Y| ** length_penalty

(Wu et al. 2016, arXiv:1609.08144, divide by ((5 + |Y|) / 6) ** alpha; this is the plain form). A
picture is done when it has `beam` captions and the most probable beginning, at its present length,
ranks below the worst of them. So a beam of 1 is greedy search whatever the penalty, and a beam with
room for everything finds the best of all captions. A beginning of `max_length` words can only end:
each log-probability is that of a whole caption.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capstan.train.search import Search
from capstan.train.vocabulary import END, PAD, START, UNKNOWN

BATCH = 1024  # beginnings of captions worked on at once
BLOCK = 64  # words, of which first the best one is found
NEVER = float("-inf")  # log-probability of what is not to be said

State = tuple[tf.Tensor, ...]  # each [B, ...]: the picture's vector, then the LSTMs' states


class Stepper:
    """A captioner's network, one word at a time, over the same weights."""

    def __init__(self, model: keras.Model) -> None:
        self._image = keras.Model(model.inputs[0], model.get_layer("image").output)
        names = {layer.name for layer in model.layers}
        self._embedding, self._decoder = model.get_layer("embedding"), model.get_layer("decoder")
        self._language = model.get_layer("language") if "language" in names else None
        self._text = model.get_layer("text") if "text" in names else None
        self._head = [model.get_layer(name) for name in ("hidden", "logits") if name in names]
        self.feature_size = int(model.inputs[0].shape[1])
        self._banned = suppressed_tokens(model.output.shape[-1])

    def start(self, features: tf.Tensor) -> State:
        """State before the first word, from features [B, D]."""
        rows = tf.shape(features)[0]
        layers = [layer for layer in (self._decoder, self._language) if layer is not None]
        empty = [tf.zeros([rows, layer.units]) for layer in layers for _ in "hc"]
        return (self._image(features, training=False), *empty)

    def step(self, state: State, words: tf.Tensor) -> tuple[State, tf.Tensor]:
        """State after one more word each [B], and log-probabilities [B, V] of the next."""
        image, hidden, cell, *language = state
        text = self._embedding(words)
        if self._language is not None and self._text is not None:
            text, language = self._language.cell(text, language, training=False)
            text = self._text(text)
        merged = tf.concat([image, text], axis=1)
        output, decoder = self._decoder.cell(merged, [hidden, cell], training=False)
        for layer in self._head:
            output = layer(output)
        return (image, *decoder, *language), tf.nn.log_softmax(output + self._banned)


def suppressed_tokens(vocabulary: int) -> tf.Tensor:
    """What is added to scores [V]: -inf for the specials that no caption holds, 0 for all else."""
    banned = np.zeros(vocabulary, np.float32)
    banned[[PAD, START, UNKNOWN]] = NEVER
    return tf.constant(banned)


class Captions(NamedTuple):
    """The best captions of each picture, best first; those that there are not score -inf."""

    words: Any  # [B, K, max_length + 1], from `startseq` on, padded
    log_probabilities: Any  # [B, K, max_length + 1], of each word, then of the end, then zeros
    scores: Any  # [B, K], by which they are ranked


class Hypotheses(NamedTuple):
    """Beginnings of captions, k for each of the A pictures that are not done."""

    pictures: tf.Tensor  # [A], their numbers in the batch
    words: tf.Tensor  # [A * k, max_length + 1], from `startseq` on, padded
    log_probabilities: tf.Tensor  # [A * k, max_length + 1], of each word, then zeros
    state: State  # each [A * k, ...], before the last word


class Candidates(NamedTuple):
    """Beginnings, K for each of A pictures, that are to get a word more; best first."""

    totals: tf.Tensor  # [A, K] log-probabilities with that word
    parents: tf.Tensor  # [A, K] rows of the beginnings
    words: tf.Tensor  # [A, K]
    log_probabilities: tf.Tensor  # [A, K] of the words


class Decoder:
    """Finds captions for features."""

    def __init__(self, model: keras.Model, max_length: int, search: Search) -> None:
        """`max_length` is in words."""
        self._stepper, self._max_length, self._search = Stepper(model), max_length, search
        signature = [tf.TensorSpec([None, self._stepper.feature_size], tf.float32)]
        self._find = tf.function(self._find_batch, input_signature=signature)

    def __call__(self, features: NDArray[Any]) -> Captions:
        """The best captions for features [B, D], as numpy arrays."""
        shape = (len(features), self._search.beam, self._max_length + 1)
        found = Captions(
            np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
        )
        step = max(1, BATCH // self._search.beam)
        for start in range(0, len(features), step):
            rows = slice(start, start + step)
            batch = self._find(features[rows].astype(np.float32))
            for whole, part in zip(found, batch, strict=True):
                whole[rows] = part.numpy()
        return found

    def _find_batch(self, features: tf.Tensor) -> Captions:
        rows, length = tf.shape(features)[0], self._max_length + 1
        words = tf.fill([rows, 1], START)
        beginnings = Hypotheses(
            tf.range(rows),
            tf.concat([words, tf.fill([rows, length - 1], PAD)], axis=1),
            tf.zeros([rows, length]),
            self._stepper.start(features),
        )
        shape = [rows, self._search.beam, length]
        found = Captions(tf.fill(shape, PAD), tf.zeros(shape), tf.fill(shape[:2], NEVER))

        def more(index: tf.Tensor, beginnings: Hypotheses, _: Captions) -> tf.Tensor:
            return tf.logical_and(index < length, tf.size(beginnings.pictures) > 0)

        variables = (0, beginnings, found)
        invariants = tf.nest.map_structure(
            lambda tensor: tf.TensorShape([None, *tensor.shape[1:]]), variables[1:]
        )
        variables = tf.while_loop(
            more, self._continue, variables, (tf.TensorShape([]), *invariants)
        )
        return Captions(*variables[2])

    def _continue(
        self, index: tf.Tensor, old: Hypotheses, found: Captions
    ) -> tuple[tf.Tensor, Hypotheses, Captions]:
        """One word more for each beginning of `index` words."""
        state, next_word = self._stepper.step(old.state, old.words[:, index])
        if self._search.no_repeat:
            next_word = ban_repeats(next_word, old.words, index, self._search.no_repeat)
        ends = tf.reduce_sum(old.log_probabilities, axis=1) + next_word[:, END]
        ends = tf.reshape(ends, [tf.size(old.pictures), -1])
        choices = self._choose(old, next_word)
        better = count_above(choices.totals, ends) + count_above(ends, ends)
        is_caption = tf.logical_or(better < self._search.beam, index == self._max_length)
        penalty = tf.cast(index + 1, tf.float32) ** self._search.length_penalty
        ended = old._replace(log_probabilities=put(old.log_probabilities, index, next_word[:, END]))
        found, worst = self._add(found, ended, tf.where(is_caption, ends / penalty, NEVER))
        is_open = worst < choices.totals[:, 0] / penalty
        new = grow(old._replace(state=state), index, choices, tf.where(is_open)[:, 0])
        return index + 1, new, found

    def _choose(self, old: Hypotheses, next_word: tf.Tensor) -> Candidates:
        """The most probable of all beginnings with one word more (not ended)."""
        pictures = tf.size(old.pictures)
        best, words = best_words(next_word, self._search.beam + 1)
        width = best.shape[1]
        best = tf.where(words == END, NEVER, best)
        totals = tf.reduce_sum(old.log_probabilities, axis=1)[:, None] + best
        totals = tf.reshape(totals, [pictures, -1])
        each = tf.shape(totals)[1]
        totals, chosen = tf.math.top_k(totals, tf.minimum(self._search.beam, each))
        chosen += tf.range(pictures)[:, None] * each
        words, best = (tf.gather(tf.reshape(part, [-1]), chosen) for part in (words, best))
        return Candidates(totals, chosen // width, words, best)

    def _add(
        self, found: Captions, ended: Hypotheses, scores: tf.Tensor
    ) -> tuple[Captions, tf.Tensor]:
        """The best of the captions found and newly ended, and each picture's worst score."""
        shape = [*tf.unstack(tf.shape(scores)), self._max_length + 1]
        new = Captions(
            tf.reshape(ended.words, shape), tf.reshape(ended.log_probabilities, shape), scores
        )
        both = Captions(
            *(
                tf.concat([tf.gather(before, ended.pictures), now], axis=1)
                for before, now in zip(found, new, strict=True)
            )
        )
        _, best = tf.math.top_k(both.scores, self._search.beam)
        kept = Captions(*(tf.gather(part, best, batch_dims=1) for part in both))
        rows = ended.pictures[:, None]
        return Captions(
            *(
                tf.tensor_scatter_nd_update(whole, rows, part)
                for whole, part in zip(found, kept, strict=True)
            )
        ), kept.scores[:, -1]


def grow(old: Hypotheses, index: tf.Tensor, choices: Candidates, rows: tf.Tensor) -> Hypotheses:
    """Beginnings with the chosen words said, of the pictures in these rows only."""
    parents, words, log_probabilities = (
        tf.reshape(tf.gather(part, rows), [-1]) for part in choices[1:]
    )
    return Hypotheses(
        tf.gather(old.pictures, rows),
        put(tf.gather(old.words, parents), index + 1, words),
        put(tf.gather(old.log_probabilities, parents), index, log_probabilities),
        tuple(tf.gather(tensor, parents) for tensor in old.state),
    )


def put(table: tf.Tensor, column: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """A table [R, L] with one column (if it is there) set to values [R]."""
    return tf.where(tf.range(tf.shape(table)[1]) == column, values[:, None], table)


def count_above(many: tf.Tensor, bounds: tf.Tensor) -> tf.Tensor:
    """How many of `many` [A, N] are above each of `bounds` [A, M]: [A, M]."""
    return tf.math.count_nonzero(many[:, None] > bounds[:, :, None], axis=2, dtype=tf.int32)


def best_words(log_probabilities: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The highest of log-probabilities [R, V] and their words, each [R, count or V].

    They are in the blocks with the highest maxima; a plain `top_k` takes four times as long.
    """
    vocabulary = log_probabilities.shape[1]
    if count * BLOCK >= vocabulary:
        best, words = tf.math.top_k(log_probabilities, min(count, vocabulary))
        return best, words
    blocks = -(-vocabulary // BLOCK)
    padding = [[0, 0], [0, blocks * BLOCK - vocabulary]]
    padded = tf.pad(log_probabilities, padding, constant_values=NEVER)
    padded = tf.reshape(padded, [-1, blocks, BLOCK])
    _, block = tf.math.top_k(tf.reduce_max(padded, axis=2), count)
    candidates = tf.reshape(tf.gather(padded, block, batch_dims=1), [-1, count * BLOCK])
    best, place = tf.math.top_k(candidates, count)
    return best, tf.gather(block, place // BLOCK, batch_dims=1) * BLOCK + place % BLOCK


def ban_repeats(
    log_probabilities: tf.Tensor, words: tf.Tensor, index: tf.Tensor, size: int
) -> tf.Tensor:
    """Log-probabilities [R, V] in which no word makes the last `size` ones a repetition.

    `words` [R, L] were said up to column `index`, `size` of them make an n-gram.
    """
    starts = words.shape[1] - size + 1
    if starts < 1:
        return log_probabilities
    last = tf.maximum(index - size + 2 + tf.range(size - 1), 0)
    last = tf.gather(words, last, axis=1)
    same = tf.broadcast_to(tf.range(starts) + size - 1 <= index, tf.shape(words[:, :starts]))
    for place in range(size - 1):
        same &= words[:, place : place + starts] == last[:, place, None]
    where = tf.where(same)
    banned = tf.gather_nd(words, where + tf.constant([0, size - 1], tf.int64))
    places = tf.stack([tf.cast(where[:, 0], tf.int32), banned], axis=1)
    never = tf.fill([tf.shape(places)[0]], NEVER)
    return tf.tensor_scatter_nd_update(log_probabilities, places, never)
