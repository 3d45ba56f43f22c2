"""A model with its optimizer and the traced steps that train and judge it, on one device or many.

Keras 3 `fit` fails under MultiWorkerMirroredStrategy, and its optimizers clip the gradient of each
replica; so the steps are our own. Each replica takes a part of the batch, their gradients are
summed, and all make the same step with the clipped sum: the step that one alone would make.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from capstan.train.dataset import Examples, epoch_part
from capstan.train.distribution import WorkerGroup
from capstan.train.losses import word_losses
from capstan.train.model import decoder_states
from capstan.train.settings import TrainSettings

SEED_STEP = 1_000_003  # between the random states of two replicas
Sums = tuple[tf.Tensor, tf.Tensor]  # loss (nats) and number of words


class Trainer:
    """A model, made inside the scope of the group's strategy, with its optimizer and steps."""

    def __init__(
        self,
        model: keras.Model,
        train: Examples,
        settings: TrainSettings,
        group: WorkerGroup | None = None,
    ) -> None:
        self.model, self.group = model, group or WorkerGroup()
        self._states, self._logits = decoder_states(model), model.get_layer("logits")
        self._smoothing, self._clip = settings.label_smoothing, settings.clip
        # A constant in place of each batch's own number of words: batches of short captions then
        # weigh no more than others, and sums over replicas need no further scaling.
        self._words_per_batch = settings.batch_size * float(np.mean(train.lengths + 1))
        self._rate = _schedule(settings, len(train))
        with self.group.strategy.scope():
            self.optimizer = _optimizer(self._rate, settings.weight_decay)
            self.optimizer.build(model.trainable_variables)
            self._averages = _Averages(model.trainable_variables, settings.average, self.optimizer)
        signature = [
            tf.TensorSpec([None, train.feature_size], tf.float32),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        ]
        self.train_step = tf.function(self._train_step, input_signature=signature)
        self.loss = tf.function(self._loss, input_signature=signature)

    def _loss(self, *batch: tf.Tensor) -> Sums:
        return self._on_replicas(self._replica_loss, batch)

    def _train_step(self, *batch: tf.Tensor) -> Sums:
        sums = self._on_replicas(self._replica_step, batch)
        with self.group.strategy.scope():  # in `run` every replica's weights would be reduced first
            self._averages.update()
        return sums

    def _on_replicas(self, step: Any, batch: Sequence[tf.Tensor]) -> Sums:
        """Sums over this process's replicas of what a step returns for each one's part."""
        results = self.group.strategy.run(lambda *all: step(*map(self._part, all)), args=batch)
        local = self.group.strategy.experimental_local_results
        loss, count = (tf.add_n(local(result)) for result in results)
        return loss, count

    def _part(self, rows: tf.Tensor) -> tf.Tensor:
        """The rows of this replica, at least one: of padding, which adds nothing."""
        replicas = self.group.replicas
        if replicas == 1:
            return rows
        rows = tf.pad(rows, [[0, tf.maximum(0, replicas - tf.shape(rows)[0])], [0, 0]])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group % replicas
        return rows[replica::replicas]

    def _replica_loss(self, features: tf.Tensor, words: tf.Tensor, targets: tf.Tensor) -> Sums:
        return self._losses(features, words, targets, training=False)[1:]

    def _replica_step(self, features: tf.Tensor, words: tf.Tensor, targets: tf.Tensor) -> Sums:
        with tf.GradientTape() as tape:
            objective, total, count = self._losses(features, words, targets, training=True)
            objective /= self._words_per_batch
        variables = self.model.trainable_variables
        gradients = self._summed(tape.gradient(objective, variables))
        gradients, _ = tf.clip_by_global_norm(gradients, self._clip)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return total, count

    def _losses(
        self, features: tf.Tensor, words: tf.Tensor, targets: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        states = self._states([features, words], training=training)
        return word_losses(self._logits, states, targets, self._smoothing)

    def _summed(self, gradients: Sequence[Any]) -> list[tf.Tensor]:
        """Gradients summed over all replicas of the group, dense."""
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync == 1:
            return dense
        # Gradients of a network that calculates in bfloat16 have no more digits than that.
        dtype = self._logits.compute_dtype
        sums = context.all_reduce(
            tf.distribute.ReduceOp.SUM, [tf.cast(gradient, dtype) for gradient in dense]
        )
        return [tf.cast(each, tf.float32) for each in sums]

    def part_seeds(self) -> None:
        """Have each replica draw its own random numbers, once all have the same state."""
        states = [each for each in self.model.variables if each.path.endswith("generator_state")]
        if self.group.strategy.num_replicas_in_sync == 1:
            return

        def move() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in states:
                state.assign_add(tf.cast([replica * SEED_STEP, 0], state.dtype))

        tf.function(lambda: self.group.strategy.run(move))()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with its averaged weights, to be judged and kept."""
        with self._averages.swapped():
            yield

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return int(self.optimizer.iterations.numpy())

    @property
    def learning_rate(self) -> float:
        """What the next step would use."""
        return float(self._rate(self.optimizer.iterations.numpy()))

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


class _AdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW for gradients that are summed over the replicas already; a kernel for each weight."""

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        return list(grads_and_vars)

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        """What Keras's does in a dozen kernels, which on a processor takes twice the time."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def _optimizer(rate: Any, weight_decay: float) -> Any:
    optimizer = _AdamW(rate, weight_decay=weight_decay, name="adamw")
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def epoch_size(examples: int, epoch: int, settings: TrainSettings) -> int:
    """Captions of an epoch (counted from 0)."""
    _, start, end = epoch_part(examples, epoch, settings.epoch_captions)
    return end - start


def _schedule(settings: TrainSettings, examples: int) -> Any:
    """Linear warm-up to the learning rate, then a cosine down to a hundredth of it."""
    sizes = (epoch_size(examples, epoch, settings) for epoch in range(settings.epochs))
    steps = sum(-(-size // settings.batch_size) for size in sizes)
    warmup = max(1, int(steps * settings.warmup))
    return keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / warmup,
        max(1, steps - warmup),
        alpha=0.01,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup,
    )
