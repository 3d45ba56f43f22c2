"""Teach a ResNet50 to see the demo's shapes, in about 100 seconds of processor time.

With no internet there are no published weights, and a network with random weights
tells the shapes apart only roughly. So the backbone learns here to name what a scene
holds: the relation, and the size, colour and kind of each shape. The layer that names
them is thrown away; the headless backbone is saved, as `featurize` loads it.

To be quick, only the first block of each stage is trained, the one that changes the
shape. The other blocks are set to the identity (the last scale of their branch is zero),
so training need not compute them, and the whole network gives the same features.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from capstan.demo.shapes import COLOURS, KINDS, RELATIONS, SIZES, Scene, Shape, encode
from capstan.errors import SettingError
from capstan.featurize.pictures import decode
from capstan.files import atomic_path
from capstan.records import Failure

logger = logging.getLogger(__name__)

Array = NDArray[Any]

_STEM = ("conv1_pad", "conv1_conv", "conv1_bn", "conv1_relu", "pool1_pad", "pool1_pool")
_BRANCH = ("1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu", "3_conv", "3_bn")
_LOOKS = (tuple(SIZES), tuple(COLOURS), KINDS)
_QUESTIONS = (RELATIONS, *_LOOKS, *_LOOKS)  # about a scene, each with its possible answers
_LINES = 10  # progress lines in a run


@dataclass(frozen=True)
class PretrainSettings:
    """How to train; the defaults are the demo's."""

    image_size: int = 48
    batch_size: int = 32
    learning_rate: float = 4e-3  # at its peak, a quarter of the way
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise SettingError(f"image_size must be at least 32, not {self.image_size}")
        if self.batch_size < 2:
            raise SettingError(f"batch_size must be at least 2, not {self.batch_size}")


def pretrain(seen: Sequence[Scene], path: Path, settings: PretrainSettings) -> None:
    """Train on the pictures of `seen`, once each, and save the backbone's weights at `path`."""
    if not path.name.endswith(".weights.h5"):
        raise SettingError(f"the name must end in .weights.h5: {path}")
    steps = len(seen) // settings.batch_size
    if steps == 0:
        raise SettingError(f"{len(seen)} scenes do not fill a batch of {settings.batch_size}")
    keras.utils.set_random_seed(settings.seed)
    pictures = np.stack([_picture(scene, settings.image_size) for scene in seen])
    answers = np.array([_answers(scene) for scene in seen], dtype=np.int32)
    whole = _backbone(settings.image_size)
    namer = _namer(whole, steps, settings)
    _fit(namer, _batches(pictures, answers, settings), steps)
    with atomic_path(path) as temporary:
        whole.save_weights(temporary)


def _picture(scene: Scene, size: int) -> Array:
    """The scene's file as `featurize` sees it."""
    picture = decode(encode(scene), size)
    assert not isinstance(picture, Failure)
    return picture


def _answers(scene: Scene) -> list[int]:
    """For each question, the number of the right answer."""
    relation = RELATIONS.index(scene.relation)
    return [relation, *_look(scene.first), *_look(scene.second)]


def _look(shape: Shape) -> list[int]:
    words = (shape.size, shape.colour, shape.kind)
    return [known.index(word) for known, word in zip(_LOOKS, words, strict=True)]


def _backbone(size: int) -> keras.Model:
    """A headless ResNet50 with random weights, only the first block of each stage in use."""
    whole = keras.applications.ResNet50(
        include_top=False, pooling="avg", weights=None, input_shape=(size, size, 3)
    )
    for layer in whole.layers:
        if layer.name.endswith("_3_bn") and "_block1_" not in layer.name:
            layer.gamma.assign(keras.ops.zeros(layer.gamma.shape))
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # the default forgets too slowly for a run this short
    return whole


def _namer(whole: keras.Model, steps: int, settings: PretrainSettings) -> keras.Model:
    """The model to train: one way through the layers of `whole`, then one Dense layer.

    It takes the first block of each stage. The blocks left out change nothing that
    passes through them, so `whole` and the short way give the same features.
    """
    x = whole.input
    for name in _STEM:
        x = whole.get_layer(name)(x)
    for stage in (2, 3, 4, 5):
        x = _first_block(whole, f"conv{stage}_block1_", x)
    x = whole.get_layer("avg_pool")(x)
    model = keras.Model(whole.input, keras.layers.Dense(sum(map(len, _QUESTIONS)))(x))
    optimizer = keras.optimizers.AdamW(
        _learning_rate(steps, settings.learning_rate), weight_decay=settings.weight_decay
    )
    model.compile(optimizer, loss=_loss, metrics=[_all_right], jit_compile=False)
    return model


def _first_block(whole: keras.Model, block: str, x: Any) -> Any:
    """The block of `whole` whose layers' names begin with `block`."""
    shortcut = whole.get_layer(f"{block}0_bn")(whole.get_layer(f"{block}0_conv")(x))
    for name in _BRANCH:
        x = whole.get_layer(block + name)(x)
    return whole.get_layer(f"{block}out")(whole.get_layer(f"{block}add")([shortcut, x]))


def _learning_rate(steps: int, peak: float) -> Any:
    """One cycle: up for a quarter of the steps, then down to nothing."""
    rising = max(1, steps // 4)
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, steps - rising), alpha=0.0, warmup_target=peak, warmup_steps=rising
    )


def _split(logits: Any) -> list[Any]:
    """The model's output, one part for each question."""
    ends = np.cumsum([len(words) for words in _QUESTIONS])
    parts: list[Any] = keras.ops.split(logits, ends[:-1].tolist(), axis=1)
    return parts


def _loss(answers: Any, logits: Any) -> Any:
    """Cross-entropy, summed over the questions."""
    losses = [
        keras.ops.sparse_categorical_crossentropy(answers[:, place], part, from_logits=True)
        for place, part in enumerate(_split(logits))
    ]
    return keras.ops.sum(keras.ops.stack(losses), axis=0)


def _all_right(answers: Any, logits: Any) -> Any:
    """One for a scene whose questions are all answered right, else zero."""
    chosen = keras.ops.stack([keras.ops.argmax(part, axis=1) for part in _split(logits)], axis=1)
    right = keras.ops.equal(keras.ops.cast(chosen, "int32"), keras.ops.cast(answers, "int32"))
    return keras.ops.cast(keras.ops.all(right, axis=1), "float32")


def _batches(
    pictures: Array, answers: Array, settings: PretrainSettings
) -> Iterator[tuple[Array, Array]]:
    """Whole batches in an order that the seed decides, as the network wants its input."""
    order = np.random.default_rng(settings.seed).permutation(len(pictures))
    for start in range(0, len(order) - settings.batch_size + 1, settings.batch_size):
        batch = order[start : start + settings.batch_size]
        values = pictures[batch].astype(np.float32)
        yield keras.applications.resnet50.preprocess_input(values), answers[batch]


def _fit(model: keras.Model, batches: Iterator[tuple[Array, Array]], steps: int) -> None:
    """Train, with a progress line now and then; its figures are since the line before."""
    started = time.monotonic()
    every = max(1, steps // _LINES)
    recent: list[tuple[float, float]] = []
    for step, (values, answers) in enumerate(batches, start=1):
        logs = model.train_on_batch(values, answers, return_dict=True)
        recent.append((float(logs["loss"]), float(logs["_all_right"])))
        if step % every == 0 or step == steps:
            loss, right = np.mean(recent, axis=0)
            logger.info(
                "pretrain: step %d of %d, loss %.3f, all words right in %.1f %%, %.0f s",
                *(step, steps, loss, 100 * right, time.monotonic() - started),
            )
            recent.clear()
