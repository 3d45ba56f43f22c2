"""Bytes in, captions out: decode as `ingest` does, featurize, caption; the same for all callers."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capstan.cli import import_tensorflow
from capstan.errors import SettingError
from capstan.featurize.pictures import decode, scaled
from capstan.ingest.config import ImageOptions
from capstan.ingest.decode.images import check_decoders, prepare
from capstan.records import Extractor, Failure, Reason

if TYPE_CHECKING:
    from capstan.train.captioner import Caption

Pixels = NDArray[np.uint8]  # (S, S, 3), RGB
Captions = tuple["Caption", ...]  # of one picture, best first


@dataclass(frozen=True)
class View:
    """A picture as the model sees it, and which part of the whole, upright one that is."""

    pixels: Pixels
    share: tuple[float, float]  # of the width and of the height: the middle, sides are cut off


@dataclass(frozen=True)
class PredictSettings:
    """Which model, with which extractor weights, how many pictures at once, and what to say."""

    model: Path
    weights: str | None = None
    batch_size: int = 32
    top: int | None = 1  # captions of a picture; None: as many as the beam is wide
    search: Mapping[str, Any] = field(default_factory=dict)  # in place of the model's own


class Predictor:
    """A captioner and the extractor that it was trained with, loaded once.

    `pixels` and `look` may be called in any thread, the others in one at a time. Raises
    SettingError for a model that is not there or weights that are not its own, DataError for a
    damaged one.
    """

    def __init__(self, settings: PredictSettings) -> None:
        if not settings.model.is_dir():
            raise SettingError(
                f"{settings.model}: no such folder; give the `saved` that `capstan train` wrote"
            )
        check_decoders()
        import_tensorflow()
        import tensorflow as tf

        from capstan.featurize.extractor import ResNetExtractor
        from capstan.train.captioner import load_captioner

        captioner = load_captioner(settings.model)
        self._captioner = replace(captioner, search=replace(captioner.search, **settings.search))
        self._top = _top(settings.top, self._captioner.search.beam)
        wanted = self._captioner.extractor
        weights = settings.weights or _known_weights(wanted)
        # On a GPU another shape is another compilation, and empty places cost next to nothing.
        padded = bool(tf.config.list_physical_devices("GPU"))
        self._extractor = ResNetExtractor(
            weights, wanted.image_size, settings.batch_size, padded=padded
        )
        if not self._extractor.identity.same_features(wanted):
            raise SettingError(
                f"--weights {weights}: {self._extractor.identity} is not what {settings.model} was "
                f"trained with ({wanted}); give those weights"
            )
        self.batch_size = settings.batch_size
        model = (settings.model / "saved_model.keras").read_bytes()
        self.description: dict[str, Any] = {
            "extractor": asdict(self._extractor.identity),
            "search": asdict(self._captioner.search),
            "model_sha256": hashlib.sha256(model).hexdigest(),
        }

    def pixels(self, data: bytes) -> Pixels | Failure:
        """The same path as in training: re-encoded as in a shard, then decoded and cropped."""
        view = self.look(data)
        return view if isinstance(view, Failure) else view.pixels

    def look(self, data: bytes) -> View | Failure:
        """The same, and what was cut off."""
        if not data:
            return Failure(Reason.EMPTY_BODY)
        image = prepare(data, ImageOptions())
        if isinstance(image, Failure):
            return image
        side = self._captioner.extractor.image_size
        pixels = decode(image.data, side)
        if isinstance(pixels, Failure):
            return pixels
        width, height = scaled((image.width, image.height), side)
        return View(pixels, (side / width, side / height))

    def captions(self, pixels: Sequence[Pixels]) -> list[Captions]:
        """The captions of each picture, any number of them."""
        if not pixels:
            return []
        found = self._captioner.captions(self._extractor.extract(np.stack(pixels)))
        return [captions[: self._top] for captions in found]

    def word_log_probabilities(self, pixels: Sequence[Pixels], caption: str) -> NDArray[np.float32]:
        """How probable the words of one caption are for each picture: (pictures, words + 1).

        In nats, of each word given those before, then of the end.
        """
        return self._captioner.word_log_probabilities(
            self._extractor.extract(np.stack(pixels)), caption
        )

    def warm_up(self) -> None:
        """Caption empty pictures, one and then many: all that is slow at first is behind it."""
        side = self._captioner.extractor.image_size
        empty = np.zeros((side, side, 3), np.uint8)
        for count in (1, self.batch_size):
            self.captions([empty] * count)
        self.word_log_probabilities([empty], "")


def _top(wanted: int | None, beam: int) -> int:
    if wanted is not None and wanted > beam:
        raise SettingError(
            f"--top {wanted}: a beam of {beam} finds no more than {beam} caption"
            f"{'s'[: beam - 1]}; give --beam {wanted} too"
        )
    return wanted or beam


def _known_weights(extractor: Extractor) -> str:
    if extractor.weights == "imagenet" or extractor.weights.startswith("random:"):
        return extractor.weights
    raise SettingError(
        f"the model was trained on features of {extractor}; name that file with --weights"
    )


def said(captions: Captions) -> dict[str, Any]:
    """Captions as JSON: the best one, then its alternatives."""
    each = [{"caption": one.text, "log_probability": one.log_probability} for one in captions]
    best = each[0] if each else {"caption": None, "log_probability": None}
    return {**best, "alternatives": each[1:]}
