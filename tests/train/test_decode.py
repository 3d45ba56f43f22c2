"""Searching for captions: against the search as stated, whole prefixes run again for each word."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product, takewhile

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import capstan.train.decode
from capstan.train.decode import NEVER, Captions, Decoder, ban_repeats, best_words
from capstan.train.model import build_model
from capstan.train.search import Search
from capstan.train.settings import Architecture
from capstan.train.vocabulary import END, PAD, SPECIALS, START, UNKNOWN
from tests.examples import examples

TINY = Architecture(image=16, embedding=8, language=16, text=16, decoder=32, dropout=0.1)
WORDS, LENGTH = 12, 6
FEW_WORDS, SHORT = 7, 3  # so few that all captions can be tried
ALL = 64  # at least as many as there are of those
Found = tuple[float, tuple[int, ...], float]  # score, words, log-probability
SEEDS = st.integers(0, 2**32 - 1)


def random_features(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 12), dtype=np.float32)


@cache
def network(architecture: Architecture, words: int) -> keras.Model:
    return build_model(architecture, words, random_features(50))


@cache
def decoder(search: Search, architecture: Architecture = TINY) -> Decoder:
    return Decoder(network(architecture, WORDS), LENGTH, search)


@cache
def few_words(search: Search) -> Decoder:
    return Decoder(network(TINY, FEW_WORDS), SHORT, search)


def randomise(model: keras.Model, seed: int, scale: float = 0.8) -> None:
    """Weights far from uniform, so that captions differ."""
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, scale, variable.shape))


@cache
def whole_prefix(model: keras.Model) -> Callable[..., np.ndarray]:
    call = tf.function(model, reduce_retracing=True)
    return lambda *inputs: call(list(inputs)).numpy()


def next_words(model: keras.Model, feature: np.ndarray, prefixes: np.ndarray) -> np.ndarray:
    """Log-probabilities [R, V] after each prefix [R, T], of one picture."""
    words = np.pad(prefixes, [(0, 0), (1, 0)], constant_values=START).astype(np.int32)
    logits = whole_prefix(model)(np.repeat(feature[None], len(words), axis=0), words)[:, -1]
    logits = logits.astype(np.float64)
    logits[:, [PAD, START, UNKNOWN]] = NEVER
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def repeats(words: tuple[int, ...], size: int) -> bool:
    grams = [words[i : i + size] for i in range(len(words) - size + 1)] if size else []
    return len(set(grams)) < len(grams)


def search_as_stated(
    model: keras.Model, feature: np.ndarray, length: int, search: Search
) -> list[Found]:
    """The module's docstring, word for word, for one picture."""
    beginnings: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    found: list[Found] = []
    for index in range(length + 1):
        prefixes = np.array([words for _, words in beginnings]).reshape(len(beginnings), index)
        log_probabilities = next_words(model, feature, prefixes)
        continued: list[tuple[float, tuple[int, ...]]] = []
        ended = []
        for (total, words), row in zip(beginnings, log_probabilities, strict=True):
            ended.append((total + row[END], words))
            continued += [
                (total + row[word], (*words, word))
                for word in range(len(SPECIALS), len(row))
                if not repeats((*words, word), search.no_repeat)
            ]
        bar = sorted([total for total, _ in (*continued, *ended)])[-search.beam :][0]
        penalty = (index + 1) ** search.length_penalty
        for total, words in ended:
            if total >= bar or index == length:
                found.append((total / penalty, words, total))
        found = sorted(found, reverse=True)[: search.beam]
        beginnings = sorted(continued, reverse=True)[: search.beam]
        enough = len(found) == search.beam
        if not beginnings or (enough and found[-1][0] >= beginnings[0][0] / penalty):
            break
    return found


def listed(found: Captions, picture: int) -> list[Found]:
    """What was found for one picture."""
    return [
        (float(score), words_of(words), float(log_probabilities.sum()))
        for words, log_probabilities, score in zip(*(part[picture] for part in found), strict=True)
        if score > NEVER
    ]


def words_of(words: np.ndarray) -> tuple[int, ...]:
    assert words[0] == START
    said = tuple(takewhile(lambda word: word != PAD, words[1:].tolist()))
    assert not words[len(said) + 1 :].any()
    return said


