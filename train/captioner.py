"""A trained captioner and its folder: network, vocabulary and what both were made from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.files import atomic_path, read_json, write_json
from pipeline.records import Extractor
from train.decode import Greedy
from train.settings import DESCRIPTION, NETWORK, VOCABULARY
from train.vocabulary import Vocabulary, read_vocabulary, write_vocabulary

FORMAT = "capstan-model"
VERSION = 1


@dataclass(frozen=True)
class Captioner:
    """Says in words what features show. Features must come from the same extractor."""

    network: keras.Model
    vocabulary: Vocabulary
    extractor: Extractor
    cleaning: str  # profile that made the captions it learned from
    max_length: int  # words

    @cached_property
    def _search(self) -> Greedy:
        return Greedy(self.network, self.max_length)

    @property
    def feature_size(self) -> int:
        """Length of the feature vectors it reads."""
        return int(self.network.inputs[0].shape[1])

    def captions(self, features: NDArray[Any]) -> list[tuple[str, float]]:
        """The caption of each feature vector (B x D) and its log-probability in nats."""
        if features.ndim != 2 or features.shape[1] != self.feature_size:
            raise DataError(
                f"features of shape {features.shape}, but this model reads N x "
                f"{self.feature_size}; featurize with {self.extractor}"
            )
        words, scores = self._search(features)
        return [
            (self.vocabulary.decode(row), float(score))
            for row, score in zip(words, scores, strict=True)
        ]


def save_network(directory: Path, captioner: Captioner) -> None:
    """Write network and vocabulary. Without `save_description` after it no reader takes them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / DESCRIPTION).unlink(missing_ok=True)
    with atomic_path(directory / NETWORK) as temporary:
        captioner.network.save(temporary)
    write_vocabulary(directory / VOCABULARY, captioner.vocabulary)


def save_description(directory: Path, captioner: Captioner, more: Mapping[str, Any]) -> None:
    """Write `model.json`, which makes the folder a whole model; `more` is kept beside."""
    description = {
        "format": FORMAT,
        "version": VERSION,
        "extractor": asdict(captioner.extractor),
        "cleaning": captioner.cleaning,
        "max_length": captioner.max_length,
        **more,
    }
    write_json(directory / DESCRIPTION, description)


def read_description(directory: Path) -> dict[str, Any]:
    """Read `model.json` after checking that the model's three files are there."""
    for name in (DESCRIPTION, NETWORK, VOCABULARY):
        if not (directory / name).is_file():
            raise DataError(
                f"{directory / name}: missing; a model is {NETWORK}, {VOCABULARY} and "
                f"{DESCRIPTION} together: copy it whole, or run `capstan train` again"
            )
    return read_json(directory / DESCRIPTION, FORMAT, VERSION)


def load_captioner(directory: Path) -> Captioner:
    """Load what `capstan train` saved; raises DataError naming what is missing or wrong."""
    description = read_description(directory)
    vocabulary = read_vocabulary(directory / VOCABULARY)
    try:
        network = keras.models.load_model(directory / NETWORK, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = str(error).splitlines()[0]
        raise DataError(
            f"{directory / NETWORK}: not a Keras model ({message}); run `capstan train` again"
        ) from error
    if network.output.shape[-1] != len(vocabulary):
        raise DataError(
            f"{directory / VOCABULARY}: {len(vocabulary)} words, but the network says "
            f"{network.output.shape[-1]}; copy the files of one model together"
        )
    return Captioner(
        network,
        vocabulary,
        Extractor(**description["extractor"]),
        description["cleaning"],
        description["max_length"],
    )
