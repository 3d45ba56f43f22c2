"""Fits a captioner: epochs of steps, each followed by a look at the validation split.

After every epoch all state is written to one file, atomically; a killed run goes on from there.
In a group each worker takes its share of every batch, and the chief alone writes.
"""

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capstan.errors import SettingError
from capstan.progress import Progress
from capstan.train.dataset import Examples, TrainBatch, epoch_order, length_order, share
from capstan.train.distribution import WorkerGroup
from capstan.train.history import (
    CHECKPOINTS,
    Epoch,
    History,
    history_from_json,
    restore,
    save,
    write_curves,
)
from capstan.train.settings import TrainSettings
from capstan.train.trainer import Sums, Trainer, epoch_size

logger = logging.getLogger(__name__)

CURVES = "curves.jsonl"
TENSORBOARD = "tensorboard"
AHEAD = 4  # batches made ready while the device works
LOSS_EVERY = 20  # steps between looks at the loss, which make the device wait


def fit(
    trainer: Trainer,
    examples: tuple[Examples, Examples | None],
    settings: TrainSettings,
    output: Path,
    fingerprint: str,
) -> History:
    """Train on the first examples and judge on the second; end with the best weights.

    Goes on from `<output>/.checkpoints` when they are of the same `fingerprint`. Every worker of
    the trainer's group must call it, with the same arguments.
    """
    train, validation = examples
    history = _resume(trainer, output, fingerprint)
    trainer.part_seeds()
    sizes = [epoch_size(len(train), epoch, settings) for epoch in range(settings.epochs)]
    writer = _summary_writer(trainer.group, output)
    with Progress("train", "captions", sum(sizes)) as progress, writer.as_default():
        progress.add(sum(sizes[: len(history.curves)]))
        while not history.is_over(settings):
            epoch = _run_epoch(trainer, train, validation, settings, len(history.curves), progress)
            _check_finite(epoch)
            with trainer.averaged():
                history.add(epoch, trainer.model.get_weights())
            if trainer.group.is_chief:
                save(output / CHECKPOINTS, trainer.variables, history, fingerprint)
                write_curves(output / CURVES, history.curves)
            _summarise(epoch)
            _report(epoch)
    writer.close()
    if history.best_weights is not None:
        trainer.model.set_weights(history.best_weights)
    return history


def _resume(trainer: Trainer, output: Path, fingerprint: str) -> History:
    """Take up the chief's last checkpoint, in all of the group; only the chief needs to have it."""
    group = trainer.group
    history = None
    if group.is_chief:
        history = restore(output / CHECKPOINTS, trainer.variables, fingerprint)
        if history is None:
            for name in (CHECKPOINTS, TENSORBOARD):
                shutil.rmtree(output / name, ignore_errors=True)
    text = group.text_from_chief("" if history is None else history.to_json())
    if not text:
        return History([])
    if group.size > 1:
        for variable in trainer.variables:
            variable.assign(group.from_chief(variable.numpy()))
    return history or history_from_json(text)


def _summary_writer(group: WorkerGroup, output: Path) -> Any:
    if group.is_chief:
        return tf.summary.create_file_writer(str(output / TENSORBOARD))
    return tf.summary.create_noop_writer()


def _run_epoch(
    trainer: Trainer,
    train: Examples,
    validation: Examples | None,
    settings: TrainSettings,
    index: int,
    progress: Progress,
) -> Epoch:
    started = time.monotonic()
    size, group = settings.batch_size, trainer.group
    order = epoch_order(train.lengths, size, settings.seed, index, settings.epoch_captions)
    train_loss, waited = run_batches(trainer.train_step, train, order, group, progress)
    seconds = time.monotonic() - started
    validation_loss = None
    if validation is not None:
        order = length_order(validation.lengths, size)
        with trainer.averaged():
            validation_loss, _ = run_batches(trainer.loss, validation, order, group)
    return Epoch(
        index + 1,
        trainer.steps,
        round(seconds, 3),
        round(train_loss, 6),
        None if validation_loss is None else round(validation_loss, 6),
        round(trainer.learning_rate, 9),
        round(epoch_size(len(train), index, settings) / seconds, 1),
        round(waited / seconds, 4),
    )


def run_batches(
    step: Callable[..., Sums],
    examples: Examples,
    order: Sequence[NDArray[np.int64]],
    group: WorkerGroup | None = None,
    progress: Progress | None = None,
) -> tuple[float, float]:
    """Take a step with each batch of `order` (example indices), of which each worker has a share.

    Returns the group's mean loss per word, and the seconds that the worker who waited longest
    waited for batches. Progress counts the captions of all, and notes this worker's loss.
    """
    group = group or WorkerGroup()
    sums = np.zeros(2)
    shares = (share(batch, group.rank, group.size) for batch in order)
    wait = Wait(ahead(examples.batches(shares)))
    losses: list[Sums] = []
    for index, batch in enumerate(wait):
        losses.append(step(*batch))
        if progress is not None:
            progress.add(len(order[index]))
        if index % LOSS_EVERY == LOSS_EVERY - 1 or index == len(order) - 1:
            added = np.sum([[float(loss), float(words)] for loss, words in losses], axis=0)
            sums += added
            losses.clear()
            if progress is not None and added[1]:
                progress.note(f"loss {added[0] / added[1]:.3f}")
    waits = np.zeros(group.size)
    waits[group.rank] = wait.seconds
    loss, words, *seconds = group.total(np.concatenate([sums, waits]))
    return float(loss / words), float(max(seconds))


class Wait:
    """Passes values on and counts the seconds waited for them."""

    def __init__(self, values: Iterable[Any]) -> None:
        self._values, self.seconds = values, 0.0

    def __iter__(self) -> Iterator[Any]:
        values = iter(self._values)
        while True:
            started = time.monotonic()
            value = next(values, None)
            self.seconds += time.monotonic() - started
            if value is None:
                return
            yield value


def ahead(batches: Iterator[TrainBatch]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Batches made ready on a thread of their own, as (features, words, targets)."""
    with ThreadPoolExecutor(1, "batches") as pool:
        ready = deque(pool.submit(next, batches, None) for _ in range(AHEAD))
        while (batch := ready.popleft().result()) is not None:
            ready.append(pool.submit(next, batches, None))
            yield batch.features, batch.words, batch.targets


def _check_finite(epoch: Epoch) -> None:
    if not np.isfinite([epoch.train_loss, epoch.validation_loss or 0]).all():
        raise SettingError(
            f"the loss is no longer a number in epoch {epoch.epoch}; lower --learning-rate or give "
            "--precision float32"
        )


def _summarise(epoch: Epoch) -> None:
    for name in ("train_loss", "validation_loss", "learning_rate", "captions_per_second", "waited"):
        if (value := getattr(epoch, name)) is not None:
            tf.summary.scalar(name, value, step=epoch.epoch)
    tf.summary.flush()


def _report(epoch: Epoch) -> None:
    validation = (
        "" if epoch.validation_loss is None else f", validation {epoch.validation_loss:.3f}"
    )
    logger.info(
        "epoch %d: loss %.3f%s, %.0f captions/s",
        epoch.epoch,
        epoch.train_loss,
        validation,
        epoch.captions_per_second,
    )
