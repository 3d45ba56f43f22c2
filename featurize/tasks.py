"""Which shards are to do: those without features, or with features of other make."""

import logging
from dataclasses import dataclass
from pathlib import Path

from capstan.errors import DataError, SettingError
from capstan.feature_shards import read_feature_manifest
from capstan.featurize.config import Config, network_identity
from capstan.files import data_files, input_directory, output_directory, sha256_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTask:
    """An image shard and what its features are known by."""

    tar: Path
    chunk: str
    provenance: dict[str, str | int]


def to_do(config: Config) -> list[ShardTask]:
    """The shards that must be made; says how many there are and how many need nothing."""
    tasks = _tasks(config)
    todo = [task for task in tasks if not _is_done(config.output, task)]
    logger.info("%d shards: %d unchanged, %d to do", len(tasks), len(tasks) - len(todo), len(todo))
    return todo


def _tasks(config: Config) -> list[ShardTask]:
    tars = data_files(input_directory(config.input), ".tar")
    if not tars:
        raise SettingError(f"{config.input}: holds no image shards (.tar); check --input")
    output_directory(config.output)
    common = network_identity(config.weights, config.image_size, config.precision, config.runtime)
    return [
        ShardTask(
            tar,
            tar.relative_to(config.input).with_suffix("").as_posix(),
            {"source_sha256": sha256_file(tar), **common},
        )
        for tar in tars
    ]


def _is_done(output: Path, task: ShardTask) -> bool:
    parquet = output / f"{task.chunk}.parquet"
    if not (parquet.is_file() and parquet.with_suffix(".npy").is_file()):
        return False
    try:
        manifest = read_feature_manifest(parquet)
    except DataError as error:
        logger.warning("making it again: %s", error)
        return False
    return task.provenance.items() <= manifest.items()
