"""A caption's words judged at once: the same numbers as word by word, in the search."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from capstan.errors import DataError
from capstan.train.captioner import Captioner
from capstan.train.model import build_model
from capstan.train.search import Search
from capstan.train.settings import Architecture
from capstan.train.vocabulary import SPECIALS, Vocabulary
from tests.train.conftest import EXTRACTOR

WORDS = ("a", "dog", "cat", "runs", "sits", "red", "on", "grass")
ARCHITECTURES = (
    Architecture(image=16, embedding=8, language=16, text=16, decoder=32, dropout=0.1),
    Architecture(image=16, embedding=8, language=0, decoder=32, hidden=16, dropout=0.5),
)


def random_features(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 12), dtype=np.float32)


@cache
def captioner(architecture: Architecture) -> Captioner:
    vocabulary = Vocabulary((*SPECIALS, *WORDS))
    network = build_model(architecture, len(vocabulary), random_features(50))
    random = np.random.default_rng(1)
    for variable in network.trainable_variables:  # far from uniform, so that captions differ
        variable.assign(random.normal(0, 0.8, variable.shape))
    return Captioner(network, vocabulary, EXTRACTOR, "standard", 6, Search(beam=4))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=["language", "hidden"])
@pytest.mark.parametrize("no_repeat", [0, 2])
def test_as_the_search_found(architecture: Architecture, no_repeat: int) -> None:
    model, features = captioner(architecture), random_features(5)
    found = model.captions(features, replace(model.search, no_repeat=no_repeat))
    texts = {caption.text for captions in found for caption in captions}
    assert len(texts) > 4
    for row, captions in enumerate(found):
        for caption in captions:
            judged = model.word_log_probabilities(features, caption.text)
            assert judged.shape == (5, len(caption.word_log_probabilities))
            assert judged[row] == pytest.approx(caption.word_log_probabilities, abs=1e-4)


def test_a_caption_of_no_words_only_ends() -> None:
    model = captioner(ARCHITECTURES[0])
    judged = model.word_log_probabilities(random_features(3), "")
    assert judged.shape == (3, 1)
    assert (judged < 0).all()


def test_what_is_never_said_is_not_probable() -> None:
    judged = captioner(ARCHITECTURES[0]).word_log_probabilities(random_features(1), "a zebra runs")
    assert np.isneginf(judged[0]).tolist() == [False, True, False, False]


def test_features_of_another_extractor() -> None:
    with pytest.raises(DataError, match="this model reads N x 12"):
        captioner(ARCHITECTURES[0]).word_log_probabilities(np.zeros((1, 5)), "a dog")
