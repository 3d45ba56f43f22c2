from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError, SettingError
from train.consolidate import Settings
from train.dataset import (
    Examples,
    epoch_order,
    fingerprint,
    length_order,
    load_corpus,
    pad,
    pictures,
    read_features,
)
from train.vocabulary import END, PAD, START, build_vocabulary

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=300).map(np.array)


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


def test_pad() -> None:
    words, targets = pad([np.array([7, 8, 9]), np.array([5])])
    assert words.tolist() == [[START, 7, 8, 9, *[PAD] * 4], [START, 5, *[PAD] * 6]]
    assert targets.tolist() == [[7, 8, 9, END, *[PAD] * 4], [5, END, *[PAD] * 6]]


def test_batches_carry_the_right_features(shapes: Path) -> None:
    corpus = load_corpus(shapes).select("train")
    assert 200 < len(corpus) < 280
    vocabulary = build_vocabulary(corpus.examples["cleaned"], 1, 100)
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
    world.consolidate(Settings("tutorial"))
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


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="capstan consolidate"):
        load_corpus(tmp_path)


def test_fingerprint_changes_with_the_data(world: Any) -> None:
    world.add_shapes("a.tsv/0", 5)
    first = fingerprint(world.consolidate())
    assert fingerprint(world.consolidate()) == first
    assert fingerprint(world.consolidate(Settings("tutorial"))) != first
