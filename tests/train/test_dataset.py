from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import DataError, SettingError
from capstan.feature_shards import read_training_shard
from capstan.files import data_files
from capstan.records import Feature, row_key
from capstan.train.consolidate import SPLITS, ConsolidateSettings
from capstan.train.dataset import (
    Corpus,
    Examples,
    epoch_order,
    epoch_part,
    find_places,
    fingerprint,
    length_order,
    load_corpus,
    pad,
    pictures,
    read_features,
    share,
)
from capstan.train.vocabulary import END, PAD, START, Sequences, build_vocabulary

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=300).map(np.array)
CAPTIONS = st.lists(st.lists(st.integers(4, 99), min_size=1), min_size=1)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_has_every_example_once(
    lengths: np.ndarray, batch: int, seed: int, epoch: int
) -> None:
    order = epoch_order(lengths, batch, seed, epoch)
    assert sorted(np.concatenate(order)) == list(range(len(lengths)))
    assert sorted(len(indices) for indices in order)[1:] == [batch] * (len(order) - 1)
    again = epoch_order(lengths, batch, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(order, again, strict=True))
    assert sorted(np.concatenate(length_order(lengths, batch))) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 40), st.integers(1, 400), st.integers(0, 3))
def test_epochs_of_a_pass_have_every_example_once(
    lengths: np.ndarray, batch: int, limit: int, whole: int
) -> None:
    parts = -(-len(lengths) // limit)
    epochs = [
        np.concatenate(epoch_order(lengths, batch, 0, whole * parts + part, limit))
        for part in range(parts)
    ]
    assert sorted(np.concatenate(epochs)) == list(range(len(lengths)))
    sizes = [len(epoch) for epoch in epochs]
    assert max(sizes) <= limit
    assert max(sizes) - min(sizes) <= 1
    for part in range(parts):
        number, start, end = epoch_part(len(lengths), whole * parts + part, limit)
        assert (number, end - start) == (whole, sizes[part])


def test_passes_differ() -> None:
    lengths = np.arange(100) % 9
    first, second = (np.sort(np.concatenate(epoch_order(lengths, 8, 0, e, 50))) for e in (0, 2))
    assert not np.array_equal(first, second)


@given(LENGTHS, st.integers(1, 40), st.integers(1, 50))
def test_shares_of_all_workers_are_the_whole_batch(
    lengths: np.ndarray, batch: int, workers: int
) -> None:
    for indices in epoch_order(lengths, batch, 0, 0):
        shares = [share(indices, rank, workers) for rank in range(workers)]
        assert sorted(np.concatenate(shares)) == sorted(indices)
        sizes = [len(part) for part in shares]
        assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_differ() -> None:
    lengths = np.arange(1000) % 20
    orders = [epoch_order(lengths, 10, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    firsts = {tuple(order[0]) for order in orders}
    assert len(firsts) == 3


def test_batches_hold_captions_of_alike_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 20, 2000)
    order = epoch_order(lengths, 32, 0, 0)
    padded = sum(len(indices) * lengths[indices].max() for indices in order)
    assert padded < 1.1 * lengths.sum()


@given(CAPTIONS, st.integers(1, 60), st.randoms())
def test_pad(captions: list[list[int]], limit: int, random: Any) -> None:
    words = np.array([word for caption in captions for word in caption], np.int32)
    sequences = Sequences(words, np.cumsum([0, *map(len, captions)]))
    indices = np.array(random.choices(range(len(captions)), k=5))
    inputs, targets = pad(sequences, indices, np.minimum(sequences.lengths, limit)[indices])
    assert inputs.shape == targets.shape
    for row, index in enumerate(indices):
        kept = captions[index][:limit]
        padding = [PAD] * (inputs.shape[1] - len(kept) - 1)
        assert inputs[row].tolist() == [START, *kept, *padding]
        assert targets[row].tolist() == [*kept, END, *padding]


def test_widths_are_few() -> None:
    sequences = Sequences(np.arange(4, 84, dtype=np.int32), np.array([0, 80]))
    index = np.array([0])
    widths = {pad(sequences, index, np.array([n]))[0].shape[1] for n in range(1, 80)}
    assert widths == {8, 12, 16, 20, 24, 32, 48, 64, 96}


def test_an_empty_share_is_a_row_that_adds_nothing(shapes: Path) -> None:
    corpus = load_corpus(shapes)
    examples = Examples(corpus, build_vocabulary(corpus.column("cleaned"), 1, 100), 9)
    (batch,) = examples.batches([share(np.array([7]), 1, 2)])
    assert batch.features.shape == (1, 12)
    assert batch.words[0].tolist() == [START, *[PAD] * 7]
    assert set(batch.targets[0]) == {PAD}


def test_a_step_with_an_empty_share_changes_nothing(shapes: Path) -> None:
    from capstan.train.model import build_model
    from capstan.train.settings import PROFILES
    from capstan.train.settings import TrainSettings as Training
    from capstan.train.trainer import Trainer

    corpus = load_corpus(shapes)
    examples = Examples(corpus, build_vocabulary(corpus.column("cleaned"), 1, 100), 9)
    model = build_model(PROFILES["small"], 100, read_features(corpus))
    trainer = Trainer(model, examples, Training(weight_decay=0))
    before = model.get_weights()
    (batch,) = examples.batches([np.array([], np.int64)])
    loss, count = trainer.train_step(batch.features, batch.words, batch.targets)
    assert (float(loss), float(count)) == (0, 0)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        if ours.dtype == np.float32:  # the others are dropout's random states
            assert np.array_equal(ours, theirs)


def test_batches_carry_the_right_features(shapes: Path) -> None:
    corpus = load_corpus(shapes).select("train")
    assert 200 < len(corpus) < 280
    vocabulary = build_vocabulary(corpus.pieces("cleaned"), 1, 100)
    examples = Examples(corpus, vocabulary, 2)
    order = epoch_order(examples.lengths, 16, 0, 0)
    for batch in examples.batches(order):
        assert batch.features.shape == (len(batch.words), 12)
        assert set(batch.targets[:, 2]) == {END}  # cut after two words: `a red`
        for features, words in zip(batch.features, batch.words, strict=True):
            colour = ("red", "green", "blue", "black")[int(features[:4].argmax())]
            assert vocabulary.words[words[2]] == colour


def test_features_and_pictures_of_several_shards(shapes: Path) -> None:
    corpus = load_corpus(shapes)
    expected = np.concatenate([np.asarray(array) for array in corpus.arrays])
    assert np.array_equal(read_features(corpus), expected)
    assert np.array_equal(read_features(corpus, np.array([299, 0])), expected[[299, 0]])
    assert pictures(corpus).tolist() == list(range(300))


def test_pictures_with_several_captions(world: Any) -> None:
    lines = [f"caption {i}\thttp://a\n".encode() for i in range(6)]
    hashes = ["a" * 64, "b" * 64, "a" * 64, "c" * 64, "b" * 64, "d" * 64]
    features = [Feature(row_key("a.tsv/0", i), sha, i) for i, sha in enumerate(hashes)]
    world.add_chunk("a.tsv/0", lines, features, np.eye(6))
    assert pictures(load_corpus(world.consolidate())).tolist() == [0, 1, 3, 5]


def test_text_is_that_of_the_examples_taken(shapes: Path) -> None:
    corpus = load_corpus(shapes)
    keys = corpus.column("key").to_pylist()
    assert keys == [
        row_key(f"shapes.tsv/000000000000000{chunk}", i)
        for chunk, rows in enumerate((200, 100))
        for i in range(rows)
    ]
    indices = np.array([250, 3, 299, 0, 0])
    assert corpus.take(indices).column("key").to_pylist() == [keys[i] for i in indices]
    assert corpus.take(indices[:0]).column("key").to_pylist() == []
    splits = corpus.column("split").to_pylist()
    for split in SPLITS:
        expected = [key for key, each in zip(keys, splits, strict=True) if each == split]
        assert corpus.select(split).column("key").to_pylist() == expected


def test_tables_and_arrays_in_memory(shapes: Path) -> None:
    files = load_corpus(shapes)
    tables = tuple(read_training_shard(path).examples for path in data_files(shapes, ".parquet"))
    arrays = tuple(np.array(array) for array in files.arrays)
    corpus = Corpus(files.extractor, files.cleaning, arrays, tables, find_places(tables))
    assert corpus.column("cleaned") == files.column("cleaned")
    assert np.array_equal(read_features(corpus), read_features(files))


def test_mixed_extractors_are_refused(world: Any) -> None:
    from dataclasses import replace

    world.add_shapes("a.tsv/0", 5)
    extractor = load_corpus(world.consolidate()).extractor
    world.add_shapes("b.tsv/0", 5, replace(extractor, weights_sha256="2" * 64))
    with pytest.raises(DataError, match=r"b\.tsv/0\.parquet: features of resnet50-avg"):
        load_corpus(world.consolidate())


def test_mixed_cleanings_are_refused(world: Any) -> None:
    world.add_shapes("a.tsv/0", 5)
    world.consolidate()
    world.add_shapes("b.tsv/0", 5)
    kept = world.folders.output / "a.tsv/0.parquet"
    before = kept.read_bytes()
    world.consolidate(ConsolidateSettings("tutorial"))
    kept.write_bytes(before)
    with pytest.raises(DataError, match="one --cleaning"):
        load_corpus(world.folders.output)


def test_altered_features_are_refused(world: Any) -> None:
    world.add_shapes("a.tsv/0", 50)
    npy = world.consolidate() / "a.tsv/0.npy"
    data = bytearray(npy.read_bytes())
    data[-1] ^= 1
    npy.write_bytes(data)
    with pytest.raises(DataError, match=r"0\.npy: damaged"):
        load_corpus(world.folders.output)
    assert len(load_corpus(world.folders.output, check=False)) == 50  # another has checked


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="capstan consolidate"):
        load_corpus(tmp_path)


def test_fingerprint_changes_with_the_data(world: Any) -> None:
    world.add_shapes("a.tsv/0", 5)
    first = fingerprint(world.consolidate())
    assert fingerprint(world.consolidate()) == first
    assert fingerprint(world.consolidate(ConsolidateSettings("tutorial"))) != first
