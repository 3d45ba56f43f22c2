"""Data-parallel training: every worker has a copy of the model and takes a part of each batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from capstan.train.workers import LostWorkerError, place


@dataclass(frozen=True)
class WorkerGroup:
    """The processes that train one model together, and this one's place among them."""

    strategy: Any = field(default_factory=tf.distribute.get_strategy)
    rank: int = 0
    size: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.rank == 0

    @property
    def replicas(self) -> int:
        """Copies of the model in this process: one for each of its GPUs."""
        return int(self.strategy.num_replicas_in_sync) // self.size

    def total(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum of the workers' values; all of them must ask for it, in the same order."""
        if self.size == 1:
            return values
        total = self.strategy.reduce(tf.distribute.ReduceOp.SUM, tf.constant(values), axis=None)
        result: NDArray[Any] = total.numpy()
        return result

    def from_chief(self, values: NDArray[Any]) -> NDArray[Any]:
        """The chief's values, of which the others know shape and type; all must ask for them."""
        return self.total(values if self.is_chief else np.zeros_like(values))

    def text_from_chief(self, text: str) -> str:
        """The chief's text; all must ask for it."""
        if self.size == 1:
            return text
        letters = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        length = int(self.from_chief(np.array([len(letters)], np.int32))[0])
        if not length:  # TensorFlow's collectives do not survive it
            return ""
        letters = self.from_chief(letters if self.is_chief else np.zeros(length, np.int32))
        return letters.astype(np.uint8).tobytes().decode()


def join() -> WorkerGroup:
    """The group TF_CONFIG describes, once all are there; else this process and its GPUs."""
    tf.get_logger().setLevel("WARNING")  # it tells of every collective
    here = place()
    if here.size > 1:
        return WorkerGroup(tf.distribute.MultiWorkerMirroredStrategy(), here.rank, here.size)
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return WorkerGroup(tf.distribute.MirroredStrategy())
    return WorkerGroup()


@contextmanager
def losing_workers(group: WorkerGroup) -> Iterator[None]:
    """Raise LostWorkerError where TensorFlow says that others of the group are gone.

    It does within seconds of a worker's death, and when one has not been heard of for ten.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if "Collective ops is aborted" not in error.message:
            raise
        reason = error.message.split("aborted by:")[-1].strip().splitlines()[0]
        raise LostWorkerError(
            f"worker {group.rank} of {group.size} lost another ({reason}); start all of them again "
            "to go on from the last checkpoint"
        ) from error
