"""A program: two replicas on two processors that are made of one, beside one replica alone.

The GPUs of a node are driven in the same way. Run by `test_workers.py`, in a process of its own
since TensorFlow's devices cannot be changed once they are in use.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from capstan.train.dataset import Examples, epoch_order, load_corpus, read_features
from capstan.train.distribution import WorkerGroup
from capstan.train.model import build_model
from capstan.train.settings import PROFILES, TrainSettings
from capstan.train.trainer import Trainer
from capstan.train.vocabulary import build_vocabulary

SETTINGS = TrainSettings(batch_size=16, learning_rate=0.01, epochs=2, average=0.9, clip=0.5)


def main() -> None:
    """Train both on the same batches and compare; see that dropout differs between replicas."""
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    corpus = load_corpus(Path(sys.argv[1])).select("train")
    examples = Examples(corpus, build_vocabulary(corpus.pieces("cleaned"), 1, 100), 6)
    sample = read_features(corpus)
    one, two = (
        trainer(group, 0.0, examples, sample) for group in (WorkerGroup(), WorkerGroup(strategy))
    )
    order = epoch_order(examples.lengths, SETTINGS.batch_size, 0, 0)[:30]
    order.insert(3, order[0][:1])  # too few for both
    for batch in examples.batches(order):
        parts = (batch.features, batch.words, batch.targets)
        check_close(one.train_step(*parts), two.train_step(*parts))
        check_close(one.loss(*parts), two.loss(*parts))
    for ours, theirs in zip(one.variables, two.variables, strict=True):
        check_close(ours.numpy(), theirs.numpy())
    check_seeds(trainer(WorkerGroup(strategy), 0.5, examples, sample))


def check_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def trainer(group: WorkerGroup, dropout: float, examples: Examples, sample: np.ndarray) -> Trainer:
    keras.utils.set_random_seed(0)
    network = replace(PROFILES["small"], dropout=dropout, state_dropout=dropout)
    with group.strategy.scope():
        model = build_model(network, 20, sample)
    return Trainer(model, examples, SETTINGS, group)


def check_seeds(trainer: Trainer) -> None:
    """Random states are the same in all replicas until they are parted, and the first's stay."""

    def states() -> np.ndarray:
        found = [each.value for each in trainer.model.variables if "generator" in each.path]
        return np.array([[value.numpy() for value in state.values] for state in found])

    before = states()
    trainer.part_seeds()
    after = states()
    assert len(before) >= 3
    assert (before[:, 0] == before[:, 1]).all()
    assert (after[:, 0] == before[:, 0]).all()
    assert (after[:, 0] != after[:, 1]).any(axis=1).all()


if __name__ == "__main__":
    main()
