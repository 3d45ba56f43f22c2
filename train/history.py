"""How far a fit is: learning curves, the best weights, and the checkpoints that hold both."""

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.files import atomic_write
from train.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """One line of the learning curves. Losses are nats per word."""

    epoch: int  # from 1
    seconds: float
    train_loss: float
    validation_loss: float | None
    learning_rate: float  # at its end
    captions_per_second: float
    waited: float  # share of the seconds that the trainer waited for its next batch


@dataclass
class History:
    """How far a fit is, and the best it has seen."""

    curves: list[Epoch]
    best: int = 0  # epoch; 0 before the first
    best_weights: list[NDArray[Any]] | None = None

    def add(self, epoch: Epoch, weights: list[NDArray[Any]]) -> None:
        """Note an epoch; without a validation split the last is the best."""
        self.curves.append(epoch)
        if epoch.validation_loss is None or epoch.validation_loss < self._best_loss():
            self.best, self.best_weights = epoch.epoch, weights

    def _best_loss(self) -> float:
        losses = [curve.validation_loss for curve in self.curves if curve.epoch == self.best]
        return losses[0] if losses and losses[0] is not None else float("inf")

    def is_over(self, settings: Settings) -> bool:
        """Whether all epochs are done or the validation loss has stopped falling."""
        done = len(self.curves)
        return done >= settings.epochs or (self.best > 0 and done - self.best >= settings.patience)


def write_curves(path: Path, curves: list[Epoch]) -> None:
    """Write `curves.jsonl`: one JSON object per epoch."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(asdict(epoch)).encode() + b"\n" for epoch in curves)


def save(path: Path, variables: Sequence[Any], history: History, fingerprint: str) -> None:
    """Write a checkpoint: all that a run needs to go on as if it had never stopped."""
    state = {
        "fingerprint": fingerprint,
        "best": history.best,
        "curves": [asdict(epoch) for epoch in history.curves],
    }
    arrays: dict[str, Any] = {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    arrays |= {f"variable{i}": value.numpy() for i, value in enumerate(variables)}
    arrays |= {f"best{i}": value for i, value in enumerate(history.best_weights or [])}
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def restore(path: Path, variables: Sequence[Any], fingerprint: str) -> History | None:
    """Take a checkpoint's state up, if there is one of the same data and settings."""
    if not path.is_file():
        return None
    with np.load(io.BytesIO(path.read_bytes())) as file:
        state = json.loads(file["state"].tobytes())
        if state["fingerprint"] != fingerprint:
            logger.info("%s is of other data or settings; starting from the beginning", path)
            return None
        for i, variable in enumerate(variables):
            variable.assign(file[f"variable{i}"])
        weights = [file[name] for name in file.files if name.startswith("best")]
    history = History([Epoch(**epoch) for epoch in state["curves"]], state["best"], weights or None)
    logger.info("going on after epoch %d, from %s", len(history.curves), path)
    return history
