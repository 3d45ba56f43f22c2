"""Words and their numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.files import read_json, write_json

FORMAT = "capstan-vocabulary"
VERSION = 1
SPECIALS = ("[PAD]", "startseq", "endseq", "[UNK]")
PAD, START, END, UNKNOWN = range(len(SPECIALS))


@dataclass(frozen=True)
class Sequences:
    """Captions as word numbers, end to end: caption i is `words[offsets[i]:offsets[i + 1]]`."""

    words: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Words of each caption."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.words[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Vocabulary:
    """Words by number: the specials, then words from the most frequent on."""

    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _value_set(self) -> pa.Array:
        # A caption may hold the word `startseq`; it is unknown, not a special.
        names = ["" if number < len(SPECIALS) else word for number, word in enumerate(self.words)]
        return pa.array(names, pa.string())

    def encode(self, captions: pa.ChunkedArray) -> Sequences:
        """Number the words of cleaned captions; words not in the vocabulary become `[UNK]`."""
        lists = pc.split_pattern(captions, " ").combine_chunks()
        numbers = pc.index_in(pc.list_flatten(lists), value_set=self._value_set)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        return Sequences(
            pc.fill_null(numbers, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int32),
            np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        )

    def decode(self, numbers: Iterable[int]) -> str:
        """Words up to `endseq`, joined by spaces; specials are left out."""
        words: list[str] = []
        for number in numbers:
            if number == END:
                break
            if number >= len(SPECIALS):
                words.append(self.words[number])
        return " ".join(words)


def build_vocabulary(captions: pa.ChunkedArray, min_count: int, max_words: int) -> Vocabulary:
    """The most frequent words of cleaned captions, at most `max_words` with the specials.

    Equally frequent words come in alphabetical order. Raises DataError when nothing is left.
    """
    counts = pc.value_counts(pc.list_flatten(pc.split_pattern(captions, " ")))
    words = [
        (-entry["counts"], entry["values"])
        for entry in counts.to_pylist()
        if entry["counts"] >= min_count and entry["values"] not in SPECIALS
    ]
    if not words:
        raise DataError(
            f"no word of the {len(captions)} training captions occurs {min_count} times; lower it "
            "with --min-count"
        )
    kept = sorted(words)[: max_words - len(SPECIALS)]
    return Vocabulary((*SPECIALS, *(word for _, word in kept)))


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Write `vocabulary.json`."""
    write_json(path, {"format": FORMAT, "version": VERSION, "words": list(vocabulary.words)})


def read_vocabulary(path: Path) -> Vocabulary:
    """Read `vocabulary.json`; raises DataError for another format, version or specials."""
    words = read_json(path, FORMAT, VERSION).get("words")
    if not isinstance(words, list) or tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise DataError(f"{path}: does not begin with {', '.join(SPECIALS)}; train the model again")
    return Vocabulary(tuple(words))
