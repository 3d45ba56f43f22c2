import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import DataError, SettingError
from capstan.train.embeddings import read_embeddings
from capstan.train.vocabulary import SPECIALS, Vocabulary
from tests.paths import SHARED_DATA as DATA

VOCABULARY = Vocabulary((*SPECIALS, "dog", "cat", "bird"))
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1).filter(
    lambda word: word not in SPECIALS
)
NUMBERS = st.floats(-1e6, 1e6, width=32)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@given(
    st.dictionaries(WORDS, st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1),
    st.sets(WORDS),
    st.booleans(),
    st.sampled_from(["", " "]),
)
def test_every_word_of_the_file_gets_its_vector(
    tmp_path_factory: pytest.TempPathFactory,
    vectors: dict[str, tuple[float, ...]],
    others: set[str],
    header: bool,
    end: str,
) -> None:
    lines = [f"{len(vectors)} 3"] if header else []
    lines += [f"{word} {a!r} {b!r} {c!r}{end}" for word, (a, b, c) in vectors.items()]
    path = write(tmp_path_factory.mktemp("vectors") / "vectors.txt", *lines)
    words = (*SPECIALS, *vectors, *(others - set(vectors)))
    matrix, known = read_embeddings(path, Vocabulary(words))
    assert matrix.shape == (len(words), 3)
    assert matrix.dtype == np.float32
    assert known >= len(vectors)  # and others that differ in capitals
    for number, word in enumerate(words):
        if word in vectors:
            assert matrix[number].tolist() == list(vectors[word])


def test_words_with_spaces(tmp_path: Path) -> None:
    path = write(tmp_path / "840B.txt", ", 9 9", ". . . 8 8", "at dog@home 7 7", "dog 1 2")
    matrix, known = read_embeddings(path, VOCABULARY)
    assert known == 1
    assert matrix[4].tolist() == [1, 2]


def test_own_spelling_first_then_other_capitals_then_order(tmp_path: Path) -> None:
    lines = ("DOG 1 1", "Dog 2 2", "dog 3 3", "dog 4 4", "CAT 5 5", "Cat 6 6")
    matrix, known = read_embeddings(write(tmp_path / "cased.txt", *lines), VOCABULARY)
    assert known == 2
    assert matrix[4:6].tolist() == [[3, 3], [5, 5]]


def test_unknown_words_are_drawn_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    random = np.random.default_rng(0)
    mean, deviation = np.array([-3.0, 0.0, 5.0]), np.array([0.1, 1.0, 2.0])
    vectors = random.normal(mean, deviation, (2_000, 3))
    lines = [f"w{i} {' '.join(map(str, vector))}" for i, vector in enumerate(vectors.tolist())]
    path = write(tmp_path / "vectors.txt", *lines)
    names = [f"w{i}" for i in range(2_000)] + [f"unknown{i}" for i in range(2_000)]
    vocabulary = Vocabulary((*SPECIALS, *names))
    with caplog.at_level(logging.INFO):
        matrix, known = read_embeddings(path, vocabulary, seed=1)
    assert f"2000 of 4004 words found in {path}" in caplog.text
    assert known == 2_000
    drawn = matrix[-2_000:]
    assert np.allclose(drawn.mean(axis=0), mean, atol=0.2)
    assert np.allclose(drawn.std(axis=0), deviation, rtol=0.2)
    assert len(np.unique(matrix[: len(SPECIALS)], axis=0)) == len(SPECIALS)
    assert np.array_equal(read_embeddings(path, vocabulary, seed=1)[0], matrix)
    assert not np.array_equal(read_embeddings(path, vocabulary, seed=2)[0], matrix)


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (b"dog 1 2\ncat 1\nbird 1 2\n", 2),  # too few
        (b"dog 1 2\ncat 1 two\n", 2),
        (b"dog 1 2\ncat 1 nan\n", 2),
        (b"dog 1 2\ncat 1 1e99\n", 2),  # not a float32
        (b"dog 1 2\n\ncat 1 2\n", 2),
        (b"dog 1 2\n\xff\xfe 1 2\n", 2),
        (b"dog\n", 1),
        (b"PK\x03\x04\n", 1),
        (b"3 2\ndog 1 2 3\ncat 1\n", 3),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: bytes, line: int) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(lines)
    with pytest.raises(DataError, match=rf"vectors\.txt, line {line}: .*GloVe"):
        read_embeddings(path, VOCABULARY)


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("vectors")
    for name in ("vectors.txt", "vectors.npz"):
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_embeddings(folder / name, VOCABULARY)


def test_no_known_word(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 7 words"):
        read_embeddings(write(tmp_path / "french.txt", "chien 1 2"), VOCABULARY)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--embeddings"):
        read_embeddings(tmp_path / "missing.txt", VOCABULARY)


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    words = np.array(["[PAD]", "Dog", "dog", "cow"])
    np.savez(path, words=words, weights=np.arange(8.0).reshape(4, 2))
    matrix, known = read_embeddings(path, VOCABULARY)
    assert known == 2
    assert matrix[[0, 4]].tolist() == [[0, 1], [4, 5]]


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"words": np.array(["dog"], object), "weights": np.eye(1)}, "not objects"),
        ({"words": np.array(["dog"])}, "weights"),
        ({"words": np.array(["dog"]), "weights": np.eye(2)}, "shapes"),
        ({"words": np.array(["dog"]), "weights": np.zeros((1, 0))}, "shapes"),
        ({"words": np.array([b"dog"]), "weights": np.eye(1)}, r"\|S3"),
        ({"words": np.array(["dog"]), "weights": np.eye(1, dtype=int)}, "int64"),
        (
            {"words": np.array(["dog"]), "weights": np.full((1, 2), np.nan)},
            "'dog': not all numbers are finite",
        ),
    ],
)
def test_unusable_npz(tmp_path: Path, arrays: dict[str, np.ndarray], why: str) -> None:
    path = tmp_path / "vectors.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"vectors\.npz: .*{why}"):
        read_embeddings(path, VOCABULARY)


def test_truncated_npz(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    np.savez_compressed(path, words=np.array(["dog"]), weights=np.ones((1, 500)))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"vectors\.npz"):
        read_embeddings(path, VOCABULARY)


@pytest.mark.shared
def test_vectors_of_conceptual_captions() -> None:
    path = DATA / "conceptual-captions/glove50_cc_vocab.npz"
    if not path.is_file():
        pytest.skip(f"{path}: real data is not here")
    with np.load(path) as file:
        words, weights = file["words"], file["weights"]
    vocabulary = Vocabulary((*SPECIALS, *words[:3:-1].tolist(), "nosuchword"))
    matrix, known = read_embeddings(path, vocabulary)
    assert known == len(words)
    assert np.array_equal(matrix[: len(SPECIALS)], weights[: len(SPECIALS)])
    assert np.array_equal(matrix[len(SPECIALS) : -1], weights[:3:-1])
