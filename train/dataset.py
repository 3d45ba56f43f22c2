"""Training shards to batches: memory-mapped features, captions as numbers, a true global shuffle.

Of each example only its place is kept (13 bytes); its text stays in the shards and is read a column
and a shard at a time. The order of an epoch is a pure function of (seed, epoch), so a resumed run
sees what an uninterrupted one would have seen.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from capstan.errors import DataError, SettingError
from capstan.feature_shards import TrainingShard, read_training_shard
from capstan.files import data_files, sha256_file
from capstan.records import Extractor
from capstan.schemas import EXAMPLE_SCHEMA
from capstan.train.consolidate import SPLITS
from capstan.train.features import RowReader, open_arrays
from capstan.train.vocabulary import END, PAD, START, Sequences, Vocabulary

PLACE = np.dtype(  # of an example
    [
        ("array", np.int32),  # its array, and its table
        ("row", np.int32),  # its features in the array
        ("line", np.int32),  # its row in the table
        ("split", np.int8),  # index into SPLITS
    ]
)
WINDOW = 64  # batches sorted by length together; larger pads less, smaller mixes lengths more
WIDTHS = (8, 12, 16, 20, 24, 32, 48, 64, 96, 128)  # few, for code that is compiled for each width


@dataclass(frozen=True)
class Corpus:
    """Examples and the features they point into; what millions of them say stays in the files."""

    extractor: Extractor
    cleaning: str
    arrays: tuple[NDArray[np.float16], ...]  # each N x D, memory-mapped
    tables: tuple[Path | pa.Table, ...]  # of EXAMPLE_SCHEMA, one for each array
    places: NDArray[np.void]  # of PLACE, one for each example
    shards: tuple[dict[str, Any], ...] = ()  # of `_shard_record`, for those who ask what it was

    def __len__(self) -> int:
        return len(self.places)

    @property
    def feature_size(self) -> int:
        """D, the length of a feature vector."""
        return max(int(array.shape[1]) for array in self.arrays)

    def select(self, split: str) -> "Corpus":
        """The examples of one split."""
        return self.take(np.flatnonzero(self.places["split"] == SPLITS.index(split)))

    def take(self, indices: NDArray[np.int64]) -> "Corpus":
        """Some of the examples, in the order given."""
        return replace(self, places=self.places[indices])

    def pieces(self, name: str) -> Iterator[pa.Array]:
        """A column of EXAMPLE_SCHEMA, piece by piece: one table at a time is in memory."""
        numbers = self.places["array"]
        ends = np.flatnonzero(np.diff(numbers, append=-1)) + 1
        for start, end in zip([0, *ends[:-1]], ends, strict=False):
            column = _read_column(self.tables[numbers[start]], name)
            yield column.take(pa.array(self.places["line"][start:end]))

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of EXAMPLE_SCHEMA, read from the files."""
        return pa.chunked_array(self.pieces(name), EXAMPLE_SCHEMA.field(name).type)


def _read_column(table: Path | pa.Table, name: str) -> pa.Array:
    found = read_training_shard(table, [name]).examples if isinstance(table, Path) else table
    return found[name].combine_chunks()


@dataclass(frozen=True)
class TrainBatch:
    """What one training step sees. A row of `targets` is its row of `words`, one step ahead."""

    features: NDArray[np.float16]  # B x D
    words: NDArray[np.int32]  # B x T, from `startseq` on, padded right
    targets: NDArray[np.int32]  # B x T, up to `endseq`, padded right


