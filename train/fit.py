"""Fits a captioner: a custom loop, since Keras 3 `fit` fails under MultiWorkerMirroredStrategy.

After every epoch all state is written to one file, atomically; a killed run goes on from there.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.errors import SettingError
from pipeline.progress import Progress
from train.dataset import Batch, Examples, epoch_order, length_order
from train.history import Epoch, History, restore, save, write_curves
from train.model import decoder_states, word_losses
from train.settings import Settings

logger = logging.getLogger(__name__)

CHECKPOINTS = ".checkpoints"
CURVES = "curves.jsonl"
TENSORBOARD = "tensorboard"
LOSS_EVERY = 20  # steps between looks at the loss, which make the device wait


class Trainer:
    """A model with its optimizer and traced steps."""

    def __init__(self, model: keras.Model, train: Examples, settings: Settings) -> None:
        self.model = model
        self._states, self._logits = decoder_states(model), model.get_layer("logits")
        # A constant in place of each batch's own number of words: batches of short captions then
        # weigh no more than others, and sums over replicas need no further scaling.
        self._smoothing = settings.label_smoothing
        self._words_per_batch = settings.batch_size * float(np.mean(train.lengths + 1))
        steps = settings.epochs * -(-len(train) // settings.batch_size)
        self._rate = _schedule(settings, steps)
        self.optimizer = keras.optimizers.AdamW(
            self._rate, weight_decay=settings.weight_decay, global_clipnorm=settings.clip
        )
        self.optimizer.exclude_from_weight_decay(var_names=["bias"])
        self.optimizer.build(model.trainable_variables)
        self._averages = _Averages(model.trainable_variables, settings.average, self.optimizer)
        signature = [
            tf.TensorSpec([None, train.feature_size], tf.float32),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        ]
        self.train_step = tf.function(self._train_step, input_signature=signature)
        self.loss = tf.function(self._loss, input_signature=signature)

    def _loss(
        self, features: tf.Tensor, words: tf.Tensor, targets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return self._losses(features, words, targets, training=False)[1:]

    def _train_step(
        self, features: tf.Tensor, words: tf.Tensor, targets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            objective, total, count = self._losses(features, words, targets, training=True)
            objective /= self._words_per_batch
        variables = self.model.trainable_variables
        gradients = tape.gradient(objective, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._averages.update()
        return total, count

    def _losses(
        self, features: tf.Tensor, words: tf.Tensor, targets: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        states = self._states([features, words], training=training)
        return word_losses(self._logits, states, targets, self._smoothing)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with its averaged weights, to be judged and kept."""
        with self._averages.swapped():
            yield

    @property
    def learning_rate(self) -> float:
        """What the next step would use."""
        return float(self._rate(self.optimizer.iterations))

    @property
    def variables(self) -> list[Any]:
        """Everything that changes: weights, random states, averages, the optimizer's moments."""
        return [*self.model.variables, *self._averages.variables, *self.optimizer.variables]


