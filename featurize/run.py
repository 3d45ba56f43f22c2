"""Image shards in, feature shards out: skip what is unchanged, compute each picture once."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurize.batches import Decoded, decoded_batches
from featurize.config import Config, weights_source
from pipeline.cli import import_tensorflow
from pipeline.errors import DataError, SettingError
from pipeline.files import data_files, input_directory, output_directory, sha256_file
from pipeline.progress import Progress
from pipeline.records import Failure, Feature, StoredImage
from pipeline.shards import read_feature_manifest, read_images, write_feature_shard

if TYPE_CHECKING:  # it imports TensorFlow, which takes seconds
    from featurize.extractor import ResNetExtractor

logger = logging.getLogger(__name__)

REMEMBERED = 20_000  # vectors kept over shards to spare repeated pictures, 4 KB each


@dataclass(frozen=True)
class Task:
    """An image shard and what its features are known by."""

    tar: Path
    chunk: str
    provenance: dict[str, str | int]


def featurize(config: Config) -> None:
    """Write a feature shard for every image shard that has none, or one of other make."""
    tasks = _tasks(config)
    todo = [task for task in tasks if not _is_done(config.output, task)]
    logger.info("%d shards: %d unchanged, %d to do", len(tasks), len(tasks) - len(todo), len(todo))
    if not todo:
        return
    import_tensorflow()
    from featurize.extractor import ResNetExtractor

    extractor = ResNetExtractor(config.weights, config.image_size, config.batch_size)
    logger.info("extractor: %s", extractor.identity)
    known = Known()
    with Progress("featurize", "pictures") as progress:
        for task in todo:
            rows, vectors = _shard_features(task, extractor, known, config, progress)
            write_feature_shard(
                config.output, task.chunk, rows, vectors, extractor.identity, task.provenance
            )
    logger.info("%d repeated pictures spared", known.spared)


def _tasks(config: Config) -> list[Task]:
    tars = data_files(input_directory(config.input), ".tar")
    if not tars:
        raise SettingError(f"{config.input}: holds no image shards (.tar); check --input")
    output_directory(config.output)
    common: dict[str, str | int] = {
        "weights_source": weights_source(config.weights),
        "image_size": config.image_size,
    }
    return [
        Task(
            tar,
            tar.relative_to(config.input).with_suffix("").as_posix(),
            {"source_sha256": sha256_file(tar), **common},
        )
        for tar in tars
    ]


def _is_done(output: Path, task: Task) -> bool:
    parquet = output / f"{task.chunk}.parquet"
    if not (parquet.is_file() and parquet.with_suffix(".npy").is_file()):
        return False
    try:
        manifest = read_feature_manifest(parquet)
    except DataError as error:
        logger.warning("making it again: %s", error)
        return False
    return task.provenance.items() <= manifest.items()


def _shard_features(
    task: Task, extractor: "ResNetExtractor", known: "Known", config: Config, progress: Progress
) -> tuple[list[Feature], NDArray[np.float16]]:
    order: list[tuple[str, str]] = []  # key and hash of every picture, repeated ones too

    def new_pictures() -> Iterator[StoredImage]:
        for image in read_images(task.tar):
            order.append((image.key, image.sha256))
            if known.is_new(image.sha256):
                yield image
            else:
                progress.add()

    for batch in decoded_batches(
        new_pictures(), config.image_size, config.batch_size, config.decoders
    ):
        known.learn(batch, extractor)
        for _, result in batch:
            progress.add(reason=result.reason if isinstance(result, Failure) else None)
    return known.collect(order)


@dataclass
class Known:
    """Feature vectors (2048,) by picture hash, so that each distinct picture is computed once."""

    vectors: dict[str, NDArray[np.float16] | Failure] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    spared: int = 0

    def is_new(self, sha256: str) -> bool:
        """Whether a picture has yet to be computed; asking makes it pending."""
        if sha256 in self.pending or sha256 in self.vectors:
            self.spared += 1
            return False
        self.pending.add(sha256)
        return True

    def learn(self, batch: list[Decoded], extractor: "ResNetExtractor") -> None:
        """Compute the vectors of a batch of new pictures."""
        whole = [(image, pixels) for image, pixels in batch if not isinstance(pixels, Failure)]
        if whole:
            vectors = extractor.extract(np.stack([pixels for _, pixels in whole]))
            self.vectors.update(zip((image.sha256 for image, _ in whole), vectors, strict=True))
        self.vectors.update(
            (image.sha256, result) for image, result in batch if isinstance(result, Failure)
        )

    def collect(self, order: list[tuple[str, str]]) -> tuple[list[Feature], NDArray[np.float16]]:
        """A shard's feature rows in the order of its pictures; then forget all but the newest."""
        rows: list[Feature] = []
        found: list[NDArray[np.float16]] = []
        for key, sha256 in order:
            vector = self.vectors[sha256]
            if isinstance(vector, Failure):
                rows.append(Feature(key, sha256, None, vector.reason))
            else:
                rows.append(Feature(key, sha256, len(found)))
                found.append(vector)
        self.pending.clear()
        self.vectors = dict(list(self.vectors.items())[-REMEMBERED:])
        return rows, np.stack(found) if found else np.empty((0, 2048), np.float16)
