"""How captions are searched for: flags, a model's own search, and what a captioner gives back."""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from capstan.errors import DataError, SettingError
from capstan.train.captioner import Captioner, load_captioner, save_description, save_network
from capstan.train.model import build_model
from capstan.train.search import Search, add_flags, given
from capstan.train.settings import Architecture
from capstan.train.vocabulary import SPECIALS, Vocabulary
from tests.train.conftest import EXTRACTOR

TINY = Architecture(image=8, embedding=8, language=8, text=8, decoder=8, dropout=0.1)


def said(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=3)
    add_flags(parser)
    return given(parser.parse_args(words))


def test_only_flags_that_are_given_stand_over_the_model() -> None:
    assert said() == {}
    assert said("--beam", "5") == {"beam": 5}
    flags = said("--no-repeat", "0", "--length-penalty", "1")
    assert replace(Search(beam=7), **flags) == Search(7, 1.0, 0)


@pytest.mark.parametrize(
    "flags", [("--beam", "0"), ("--length-penalty", "-1"), ("--length-penalty", "nan")]
)
def test_bad_flags_are_named(flags: tuple[str, str]) -> None:
    with pytest.raises(SettingError, match=f"^{flags[0]} .*: give "):
        said(*flags)


def test_bad_no_repeat() -> None:
    with pytest.raises(SettingError, match="--no-repeat -1"):
        Search(no_repeat=-1)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    keras.utils.set_random_seed(0)
    vocabulary = Vocabulary((*SPECIALS, "a", "dog", "cat"))
    features = np.random.default_rng(0).random((4, 12), np.float32)
    network = build_model(TINY, len(vocabulary), features)
    return Captioner(network, vocabulary, EXTRACTOR, "standard", 5, Search(beam=4))


def features(count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, 12), np.float32)


def test_captions_come_best_first_with_their_words(captioner: Captioner) -> None:
    for captions in captioner.captions(features(3)):
        assert len({caption.text for caption in captions}) == 4
        ranks = []
        for caption in captions:
            each = caption.word_log_probabilities
            assert len(each) == len(caption.text.split()) + 1
            assert caption.log_probability == pytest.approx(math.fsum(each))
            assert max(each) < 0
            ranks.append(caption.log_probability / len(each) ** 0.7)
        assert ranks == sorted(ranks, reverse=True)


def test_another_search_than_the_models_own(captioner: Captioner) -> None:
    (greedy,) = captioner.captions(features(1), Search(beam=1))[0]
    assert greedy == replace(captioner, search=Search(beam=1)).captions(features(1))[0][0]
    assert len(captioner.captions(features(1))[0]) == 4


def test_fewer_captions_than_the_beam_is_wide(captioner: Captioner) -> None:
    short = replace(captioner, max_length=1)
    texts = [caption.text for caption in short.captions(features(1), Search(beam=9))[0]]
    assert sorted(texts) == ["", "a", "cat", "dog"]


def test_the_search_is_kept_with_the_model(captioner: Captioner, tmp_path: Path) -> None:
    save_network(tmp_path, captioner)
    save_description(tmp_path, captioner, {})
    path = tmp_path / "model.json"
    entry = json.loads(path.read_text())
    assert entry["search"] == {"beam": 4, "length_penalty": 0.7, "no_repeat": 5}
    loaded = load_captioner(tmp_path)
    assert loaded.search == captioner.search
    assert loaded.captions(features(2)) == captioner.captions(features(2))

    path.write_text(json.dumps({name: entry[name] for name in entry if name != "search"}))
    assert load_captioner(tmp_path).search == Search()
    for bad in ({"beam": 0}, {"beams": 3}, {"beam": "3"}, 3):
        path.write_text(json.dumps(entry | {"search": bad}))
        with pytest.raises(DataError, match=r"model\.json: search .*; mend or delete that entry"):
            load_captioner(tmp_path)