def fingerprint(directory: Path) -> str:
    """A hash that changes with any training shard below a directory."""
    digest = hashlib.sha256()
    for path in data_files(directory, ".parquet"):
        digest.update(f"{path.relative_to(directory)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def load_corpus(directory: Path, check: bool = True) -> Corpus:
    """Load all training shards below a directory; refuse mixed extractors and cleanings.

    The features are read once to check their hashes, which also brings them into memory in order
    and not at random. Without `check` they are taken to be what another process has checked.
    """
    paths = data_files(directory, ".parquet")
    if not paths:
        raise SettingError(f"{directory}: no training shard there; run `capstan consolidate`")
    shards = [read_training_shard(path, ["row", "split"]) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        _check_same(paths[0], shards[0], path, shard)
    arrays = open_arrays(
        [path.with_suffix(".npy") for path in paths],
        [shard.npy_sha256 if check else None for shard in shards],
    )
    sizes = {array.shape[1:] for array in arrays if len(array)}
    if len(sizes) > 1:
        raise DataError(f"{directory}: features of sizes {sorted(sizes)}; featurize all again")
    places = find_places([shard.examples for shard in shards])
    records = tuple(map(_shard_record, paths, shards)) if check else ()
    return Corpus(shards[0].extractor, shards[0].cleaning, arrays, tuple(paths), places, records)


def _shard_record(path: Path, shard: TrainingShard) -> dict[str, Any]:
    """What a model keeps of a shard that it was trained on: hashes, and examples of each split."""
    counts = Counter(shard.examples["split"].to_pylist())
    return {
        "chunk": shard.chunk,
        "sha256": sha256_file(path),
        "npy_sha256": shard.npy_sha256,
        "examples": {split: counts[split] for split in SPLITS},
    }


def find_places(tables: Sequence[pa.Table]) -> NDArray[np.void]:
    """Where the examples of tables lie (N of PLACE), from their columns `row` and `split`."""
    places = np.empty(sum(map(len, tables)), PLACE)
    start = 0
    for number, table in enumerate(tables):
        here = places[start : start + len(table)]
        here["array"], here["line"] = number, np.arange(len(table))
        here["row"] = table["row"].to_numpy()
        here["split"] = pc.index_in(table["split"], value_set=pa.array(SPLITS)).to_numpy()
        start += len(table)
    return places


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


def read_features(corpus: Corpus, indices: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Feature vectors (N x D) of all examples, or of those at `indices`."""
    places = corpus.places if indices is None else corpus.places[indices]
    return RowReader(corpus.arrays)(places["array"], places["row"]).astype(np.float32)


def pictures(corpus: Corpus) -> NDArray[np.int64]:
    """Index of the first example of each picture, in the corpus's order.

    Pictures are told apart by the first 64 bits of their hashes: of ten million, two are taken for
    one with a probability of 3 in a million.
    """
    pieces = [
        pc.utf8_slice_codeunits(piece, 0, 16).to_numpy(zero_copy_only=False).astype("S16")
        for piece in corpus.pieces("sha256")
    ]
    return np.sort(np.unique(np.concatenate(pieces), return_index=True)[1])


def epoch_order(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int, limit: int = 0
) -> list[NDArray[np.int64]]:
    """Batches of example indices for one epoch: alike lengths together, all but one batch full.

    Passes over the data are divided into equal epochs of at most `limit` examples (0: one epoch a
    pass), so that every example is in one epoch of each pass. A pass's examples are shuffled, each
    window of an epoch's batches is sorted by length and cut, and the batches of all windows are
    shuffled again.
    """
    whole, start, end = epoch_part(len(lengths), epoch, limit)
    random = np.random.default_rng([seed, whole])
    shuffled = random.permutation(len(lengths))[start:end]
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(shuffled), WINDOW * batch_size):
        window = shuffled[start : start + WINDOW * batch_size]
        window = window[np.argsort(lengths[window], kind="stable")]
        # Within a batch in the order of the files, to read them faster.
        batches += [np.sort(window[i : i + batch_size]) for i in range(0, len(window), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def epoch_part(examples: int, epoch: int, limit: int) -> tuple[int, int, int]:
    """The pass that an epoch belongs to, and its range of the pass's examples; all count from 0."""
    parts = max(1, -(-examples // limit)) if limit else 1
    whole, part = divmod(epoch, parts)
    return whole, examples * part // parts, examples * (part + 1) // parts


def share(indices: NDArray[np.int64], rank: int, workers: int) -> NDArray[np.int64]:
    """What worker `rank` (from 0) takes of a batch; the workers' shares make up the whole batch.

    Shares differ by one example at most, and are empty where there are fewer examples than
    workers; `Examples.batches` makes something of that which every step can be taken with.
    """
    return indices[rank::workers]


def length_order(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Batches of example indices in order of length, for evaluation."""
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


class Examples:
    """Captions as numbers beside their features: what an epoch draws its batches from."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, max_length: int) -> None:
        """Captions are cut after `max_length` words."""
        self._places, self._read = corpus.places, RowReader(corpus.arrays)
        self._sequences = vocabulary.encode(corpus.pieces("cleaned"))
        self.lengths = np.minimum(self._sequences.lengths, max_length)
        self.feature_size = corpus.feature_size

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, order: Iterable[NDArray[np.int64]]) -> Iterator[TrainBatch]:
        """Batches of the examples whose indices are given.

        For no indices, a row without words: it adds nothing to a sum of losses, while kernels of
        recurrent layers refuse a batch without rows.
        """
        for indices in order:
            yield self._batch(indices) if len(indices) else self._blank()

    def _batch(self, indices: NDArray[np.int64]) -> TrainBatch:
        words, targets = pad(self._sequences, indices, self.lengths[indices])
        places = self._places[indices]
        return TrainBatch(self._read(places["array"], places["row"]), words, targets)

    def _blank(self) -> TrainBatch:
        words = np.full((1, WIDTHS[0]), PAD, np.int32)
        targets = words.copy()
        words[:, 0] = START
        return TrainBatch(np.zeros((1, self.feature_size), np.float16), words, targets)


def pad(
    captions: Sequences, indices: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Words and targets (each B x T) of the captions at `indices`, cut after `lengths` words.

    T is one of a few widths.
    """
    longest = int(lengths.max()) + 1
    width = next((width for width in WIDTHS if width >= longest), longest)
    columns = np.arange(width)
    real = columns < lengths[:, None]
    targets = np.full(real.shape, PAD, np.int32)
    targets[real] = captions.words[(captions.offsets[indices][:, None] + columns)[real]]
    words = np.full(real.shape, START, np.int32)
    words[:, 1:] = targets[:, :-1]
    targets[np.arange(len(targets)), lengths] = END
    return words, targets
