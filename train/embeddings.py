"""Ready-made word vectors, read for the words of a vocabulary.

Two formats are read: text as GloVe has it (a line per word: the word, then E numbers, divided by
spaces, in UTF-8; a first line `WORDS E` as word2vec and fastText have it is passed over), and
`.npz` with `words` (N strings) and `weights` (N x E). A word's own spelling counts before one with
other capitals, and of words that are there twice the first. Text is read line by line.
"""

import logging
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capstan.errors import DataError, SettingError
from capstan.train.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

WORDS, WEIGHTS = "words", "weights"
HEADER = re.compile(rb"\d+ (\d+)")  # word2vec's first line: number of words, of dimensions
Vector = NDArray[np.float32]
Numbers = Mapping[str, int]  # of the words that are wanted


def read_embeddings(
    path: Path, vocabulary: Vocabulary, seed: int = 0
) -> tuple[NDArray[np.float32], int]:
    """Vectors (V x E) of a vocabulary's words, and how many of the words the file has.

    The others', specials among them, are drawn from `seed` with the mean and deviation that the
    known ones have in each dimension. Raises DataError that names the line where a file cannot be
    read, and where it has none of the words.
    """
    existing(path)
    numbers = {word: number for number, word in enumerate(vocabulary.words)}
    read = _read_npz if path.suffix == ".npz" else _read_text
    exact: dict[int, Vector] = {}
    folded: dict[int, Vector] = {}
    for word, vector in read(path, numbers):
        if word in numbers:
            exact.setdefault(numbers[word], vector)
        else:
            folded.setdefault(numbers[word.lower()], vector)
    found = folded | exact
    logger.info("%d of %d words found in %s", len(found), len(vocabulary), path)
    if not found:
        raise DataError(
            f"{path}: has none of the {len(vocabulary)} words of the captions; give vectors of "
            "their language"
        )
    known = np.stack(list(found.values()))
    random = np.random.default_rng(seed)
    matrix = random.normal(known.mean(axis=0), known.std(axis=0), (len(vocabulary), known.shape[1]))
    matrix[list(found)] = known
    return matrix.astype(np.float32), len(found)


def existing(path: Path) -> Path:
    """The path of a file of word vectors; raises SettingError where there is none."""
    if not path.is_file():
        raise SettingError(f"{path}: no such file; give word vectors with --embeddings")
    return path


def _is_wanted(word: str, numbers: Numbers) -> bool:
    return word in numbers or word.lower() in numbers


# Text


def _read_text(path: Path, numbers: Numbers) -> Iterator[tuple[str, Vector]]:
    """Wanted words with their vectors; of other words the numbers are only counted."""
    size = 0
    with path.open("rb") as file:
        for line, text in enumerate(map(bytes.rstrip, file), 1):
            if line == 1 and (header := HEADER.fullmatch(text)):
                size = int(header[1])
                continue
            size = size or text.count(b" ")
            try:
                encoded, values = _divide(text, size)
                if _is_wanted(word := encoded.decode(), numbers):
                    yield word, _vector(values.split(b" "))
            except ValueError as error:
                raise DataError(
                    f"{path}, line {line}: not a word and {size or 'some'} finite numbers, divided "
                    "by spaces; give GloVe's text, unpacked and whole, or an .npz"
                ) from error


def _divide(text: bytes, size: int) -> tuple[bytes, bytes]:
    """A line's word and its numbers; the word may hold spaces, as a few of GloVe's do."""
    spaces = text.count(b" ")
    if spaces < max(1, size):
        raise ValueError(f"{spaces} spaces")
    word = text.partition(b" ")[0] if spaces == size else text.rsplit(b" ", size)[0]
    return word, text[len(word) + 1 :]


def _vector(numbers: Sequence[bytes]) -> Vector:
    return _finite(np.array([float(number) for number in numbers]))


def _finite(vector: NDArray[np.floating]) -> Vector:
    if not (np.abs(vector) <= np.finfo(np.float32).max).all():
        raise ValueError("not all numbers are finite")
    return vector.astype(np.float32)


# Arrays


def _read_npz(path: Path, numbers: Numbers) -> Iterator[tuple[str, Vector]]:
    if not zipfile.is_zipfile(path):
        raise _unusable(path, "not a zip archive")
    try:
        with np.load(path, allow_pickle=False) as file:
            words, weights = file[WORDS], file[WEIGHTS]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unusable(path, str(error)) from error
    if words.dtype.kind != "U" or weights.dtype.kind != "f":
        raise _unusable(path, f"they are of type {words.dtype} and {weights.dtype}")
    if weights.ndim != 2 or words.shape != weights.shape[:1] or not weights.shape[1]:
        raise _unusable(path, f"they have shapes {words.shape} and {weights.shape}")
    for word, vector in zip(words.tolist(), weights, strict=True):
        if _is_wanted(word, numbers):
            try:
                yield word, _finite(vector)
            except ValueError as error:
                raise _unusable(path, f"{word!r}: {error}") from error


def _unusable(path: Path, why: str) -> DataError:
    # Words as Python objects could be read with pickle only, which runs what a file tells it to.
    return DataError(
        f"{path}: no usable {WORDS!r} and {WEIGHTS!r} ({why}); save N strings (not objects) and "
        "N x E floating-point numbers under these names with np.savez"
    )