class _Averages:
    """Exponentially averaged weights (Polyak and Juditsky 1992); none for a decay of 0."""

    def __init__(self, weights: Sequence[Any], decay: float, optimizer: Any) -> None:
        self._weights = [weight.value for weight in weights] if decay else []
        # The decay starts low, so that the first weights do not linger.
        self._average = tf.train.ExponentialMovingAverage(decay, optimizer.iterations.value)
        if decay:
            self._average.apply(self._weights)

    @property
    def variables(self) -> list[tf.Variable]:
        return [self._average.average(weight) for weight in self._weights]

    def update(self) -> None:
        if self._weights:
            self._average.apply(self._weights)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Averages in the place of the weights for a while."""
        last = [weight.numpy() for weight in self._weights]
        for weight, average in zip(self._weights, self.variables, strict=True):
            weight.assign(average)
        yield
        for weight, value in zip(self._weights, last, strict=True):
            weight.assign(value)


def _schedule(settings: Settings, steps: int) -> Any:
    """Linear warm-up to the learning rate, then a cosine down to a hundredth of it."""
    warmup = max(1, int(steps * settings.warmup))
    return keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / warmup,
        max(1, steps - warmup),
        alpha=0.01,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup,
    )


def fit(
    trainer: Trainer,
    examples: tuple[Examples, Examples | None],
    settings: Settings,
    output: Path,
    fingerprint: str,
) -> History:
    """Train on the first examples and judge on the second; end with the best weights.

    Goes on from `<output>/.checkpoints` when they are of the same `fingerprint`.
    """
    checkpoint = output / CHECKPOINTS / "last.npz"
    history = restore(checkpoint, trainer.variables, fingerprint)
    train, validation = examples
    if history is None:
        history = History([])
        shutil.rmtree(output / TENSORBOARD, ignore_errors=True)
    writer = tf.summary.create_file_writer(str(output / TENSORBOARD))
    with (
        Progress("train", "captions", len(train) * settings.epochs) as progress,
        writer.as_default(),
    ):
        progress.add(len(train) * len(history.curves))
        while not history.is_over(settings):
            epoch = _run_epoch(trainer, train, validation, settings, len(history.curves), progress)
            _check_finite(epoch)
            with trainer.averaged():
                history.add(epoch, trainer.model.get_weights())
            save(checkpoint, trainer.variables, history, fingerprint)
            write_curves(output / CURVES, history.curves)
            _summarise(epoch)
            _report(epoch)
    writer.close()
    if history.best_weights is not None:
        trainer.model.set_weights(history.best_weights)
    return history


def _run_epoch(
    trainer: Trainer,
    train: Examples,
    validation: Examples | None,
    settings: Settings,
    index: int,
    progress: Progress,
) -> Epoch:
    started = time.monotonic()
    order = epoch_order(train.lengths, settings.batch_size, settings.seed, index)
    train_loss, waited = run_batches(trainer.train_step, train, order, progress)
    seconds = time.monotonic() - started
    validation_loss = None
    if validation is not None:
        order = length_order(validation.lengths, settings.batch_size)
        with trainer.averaged():
            validation_loss, _ = run_batches(trainer.loss, validation, order)
    return Epoch(
        index + 1,
        round(seconds, 3),
        round(train_loss, 6),
        None if validation_loss is None else round(validation_loss, 6),
        round(trainer.learning_rate, 9),
        round(len(train) / seconds, 1),
        round(waited / seconds, 4),
    )


def run_batches(
    step: Callable[..., tuple[tf.Tensor, tf.Tensor]],
    examples: Examples,
    order: list[NDArray[np.int64]],
    progress: Progress | None = None,
) -> tuple[float, float]:
    """Take a step with each batch of `order` (example indices).

    Returns the mean loss per word and the seconds waited for batches.
    """
    total, count = 0.0, 0.0
    wait = Wait(_prefetched(examples, order))
    losses: list[tuple[tf.Tensor, tf.Tensor]] = []
    for index, batch in enumerate(wait):
        losses.append(step(*batch))
        if progress is not None:
            progress.add(int(batch[0].shape[0]))
        if index % LOSS_EVERY == LOSS_EVERY - 1 or index == len(order) - 1:
            added = np.sum([[float(loss), float(words)] for loss, words in losses], axis=0)
            total, count = total + added[0], count + added[1]
            losses.clear()
            if progress is not None:
                progress.note(f"loss {added[0] / added[1]:.3f}")
    return total / count, wait.seconds


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


def _prefetched(examples: Examples, order: list[NDArray[np.int64]]) -> tf.data.Dataset:
    """Batches made ready on a thread of their own, as (features, words, targets)."""

    def generate() -> Iterator[tuple[NDArray[Any], ...]]:
        for batch in examples.batches(order):
            yield _arrays(batch)

    signature = (
        tf.TensorSpec([None, examples.feature_size], tf.float32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
    )
    return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(4)


def _arrays(batch: Batch) -> tuple[NDArray[Any], ...]:
    return batch.features, batch.words, batch.targets


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
