"""What `capstan predict` does: read pictures batch by batch, caption them, print or write that."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstan.errors import DataError, SettingError
from capstan.files import atomic_write, data_files, input_directory, output_directory, write_json
from capstan.ingest.config import HttpOptions
from capstan.predict.captions import Captions, Predictor, PredictSettings, said
from capstan.predict.sources import Source, find, read
from capstan.progress import Progress
from capstan.records import PREDICTION_FORMAT, PREDICTION_VERSION, Failure, Reason


@dataclass(frozen=True)
class PictureCaptions:
    """A picture's captions, best first, or why it has none."""

    source: Source
    captions: Captions = ()
    reason: Reason | None = None
    sha256: str | None = None  # of the picture's bytes as they came


def predict(
    predictor: Predictor, sources: Sequence[Source], web: HttpOptions
) -> Iterator[PictureCaptions]:
    """Caption pictures in order; what is no picture gets a reason."""
    for start in range(0, len(sources), predictor.batch_size):
        batch = sources[start : start + predictor.batch_size]
        pictures = read(batch, web)
        pixels = [
            each if isinstance(each, Failure) else predictor.pixels(each) for each in pictures
        ]
        captions = iter(predictor.captions([one for one in pixels if not isinstance(one, Failure)]))
        for source, data, one in zip(batch, pictures, pixels, strict=True):
            sha256 = None if isinstance(data, Failure) else hashlib.sha256(data).hexdigest()
            if isinstance(one, Failure):
                yield PictureCaptions(source, reason=one.reason, sha256=sha256)
            else:
                yield PictureCaptions(source, next(captions), sha256=sha256)


def print_captions(
    settings: PredictSettings, words: Sequence[str], web: HttpOptions, as_json: bool
) -> None:
    """Print a line per picture, of JSON or as text; the latter fails at the end if some had none.

    Text is `file<TAB>caption`; if more than one caption is wanted, it is a line for each, with its
    log-probability after another tab.
    """
    sources = find(words)
    predictor = Predictor(settings)
    failed = []
    line = _json_line(predictor.description) if as_json else _text(settings.top)
    with _bar(sources, predictor.batch_size) as progress:
        for prediction in predict(predictor, sources, web):
            if progress:
                progress.add(reason=prediction.reason)
            if prediction.reason:
                failed.append(f"{prediction.source} ({prediction.reason})")
            sys.stdout.write(line(prediction))
            sys.stdout.flush()
    if failed and not as_json:
        raise DataError(f"no caption for {', '.join(failed)}; give pictures such as JPEG or PNG")


def _bar(sources: Sequence[Source], few: int) -> Any:
    """Progress for many pictures on a terminal, unless the captions themselves run over it."""
    if len(sources) > few and sys.stderr.isatty() and not sys.stdout.isatty():
        return Progress("predict", "pictures", len(sources))
    return nullcontext()


def _json_line(description: Mapping[str, Any]) -> Callable[[PictureCaptions], str]:
    return lambda prediction: (
        json.dumps(_entry(str(prediction.source), prediction, description), ensure_ascii=False)
        + "\n"
    )


def _text(top: int | None) -> Callable[[PictureCaptions], str]:
    return lambda prediction: "".join(
        f"{prediction.source}\t{caption.text}"
        + ("\n" if top == 1 else f"\t{caption.log_probability:.2f}\n")
        for caption in prediction.captions
    )


def predict_folder(settings: PredictSettings, source: Path, output: Path) -> None:
    """Write `<picture>.txt` and `<picture>.json` below `output` for every file below `source`."""
    files = data_files(input_directory(source))
    if not files:
        raise SettingError(f"{source}: holds no files; check --input")
    output_directory(output)
    predictor = Predictor(settings)
    with Progress("predict", "pictures", len(files)) as progress:
        for file, prediction in zip(files, predict(predictor, files, HttpOptions()), strict=True):
            progress.add(reason=prediction.reason)
            name = file.relative_to(source).as_posix()
            if prediction.captions:
                with atomic_write(output / f"{name}.txt") as text:
                    text.write(f"{prediction.captions[0].text}\n".encode())
            write_json(output / f"{name}.json", _entry(name, prediction, predictor.description))


def _entry(
    name: str, prediction: PictureCaptions, description: Mapping[str, Any]
) -> dict[str, Any]:
    """What is told of a picture in JSON."""
    return {
        "format": PREDICTION_FORMAT,
        "version": PREDICTION_VERSION,
        "file": name,
        "sha256": prediction.sha256,
        **said(prediction.captions),
        "reason": prediction.reason,
        **description,
    }