def same(ours: list[Found], expected: list[Found]) -> None:
    assert [words for _, words, _ in ours] == [words for _, words, _ in expected]
    for column in (0, 2):
        values = [[one[column] for one in many] for many in (ours, expected)]
        assert values[0] == pytest.approx(values[1], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("architecture", "search"),
    [
        (TINY, Search(beam=1, length_penalty=0, no_repeat=0)),
        (TINY, Search(beam=2, length_penalty=1, no_repeat=0)),
        (TINY, Search(beam=3, length_penalty=0.7, no_repeat=2)),
        (TINY, Search(beam=20, length_penalty=0.3, no_repeat=1)),
        (replace(TINY, hidden=8, language=0), Search(beam=3, length_penalty=0.7, no_repeat=3)),
    ],
    ids=str,
)
def test_carried_state_finds_what_whole_prefixes_find(
    architecture: Architecture, search: Search
) -> None:
    model, features = network(architecture, WORDS), random_features(4)
    for seed in range(3):
        randomise(model, seed)
        found = decoder(search, architecture)(features)
        for picture, feature in enumerate(features):
            same(listed(found, picture), search_as_stated(model, feature, LENGTH, search))


def test_a_beam_of_one_is_greedy() -> None:
    model, features = network(TINY, WORDS), random_features(6)
    randomise(model, 1)
    found = decoder(Search(beam=1, length_penalty=2, no_repeat=0))(features)
    for picture, feature in enumerate(features):
        said: list[int] = []
        while len(said) < LENGTH:
            word = int(next_words(model, feature, np.array([said], int))[0].argmax())
            if word == END:
                break
            said.append(word)
        assert listed(found, picture)[0][1] == tuple(said)
    assert len({words_of(words) for words in found.words[:, 0]}) > 1


# Few words: all captions can be tried


def every_caption(model: keras.Model, feature: np.ndarray) -> dict[tuple[int, ...], float]:
    """All captions and their log-probabilities."""
    totals: dict[tuple[int, ...], float] = {(): 0.0}
    captions = {}
    for length in range(SHORT + 1):
        prefixes = list(product(range(len(SPECIALS), FEW_WORDS), repeat=length))
        rows = next_words(model, feature, np.array(prefixes).reshape(len(prefixes), length))
        for words, row in zip(prefixes, rows, strict=True):
            captions[words] = totals[words] + row[END]
            for word in range(len(SPECIALS), FEW_WORDS):
                totals[*words, word] = totals[words] + row[word]
    return captions


@pytest.mark.parametrize(("penalty", "no_repeat"), [(0.0, 0), (0.7, 2), (1.5, 1)])
@examples(12)
@given(seed=SEEDS, scale=st.floats(0.1, 2))
def test_a_wide_beam_finds_all_captions_in_order(
    penalty: float, no_repeat: int, seed: int, scale: float
) -> None:
    model, features = network(TINY, FEW_WORDS), random_features(1)
    randomise(model, seed, scale)
    captions = every_caption(model, features[0])
    assert sum(map(np.exp, captions.values())) < 1 + 1e-5
    expected = {words: total for words, total in captions.items() if not repeats(words, no_repeat)}
    ours = listed(few_words(Search(ALL, penalty, no_repeat))(features), 0)
    assert {words for _, words, _ in ours} == set(expected)
    assert len(ours) == len(expected)
    scores = [total / (len(words) + 1) ** penalty for words, total in expected.items()]
    assert [score for score, *_ in ours] == pytest.approx(
        sorted(scores, reverse=True), rel=1e-4, abs=1e-4
    )
    for _, words, total in ours:
        assert total == pytest.approx(expected[words], rel=1e-4, abs=1e-4)


@examples(12)
@given(seed=SEEDS)
def test_a_beam_with_room_for_all_is_no_worse_than_a_narrower_one(seed: int) -> None:
    randomise(network(TINY, FEW_WORDS), seed, 1.5)
    best = [
        few_words(Search(beam, 0.0, 0))(random_features(5)).log_probabilities[:, 0].sum(axis=1)
        for beam in (1, 2, ALL)
    ]
    assert (best[2] >= best[0] - 1e-5).all()
    assert (best[2] >= best[1] - 1e-5).all()


