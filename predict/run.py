"""Pictures in, captions out: decode as `ingest` does, featurize, caption, a batch at a time."""

import hashlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurize.pictures import decode
from ingest.config import Pictures
from ingest.images import prepare
from pipeline.cli import import_tensorflow
from pipeline.errors import DataError, SettingError
from pipeline.files import atomic_write, data_files, input_directory, output_directory, write_json
from pipeline.progress import Progress
from pipeline.records import Extractor, Failure, Reason

if TYPE_CHECKING:
    from train.captioner import Caption

logger = logging.getLogger(__name__)

FORMAT = "capstan-prediction"
VERSION = 1


@dataclass(frozen=True)
class Settings:
    """Which model, with which extractor weights, how many pictures at once, and what to say."""

    model: Path
    weights: str | None = None
    batch_size: int = 32
    top: int = 1  # captions of a picture
    search: Mapping[str, Any] = field(default_factory=dict)  # in place of the model's own


@dataclass(frozen=True)
class Prediction:
    """A picture's captions, best first, or why it has none."""

    file: Path
    captions: tuple["Caption", ...] = ()
    reason: Reason | None = None


def print_captions(settings: Settings, paths: Sequence[Path]) -> None:
    """Print `file<TAB>caption` for every picture; fail at the end if some could not be read.

    If more than one caption is wanted: a line for each, with its log-probability after another tab.
    """
    files = list(_files(paths))
    failed = []
    for prediction in Predictor(settings).predict(files):
        if prediction.reason is not None:
            failed.append(f"{prediction.file} ({prediction.reason})")
        for caption in prediction.captions:
            more = "" if settings.top == 1 else f"\t{caption.log_probability:.2f}"
            sys.stdout.write(f"{prediction.file}\t{caption.text}{more}\n")
        sys.stdout.flush()
    if failed:
        raise DataError(f"no caption for {', '.join(failed)}; give pictures such as JPEG or PNG")


def predict_folder(settings: Settings, source: Path, output: Path) -> None:
    """Write `<picture>.txt` and `<picture>.json` below `output` for every file below `source`."""
    files = data_files(input_directory(source))
    if not files:
        raise SettingError(f"{source}: holds no files; check --input")
    output_directory(output)
    predictor = Predictor(settings)
    with Progress("predict", "pictures", len(files)) as progress:
        for prediction in predictor.predict(files):
            progress.add(reason=prediction.reason)
            _write(output, prediction.file.relative_to(source), prediction, predictor.description)


def _write(output: Path, name: Path, prediction: Prediction, more: dict[str, Any]) -> None:
    captions = [
        {"caption": caption.text, "log_probability": caption.log_probability}
        for caption in prediction.captions
    ]
    if captions:
        with atomic_write(output / f"{name}.txt") as file:
            file.write(f"{captions[0]['caption']}\n".encode())
    entry = {
        "format": FORMAT,
        "version": VERSION,
        "file": name.as_posix(),
        **(captions[0] if captions else {"caption": None, "log_probability": None}),
        "alternatives": captions[1:],
        "reason": prediction.reason,
        **more,
    }
    write_json(output / f"{name}.json", entry)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from data_files(path)
        elif path.is_file():
            yield path
        else:
            raise SettingError(f"{path}: no such file; name a picture or a folder of them")


class Predictor:
    """A captioner and the extractor that it was trained with, loaded once."""

    def __init__(self, settings: Settings) -> None:
        import_tensorflow()
        from featurize.extractor import ResNetExtractor
        from train.captioner import load_captioner

        captioner = load_captioner(settings.model)
        self._captioner = replace(captioner, search=replace(captioner.search, **settings.search))
        self._top, beam = settings.top, self._captioner.search.beam
        if self._top > beam:
            raise SettingError(
                f"--top {self._top}: a beam of {beam} finds no more than {beam} caption"
                f"{'s'[: beam - 1]}; give --beam {self._top} too"
            )
        wanted = self._captioner.extractor
        weights = settings.weights or _known_weights(wanted)
        self._extractor = ResNetExtractor(weights, wanted.image_size, settings.batch_size)
        if not self._extractor.identity.same_features(wanted):
            raise SettingError(
                f"--weights {weights}: {self._extractor.identity} is not what {settings.model} was "
                f"trained with ({wanted}); give those weights"
            )
        model = (settings.model / "saved_model.keras").read_bytes()
        self.description: dict[str, Any] = {
            "extractor": asdict(self._extractor.identity),
            "search": asdict(self._captioner.search),
            "model_sha256": hashlib.sha256(model).hexdigest(),
        }

    def predict(self, files: Iterable[Path]) -> Iterator[Prediction]:
        """Caption pictures in order; what is no picture gets a reason."""
        waiting = iter(files)
        while batch := list(islice(waiting, self._extractor.batch_size)):
            pixels = [self._pixels(file) for file in batch]
            whole = [one for one in pixels if not isinstance(one, Failure)]
            captions = iter(self._captions(whole))
            for file, one in zip(batch, pixels, strict=True):
                if isinstance(one, Failure):
                    yield Prediction(file, reason=one.reason)
                else:
                    yield Prediction(file, next(captions)[: self._top])

    def _pixels(self, file: Path) -> NDArray[np.uint8] | Failure:
        """The same path as in training: re-encoded as in a shard, then decoded and cropped."""
        image = prepare(file.read_bytes(), Pictures())
        if isinstance(image, Failure):
            return image
        return decode(image.data, self._captioner.extractor.image_size)

    def _captions(self, pixels: list[NDArray[np.uint8]]) -> list[tuple["Caption", ...]]:
        if not pixels:
            return []
        return self._captioner.captions(self._extractor.extract(np.stack(pixels)))


def _known_weights(extractor: Extractor) -> str:
    if extractor.weights == "imagenet" or extractor.weights.startswith("random:"):
        return extractor.weights
    raise SettingError(
        f"the model was trained on features of {extractor}; name that file with --weights"
    )
