from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import DataError
from capstan.train.vocabulary import (
    SPECIALS,
    UNKNOWN,
    Vocabulary,
    build_vocabulary,
    read_vocabulary,
    write_vocabulary,
)

WORDS = st.text(st.sampled_from("abcé1"), min_size=1, max_size=3)
CAPTIONS = st.lists(st.lists(WORDS, min_size=1).map(" ".join), min_size=1)


def column(*captions: str) -> pa.ChunkedArray:
    return pa.chunked_array([list(captions)], pa.string())


def test_words_by_frequency_then_alphabet() -> None:
    captions = column("b a a c", "c a d b", "startseq [UNK] [UNK] startseq")
    assert build_vocabulary(captions, 2, 100).words == (*SPECIALS, "a", "b", "c")
    assert build_vocabulary(captions, 1, 6).words == (*SPECIALS, "a", "b")


def test_no_word_left() -> None:
    with pytest.raises(DataError, match="--min-count"):
        build_vocabulary(column("a b"), 2, 100)


@given(CAPTIONS)
def test_known_captions_decode_to_themselves(captions: list[str]) -> None:
    vocabulary = build_vocabulary(column(*captions), 1, 10_000)
    sequences = vocabulary.encode(column(*captions))
    assert len(sequences) == len(captions)
    assert [vocabulary.decode(sequences[i]) for i in range(len(captions))] == captions
    assert sequences.lengths.tolist() == [len(caption.split()) for caption in captions]


def test_specials_in_captions_are_unknown() -> None:
    vocabulary = Vocabulary((*SPECIALS, "a"))
    assert vocabulary.encode(column("a startseq endseq b"))[0].tolist() == [4] + [UNKNOWN] * 3


def test_decoding_stops_at_the_end() -> None:
    assert Vocabulary((*SPECIALS, "a", "b")).decode([1, 4, 3, 5, 2, 4, 0]) == "a b"


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    vocabulary = Vocabulary((*SPECIALS, "élan"))
    write_vocabulary(path, vocabulary)
    assert read_vocabulary(path) == vocabulary
    path.write_text(path.read_text().replace("startseq", "begin"))
    with pytest.raises(DataError, match=r"vocabulary\.json: does not begin"):
        read_vocabulary(path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(DataError, match="version 9"):
        read_vocabulary(path)
