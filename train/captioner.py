"""A trained captioner and its folder: network, vocabulary and what both were made from."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from capstan.errors import DataError
from capstan.files import atomic_path, read_json, sha256_file, write_json
from capstan.records import MODEL_FORMAT, MODEL_VERSION, Extractor
from capstan.train.decode import NEVER, Decoder
from capstan.train.forced import Score, word_scorer
from capstan.train.search import Search
from capstan.train.settings import DESCRIPTION, NETWORK, VOCABULARY
from capstan.train.vocabulary import Vocabulary, read_vocabulary, write_vocabulary


@dataclass(frozen=True)
class Caption:
    """What a captioner says of a picture."""

    text: str
    log_probability: float  # nats, of the words and of ending there
    word_log_probabilities: tuple[float, ...]  # of each word given those before, then of the end


@dataclass(frozen=True)
class Captioner:
    """Says in words what features show. Features must come from the same extractor."""

    network: keras.Model
    vocabulary: Vocabulary
    extractor: Extractor
    cleaning: str  # profile that made the captions it learned from
    max_length: int  # words
    search: Search = field(default_factory=Search)

    @cached_property
    def _decoder(self) -> Callable[[Search], Decoder]:
        return cache(lambda search: Decoder(self.network, self.max_length, search))

    @cached_property
    def _scorer(self) -> Score:
        return word_scorer(self.network)

    @property
    def feature_size(self) -> int:
        """Length of the feature vectors it reads."""
        return int(self.network.inputs[0].shape[1])

    def captions(
        self, features: NDArray[Any], search: Search | None = None
    ) -> list[tuple[Caption, ...]]:
        """The captions of each feature vector (B x D), best first.

        There are as many as the search's beam is wide, or fewer where no more can be said.
        """
        self._check(features)
        found = self._decoder(search or self.search)(features)
        return [
            tuple(
                self._caption(words, log_probabilities)
                for words, log_probabilities, score in zip(*of_picture, strict=True)
                if score > NEVER
            )
            for of_picture in zip(*found, strict=True)
        ]

    def word_log_probabilities(self, features: NDArray[Any], text: str) -> NDArray[np.float32]:
        """How probable a caption's words are for each feature vector (B x D): B x (words + 1).

        In nats, of each word given those before, then of the end, as in `Caption`; -inf for words
        that are not in the vocabulary.
        """
        self._check(features)
        words = self.vocabulary.encode([pa.array([text] if text else [], pa.string())]).words
        return self._scorer(features, words)

    def _check(self, features: NDArray[Any]) -> None:
        if features.ndim != 2 or features.shape[1] != self.feature_size:
            raise DataError(
                f"features of shape {features.shape}, but this model reads N x "
                f"{self.feature_size}; featurize with {self.extractor}"
            )

    def _caption(self, words: NDArray[np.int32], log_probabilities: NDArray[np.float32]) -> Caption:
        said = words[1 : np.count_nonzero(words)]
        each = tuple(log_probabilities[: len(said) + 1].tolist())
        return Caption(self.vocabulary.decode(said), sum(each), each)


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
        "format": MODEL_FORMAT,
        "version": MODEL_VERSION,
        "extractor": asdict(captioner.extractor),
        "cleaning": captioner.cleaning,
        "max_length": captioner.max_length,
        "search": asdict(captioner.search),
        "files": {name: sha256_file(directory / name) for name in (NETWORK, VOCABULARY)},
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
    return read_json(directory / DESCRIPTION, MODEL_FORMAT, MODEL_VERSION)


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
        Search.of_description(directory / DESCRIPTION, description),
    )
