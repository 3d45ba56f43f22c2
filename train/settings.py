"""What a training run can be told: the model's layers and how it is fitted."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from capstan.errors import SettingError


@dataclass(frozen=True)
class Architecture:
    """Sizes of the captioner's layers; see `capstan.train.model`."""

    image: int = 256  # of the picture's vector, given to the decoder at every step
    embedding: int = 256
    language: int = 0  # LSTM over the words so far; 0 for none: the decoder reads the embeddings
    text: int = 128  # what the decoder sees of that LSTM
    decoder: int = 512  # LSTM over picture and words
    hidden: int = 0  # dense layer between decoder and words; 0 for none
    normalise: bool = True  # features to mean 0 and variance 1 first
    dropout: float = 0.3  # of features and words
    state_dropout: float = 0.5  # of what the output layer sees

    def __post_init__(self) -> None:
        for name in ("dropout", "state_dropout"):
            if not 0 <= getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise SettingError(f"--{flag} {getattr(self, name)}: give a share below 1")


PROFILES: Mapping[str, Architecture] = {
    "default": Architecture(),
    "tutorial": Architecture(
        image=128,
        embedding=50,
        language=256,
        decoder=500,
        hidden=500,
        normalise=False,
        dropout=0.0,
        state_dropout=0.0,
    ),
    "small": Architecture(image=64, embedding=64, decoder=128, dropout=0.1, state_dropout=0.1),
}


@dataclass(frozen=True)
class TrainSettings:
    """How a captioner is trained."""

    epochs: int = 10
    epoch_captions: int = 0  # between two validations and checkpoints; 0 for all
    batch_size: int = 128  # captions
    learning_rate: float = 2e-3  # the highest, after warm-up
    warmup: float = 0.05  # share of all steps
    weight_decay: float = 1e-2
    clip: float = 5.0  # norm of the gradient
    label_smoothing: float = 0.1  # share of each target spread over all words
    average: float = 0.999  # of the weights judged and saved, per step; 0 for the last ones
    patience: int = 4  # epochs without a better validation loss before stopping
    min_count: int = 4  # rarer words are `[UNK]`
    max_words: int = 10_000  # in the vocabulary
    max_length: int = 40  # words of a caption
    seed: int = 0
    precision: str = "auto"  # of training; the saved model is float32 whatever it was

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "precision":
                continue
            if value < 0 or (value == 0 and field.name in POSITIVE):
                flag = field.name.replace("_", "-")
                raise SettingError(f"--{flag} {value}: give a positive number")
        for name in ("label_smoothing", "average"):
            if getattr(self, name) >= 1:
                flag = name.replace("_", "-")
                raise SettingError(f"--{flag} {getattr(self, name)}: give a share below 1")
        if self.max_words < LEAST_WORDS:
            raise SettingError(f"--max-words {self.max_words}: give at least {LEAST_WORDS}")


PRECISIONS = ("auto", "bfloat16", "float32")
LEAST_WORDS = 5  # the specials and one
POSITIVE = {"epochs", "batch_size", "learning_rate", "clip", "patience", "max_words", "max_length"}


NETWORK, VOCABULARY, DESCRIPTION = "saved_model.keras", "vocabulary.json", "model.json"


@dataclass(frozen=True)
class TrainingPlan:
    """One training run."""

    output: Path
    profile: str
    architecture: Architecture
    settings: TrainSettings
    fingerprint: str  # of data, architecture and settings
    embeddings: Path | None = None  # word vectors to start from; their length is what counts

    @property
    def saved(self) -> Path:
        """Where the model's own files go."""
        return self.output / "saved"