@examples(12)
@given(seed=SEEDS)
def test_a_higher_length_penalty_gives_no_shorter_captions(seed: int) -> None:
    randomise(network(TINY, FEW_WORDS), seed, 1.5)
    lengths = [
        (few_words(Search(ALL, penalty, 0))(random_features(5)).words[:, 0] > PAD).sum(axis=1)
        for penalty in (0.0, 0.7, 1.5)
    ]
    assert (np.diff(lengths, axis=0) >= 0).all()


# What all searches keep to


def prefer(logits: dict[int, float]) -> None:
    """Make the network say or not say these words, nearly whatever it sees."""
    randomise(network(TINY, WORDS), 0, 0.1)
    bias = [logits.get(word, 0) for word in range(WORDS)]
    network(TINY, WORDS).get_layer("logits").bias.assign(bias)


@pytest.mark.parametrize("beam", [1, 3])
def test_specials_are_never_said(beam: int) -> None:
    prefer({PAD: 100, START: 100, UNKNOWN: 100})
    found = decoder(Search(beam, 0.7, 0))(random_features(5))
    for words in found.words.reshape(-1, LENGTH + 1):
        assert all(word >= len(SPECIALS) for word in words_of(words))
    assert np.isfinite(found.log_probabilities).all()


def test_what_loops_is_cut_or_turned_from_it() -> None:
    prefer({7: 30, END: -30})
    cut = listed(decoder(Search(1, 0.7, 0))(random_features(1)), 0)
    assert cut[0][1] == (7,) * LENGTH
    assert cut[0][2] < -50  # ending there is improbable, and counts
    for _, words, _ in listed(decoder(Search(3, 0.7, 2))(random_features(1)), 0):
        assert words[:2] == (7, 7)
        assert not repeats(words, 2)
    (once,) = listed(decoder(Search(1, 0.7, 1))(random_features(1)), 0)
    assert len(set(once[1])) == len(once[1]) == LENGTH


@pytest.mark.parametrize("beam", [1, 3])
def test_a_batch_says_what_each_says_alone(beam: int, monkeypatch: pytest.MonkeyPatch) -> None:
    randomise(network(TINY, WORDS), 2)
    features = random_features(60)
    search = decoder(Search(beam, 0.7, 3))
    together = search(features)
    monkeypatch.setattr(capstan.train.decode, "BATCH", 50)
    in_batches, alone = search(features), [search(feature[None]) for feature in features[:9]]
    for index, whole in enumerate(together):
        assert np.allclose(in_batches[index], whole, atol=1e-4)
        assert np.allclose(np.concatenate([one[index] for one in alone]), whole[:9], atol=1e-4)
    assert len({words_of(words) for words in together.words[:, 0]}) > 5
    assert search(features[:0]).words.shape == (0, beam, LENGTH + 1)


@examples(50)
@given(seed=SEEDS, words=st.integers(1, 900), count=st.integers(1, 12))
def test_best_words_are_the_best(seed: int, words: int, count: int) -> None:
    random = np.random.default_rng(seed)
    table = random.permuted(np.tile(np.linspace(-9, 0, words, dtype=np.float32), (3, 1)), axis=1)
    table[:, random.integers(words)] = NEVER
    values, places = best_words(tf.constant(table), count)
    order = np.argsort(-table, axis=1)[:, :count]
    assert np.array_equal(values, np.take_along_axis(table, order, axis=1))
    assert np.array_equal(places, order)


@examples(100)
@given(
    words=st.lists(st.integers(4, 6), max_size=9).map(tuple),
    room=st.integers(0, 3),
    size=st.integers(1, 5),
)
def test_banned_words_are_those_that_repeat(words: tuple[int, ...], room: int, size: int) -> None:
    row = [START, *words, *[PAD] * room]
    table = ban_repeats(tf.zeros([2, 7]), tf.constant([row, row]), tf.constant(len(words)), size)
    last = (*row[: len(words) + 1],)
    grams = {last[i : i + size] for i in range(len(last) - size + 1)}
    expected = [(*last[len(last) - size + 1 :], word) in grams for word in range(7)]
    assert np.array_equal(np.isinf(table.numpy()), [expected, expected])
