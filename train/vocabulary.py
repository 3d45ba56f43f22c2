"""Words and their numbers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from capstan.errors import DataError
from capstan.files import read_json, write_json

FORMAT = "capstan-vocabulary"
VERSION = 1
SPECIALS = ("[PAD]", "startseq", "endseq", "[UNK]")
PAD, START, END, UNKNOWN = range(len(SPECIALS))

COUNTS = pa.schema([("values", pa.string()), ("counts", pa.int64())])  # as value_counts has it


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

    def encode(self, captions: Iterable[pa.Array]) -> Sequences:
        """Number the words of cleaned captions; words not in the vocabulary become `[UNK]`.

        Captions come as a column or piece by piece.
        """
        words, lengths = [np.empty(0, np.int32)], [np.zeros(1, np.int32)]
        for piece in _pieces(captions):
            lists = pc.split_pattern(piece, " ")
            numbers = pc.index_in(pc.list_flatten(lists), value_set=self._value_set)
            words.append(pc.fill_null(numbers, UNKNOWN).to_numpy())
            lengths.append(pc.list_value_length(lists).to_numpy())
        return Sequences(np.concatenate(words), np.cumsum(np.concatenate(lengths), dtype=np.int64))

    def decode(self, numbers: Iterable[int]) -> str:
        """Words up to `endseq`, joined by spaces; specials are left out."""
        words: list[str] = []
        for number in numbers:
            if number == END:
                break
            if number >= len(SPECIALS):
                words.append(self.words[number])
        return " ".join(words)


def build_vocabulary(captions: Iterable[pa.Array], min_count: int, max_words: int) -> Vocabulary:
    """The most frequent words of cleaned captions, at most `max_words` with the specials.

    Captions come as a column or piece by piece. Equally frequent words come in alphabetical order.
    Raises DataError when nothing is left.
    """
    total, counts = 0, COUNTS.empty_table()
    for piece in _pieces(captions):
        total += len(piece)
        found = pc.value_counts(pc.list_flatten(pc.split_pattern(piece, " ")))
        together = pa.concat_tables([counts, pa.Table.from_struct_array(found)])
        counts = together.group_by("values").aggregate([("counts", "sum")])
        counts = counts.rename_columns({"counts_sum": "counts"})
    frequent = counts.filter(pc.field("counts") >= min_count)
    kept = [
        (-count, word)
        for word, count in zip(*(column.to_pylist() for column in frequent.columns), strict=True)
        if word not in SPECIALS
    ]
    if not kept:
        raise DataError(
            f"no word of the {total} training captions occurs {min_count} times; lower it with "
            "--min-count"
        )
    kept = sorted(kept)[: max_words - len(SPECIALS)]
    return Vocabulary((*SPECIALS, *(word for _, word in kept)))


def _pieces(captions: Iterable[pa.Array]) -> Iterator[pa.Array]:
    yield from captions.chunks if isinstance(captions, pa.ChunkedArray) else captions


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Write `vocabulary.json`."""
    write_json(path, {"format": FORMAT, "version": VERSION, "words": list(vocabulary.words)})


def read_vocabulary(path: Path) -> Vocabulary:
    """Read `vocabulary.json`; raises DataError for another format, version or specials."""
    words = read_json(path, FORMAT, VERSION).get("words")
    if not isinstance(words, list) or tuple(words[: len(SPECIALS)]) != SPECIALS:
        raise DataError(f"{path}: does not begin with {', '.join(SPECIALS)}; train the model again")
    return Vocabulary(tuple(words))
