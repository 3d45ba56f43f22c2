"""How far a fit is: learning curves, the best weights, and the checkpoints that hold both."""

import io
import json
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capstan.files import atomic_write
from capstan.train.settings import TrainSettings

logger = logging.getLogger(__name__)

CHECKPOINTS = ".checkpoints"
KEPT = 2  # checkpoints: should the newest be damaged, the one before will do


@dataclass(frozen=True)
class Epoch:
    """One line of the learning curves. Losses are nats per word."""

    epoch: int  # from 1
    step: int  # at its end, from 1
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

    def is_over(self, settings: TrainSettings) -> bool:
        """Whether all epochs are done or the validation loss has stopped falling."""
        done = len(self.curves)
        return done >= settings.epochs or (self.best > 0 and done - self.best >= settings.patience)

    def to_json(self) -> str:
        """All but the weights."""
        curves = [asdict(epoch) for epoch in self.curves]
        return json.dumps({"best": self.best, "curves": curves})


def history_from_json(text: str) -> History:
    """A history without its weights."""
    entry = json.loads(text)
    return History([Epoch(**epoch) for epoch in entry["curves"]], entry["best"])


def write_curves(path: Path, curves: list[Epoch]) -> None:
    """Write `curves.jsonl`: one JSON object per epoch."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(asdict(epoch)).encode() + b"\n" for epoch in curves)


def checkpoints(directory: Path) -> list[Path]:
    """Checkpoints in a directory, the newest last."""
    return sorted(directory.glob("epoch-*.npz"))


def save(directory: Path, variables: Sequence[Any], history: History, fingerprint: str) -> None:
    """Write a checkpoint: all that a run needs to go on as if it had never stopped.

    Removes all but the newest.
    """
    arrays: dict[str, Any] = {"fingerprint": _letters(fingerprint)}
    arrays |= {"history": _letters(history.to_json())}
    arrays |= {f"variable{i}": value.numpy() for i, value in enumerate(variables)}
    arrays |= {f"best{i}": value for i, value in enumerate(history.best_weights or [])}
    with atomic_write(directory / f"epoch-{len(history.curves):06}.npz") as file:
        np.savez(file, **arrays)
    for path in checkpoints(directory)[:-KEPT]:
        path.unlink()


def _letters(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def restore(directory: Path, variables: Sequence[Any], fingerprint: str) -> History | None:
    """Take up the newest checkpoint that is whole, if it is of the same data and settings."""
    for path in reversed(checkpoints(directory)):
        try:
            with np.load(io.BytesIO(path.read_bytes())) as file:
                arrays = {name: file[name] for name in file.files}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s: damaged (%s); taking the one before", path, error)
            continue
        if arrays["fingerprint"].tobytes() != fingerprint.encode():
            logger.info("%s is of other data or settings; starting from the beginning", path)
            return None
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"variable{i}"])
        history = history_from_json(arrays["history"].tobytes().decode())
        history.best_weights = [arrays[name] for name in arrays if name.startswith("best")] or None
        logger.info("going on after epoch %d, from %s", len(history.curves), path)
        return history
    return None
