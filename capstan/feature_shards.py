"""Feature shards and training shards: npy and parquet, in clip-retrieval's layout."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from capstan.errors import DataError
from capstan.files import atomic_write, read_table, sha256_file, write_table
from capstan.records import Extractor, Feature, Reason
from capstan.schemas import FEATURE_SCHEMA
from capstan.shards import VERSION, damaged

FEATURES = "capstan-feature-shard"
EXAMPLES = "capstan-training-shard"


@dataclass(frozen=True)
class FeatureShard:
    """Feature rows and what made them. `npy_sha256` is the hash of the array's file."""

    chunk: str
    extractor: Extractor
    npy_sha256: str
    rows: Sequence[Feature]


@dataclass(frozen=True)
class TrainingShard:
    """Captions joined to the rows of a feature array; a table, for there are millions."""

    chunk: str
    extractor: Extractor
    npy_sha256: str
    cleaning: str  # name of the cleaning profile
    examples: pa.Table  # of EXAMPLE_SCHEMA
    provenance: Mapping[str, Any] = field(default_factory=dict)  # to tell what is unchanged


def write_feature_shard(
    directory: Path,
    chunk: str,
    rows: Sequence[Feature],
    features: NDArray[np.float16],
    extractor: Extractor,
    provenance: Mapping[str, Any],
) -> None:
    """Write `<chunk>.npy` (N x D float16) and, last, `<chunk>.parquet`: then the shard is whole."""
    npy = directory / f"{chunk}.npy"
    with atomic_write(npy) as file:
        np.save(file, features.astype(np.float16, copy=False))
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=FEATURE_SCHEMA)
    manifest = {
        "format": FEATURES,
        "version": VERSION,
        "chunk": chunk,
        "extractor": asdict(extractor),
        "npy_sha256": sha256_file(npy),
        **provenance,
    }
    write_table(directory / f"{chunk}.parquet", table, manifest)


def read_feature_manifest(path: Path) -> dict[str, Any]:
    """What a feature shard's parquet says of itself."""
    return read_table(path, FEATURES, VERSION)[1]


def read_feature_shard(path: Path) -> FeatureShard:
    """Read a feature shard's parquet; `open_features` maps the array beside it."""
    table, manifest = read_table(path, FEATURES, VERSION)
    rows = [
        Feature(row["key"], row["sha256"], row["row"], row["reason"] and Reason(row["reason"]))
        for row in table.to_pylist()
    ]
    extractor = Extractor(**manifest["extractor"])
    return FeatureShard(manifest["chunk"], extractor, manifest["npy_sha256"], rows)


def write_training_shard(directory: Path, shard: TrainingShard) -> None:
    """Write a training shard's `<chunk>.parquet`; its `.npy` is the feature shard's own."""
    manifest = {
        "format": EXAMPLES,
        "version": VERSION,
        "chunk": shard.chunk,
        "extractor": asdict(shard.extractor),
        "npy_sha256": shard.npy_sha256,
        "cleaning": shard.cleaning,
        "provenance": dict(shard.provenance),
    }
    write_table(directory / f"{shard.chunk}.parquet", shard.examples, manifest)


def read_training_shard(path: Path, columns: Sequence[str] | None = None) -> TrainingShard:
    """Read a training shard's parquet, or some columns; `open_features` maps the array beside."""
    table, manifest = read_table(path, EXAMPLES, VERSION, columns)
    return TrainingShard(
        manifest["chunk"],
        Extractor(**manifest["extractor"]),
        manifest["npy_sha256"],
        manifest["cleaning"],
        table,
        manifest["provenance"],
    )


def open_features(path: Path, sha256: str | None) -> NDArray[np.float16]:
    """Memory-map a feature array (N x D float16) after checking its hash, if one is given."""
    if not path.is_file():
        raise DataError(f"{path}: missing; make it again with `capstan featurize`")
    if sha256 is not None and sha256_file(path) != sha256:
        raise damaged(path, "does not match the hash in its parquet")
    empty = path.stat().st_size <= 128  # a header only, which mmap refuses
    features: NDArray[np.float16] = np.load(path, mmap_mode=None if empty else "r")
    return features
