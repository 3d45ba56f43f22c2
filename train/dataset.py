"""Training shards to batches: joined tables, memory-mapped features, a true global shuffle.

The order of an epoch is a pure function of (seed, epoch), so a resumed run sees what an
uninterrupted one would have seen.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import DataError, SettingError
from pipeline.files import data_files, sha256_file
from pipeline.records import Extractor
from pipeline.shards import TrainingShard, open_features, read_training_shard
from train.vocabulary import END, PAD, START, Vocabulary

WINDOW = 64  # batches sorted by length together; larger pads less, smaller mixes lengths more
WIDTHS = (8, 12, 16, 20, 24, 32, 48, 64, 96, 128)  # few, for code that is compiled for each width


@dataclass(frozen=True)
class Corpus:
    """Examples and the features they point into.

    `examples` has the columns of EXAMPLE_SCHEMA and `array`, the index of a row's array.
    """

    extractor: Extractor
    cleaning: str
    arrays: tuple[NDArray[np.float16], ...]  # each N x D, memory-mapped
    examples: pa.Table

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def feature_size(self) -> int:
        """D, the length of a feature vector."""
        return max(int(array.shape[1]) for array in self.arrays)

    def select(self, split: str) -> "Corpus":
        """The examples of one split."""
        return replace(self, examples=self.examples.filter(pc.field("split") == split))

    def take(self, indices: NDArray[np.int64]) -> "Corpus":
        """Some of the examples, in the order given."""
        return replace(self, examples=self.examples.take(indices))


@dataclass(frozen=True)
class Batch:
    """What one training step sees. A row of `targets` is its row of `words`, one step ahead."""

    features: NDArray[np.float32]  # B x D
    words: NDArray[np.int32]  # B x T, from `startseq` on, padded right
    targets: NDArray[np.int32]  # B x T, up to `endseq`, padded right


def fingerprint(directory: Path) -> str:
    """A hash that changes with any training shard below a directory."""
    digest = hashlib.sha256()
    for path in data_files(directory, ".parquet"):
        digest.update(f"{path.relative_to(directory)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def load_corpus(directory: Path) -> Corpus:
    """Load all training shards below a directory; refuse mixed extractors and cleanings."""
    paths = data_files(directory, ".parquet")
    if not paths:
        raise SettingError(f"{directory}: no training shard there; run `capstan consolidate`")
    shards = [read_training_shard(path) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        _check_same(paths[0], shards[0], path, shard)
    arrays = tuple(
        open_features(path.with_suffix(".npy"), shard.npy_sha256)
        for path, shard in zip(paths, shards, strict=True)
    )
    sizes = {array.shape[1:] for array in arrays if len(array)}
    if len(sizes) > 1:
        raise DataError(f"{directory}: features of sizes {sorted(sizes)}; featurize all again")
    tables = [
        shard.examples.append_column("array", pa.array(np.full(len(shard.examples), i, np.int32)))
        for i, shard in enumerate(shards)
    ]
    return Corpus(shards[0].extractor, shards[0].cleaning, arrays, pa.concat_tables(tables))


def _check_same(first: Path, expected: TrainingShard, path: Path, shard: TrainingShard) -> None:
    if not shard.extractor.same_features(expected.extractor):
        raise DataError(
            f"{path}: features of {shard.extractor}, but {first} has {expected.extractor}; "
            "featurize all pictures with one extractor"
        )
    if shard.cleaning != expected.cleaning:
        raise DataError(
            f"{path}: captions cleaned as {shard.cleaning!r}, but in {first} as "
            f"{expected.cleaning!r}; consolidate all with one --cleaning"
        )


def column(corpus: Corpus, name: str) -> NDArray[np.int64]:
    """A column of whole numbers."""
    values: NDArray[np.int64] = corpus.examples[name].to_numpy().astype(np.int64)
    return values


def read_features(corpus: Corpus, indices: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Feature vectors (N x D) of all examples, or of those at `indices`."""
    wanted = np.arange(len(corpus)) if indices is None else indices
    return FeatureReader(corpus)(wanted)


class FeatureReader:
    """Reads feature vectors at random; knows where each example's lies."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._array, self._row = column(corpus, "array"), column(corpus, "row")

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (len(indices) x D) of the examples at `indices`."""
        features = np.empty((len(indices), self._corpus.feature_size), np.float32)
        arrays, rows = self._array[indices], self._row[indices]
        for array in np.unique(arrays):
            here = np.flatnonzero(arrays == array)
            features[here] = self._corpus.arrays[array][rows[here]]
        return features


def pictures(corpus: Corpus) -> NDArray[np.int64]:
    """Index of the first example of each picture, in the corpus's order."""
    encoded = corpus.examples["sha256"].combine_chunks().dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(encoded, return_index=True)[1])


def epoch_order(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Batches of example indices for one epoch: every example once, alike lengths together.

    All examples are shuffled, each window of batches is sorted by length and cut, and the batches
    of all windows are shuffled again. All but one batch are full.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(shuffled), WINDOW * batch_size):
        window = shuffled[start : start + WINDOW * batch_size]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def length_order(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Batches of example indices in order of length, for evaluation."""
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


class Examples:
    """Captions as numbers beside their features: what an epoch draws its batches from."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, max_length: int) -> None:
        """Captions are cut after `max_length` words."""
        self._read = FeatureReader(corpus)
        self._sequences = vocabulary.encode(corpus.examples["cleaned"])
        self._max_length = max_length
        self.lengths = np.minimum(self._sequences.lengths, max_length)
        self.feature_size = corpus.feature_size

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, order: Iterable[NDArray[np.int64]]) -> Iterator[Batch]:
        """Batches of the examples whose indices are given."""
        for indices in order:
            words, targets = pad([self._sequences[i][: self._max_length] for i in indices])
            yield Batch(self._read(indices), words, targets)


def pad(captions: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Words and targets (each B x T) of captions; T is one of a few widths."""
    longest = max(len(caption) for caption in captions) + 1
    width = next((width for width in WIDTHS if width >= longest), longest)
    words = np.full((len(captions), width), PAD, np.int32)
    targets = words.copy()
    words[:, 0] = START
    for row, caption in enumerate(captions):
        words[row, 1 : len(caption) + 1] = caption
        targets[row, : len(caption)] = caption
        targets[row, len(caption)] = END
    return words, targets
