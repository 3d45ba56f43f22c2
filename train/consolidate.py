"""Join captions to features: training shards, one for each chunk of the raw data.

For every chunk below --input (lines of caption<TAB>url) and its feature shard below --features, a
row of the training shard is a picture with features and a caption that is not empty once cleaned.
The feature vectors themselves are not copied and not even read: <chunk>.npy becomes a symbolic
link to the one below --vectors.

A picture's split depends on its own bytes only, so one picture under several captions never lies
in two splits. --assign 'dev.tsv/*=validation' puts whole chunks in one split instead.
"""

import argparse
import fnmatch
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from capstan.errors import DataError, SettingError
from capstan.feature_shards import (
    TrainingShard,
    read_feature_shard,
    read_training_shard,
    write_training_shard,
)
from capstan.files import data_files, input_directory, output_directory, sha256_file
from capstan.progress import Progress
from capstan.records import Feature, divide_line, row_key
from capstan.schemas import EXAMPLE_SCHEMA
from capstan.train.cleaning import PROFILES

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ConsolidateSettings:
    """How captions are cleaned and pictures divided."""

    cleaning: str = "standard"
    validation_share: float = 0.05
    test_share: float = 0.05
    assignments: tuple[tuple[str, str], ...] = ()  # chunk pattern, split; the first match counts

    def __post_init__(self) -> None:
        shares = (self.validation_share, self.test_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise SettingError(
                f"--validation-share {shares[0]} and --test-share {shares[1]}: give shares from 0 "
                "that leave some for training"
            )

    def assigned(self, chunk: str) -> str | None:
        """The split a chunk is put in as a whole, if any."""
        matches = (split for glob, split in self.assignments if fnmatch.fnmatchcase(chunk, glob))
        return next(matches, None)

    def split(self, sha256: str) -> str:
        """The split of a picture, from nothing but the hex SHA-256 of its bytes."""
        position = int(sha256[:13], 16) / 16**13
        if position < self.validation_share:
            return "validation"
        return "test" if position < self.validation_share + self.test_share else "train"


@dataclass(frozen=True)
class ConsolidateFolders:
    """Where a run reads and writes."""

    input: Path
    features: Path
    vectors: Path
    output: Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan consolidate`."""
    defaults = ConsolidateSettings()
    parser.add_argument("--input", type=Path, required=True, help="raw data: TSV chunks")
    parser.add_argument("--features", type=Path, required=True, help="feature shards")
    parser.add_argument(
        "--vectors", type=Path, help="where the features' .npy lie, if elsewhere than --features"
    )
    parser.add_argument("--output", type=Path, required=True, help="where training shards go")
    parser.add_argument(
        "--cleaning",
        choices=sorted(PROFILES),
        default=defaults.cleaning,
        help="how captions become words",
    )
    for split in ("validation", "test"):
        parser.add_argument(
            f"--{split}-share",
            type=float,
            default=getattr(defaults, f"{split}_share"),
            metavar="SHARE",
            help=f"share of the pictures for {split}",
        )
    parser.add_argument(
        "--assign",
        type=_assignment,
        nargs="+",
        action="extend",
        default=[],
        metavar="GLOB=SPLIT",
        help=f"put chunks that match into one split ({', '.join(SPLITS)})",
    )


def _assignment(text: str) -> tuple[str, str]:
    glob, _, split = text.rpartition("=")
    if not glob or split not in SPLITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not GLOB=SPLIT; SPLIT: {', '.join(SPLITS)}")
    return glob, split


def run(arguments: argparse.Namespace) -> None:
    """Consolidate every chunk below --input."""
    settings = ConsolidateSettings(
        arguments.cleaning,
        arguments.validation_share,
        arguments.test_share,
        tuple(arguments.assign),
    )
    features = input_directory(arguments.features, "--features")
    folders = ConsolidateFolders(
        input_directory(arguments.input),
        features,
        input_directory(arguments.vectors or features, "--vectors"),
        output_directory(arguments.output),
    )
    consolidate(folders, settings)


def consolidate(folders: ConsolidateFolders, settings: ConsolidateSettings) -> Counter[str]:
    """Write a training shard for each chunk that has changed; return the counts reported.

    Counts: `joined`, `without features`, `empty after cleaning`, and each split's examples; also
    `shards written` and `shards unchanged`.
    """
    chunks = [path.relative_to(folders.input).as_posix() for path in data_files(folders.input)]
    _check_chunks(folders, chunks)
    counts: Counter[str] = Counter()
    with Progress("consolidate", "rows") as progress:
        for chunk in chunks:
            added = _consolidate_chunk(folders, chunk, settings)
            progress.add(added["joined"])
            for problem in ("without features", "empty after cleaning"):
                if added[problem]:
                    progress.add(added[problem], problem)
            counts.update(added)
    logger.info("%s", ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    return counts


def _check_chunks(folders: ConsolidateFolders, chunks: Sequence[str]) -> None:
    if not chunks:
        raise SettingError(f"{folders.input}: no chunk there; make some with `capstan split`")
    for folder, suffix in ((folders.features, ".parquet"), (folders.vectors, ".npy")):
        missing = [chunk for chunk in chunks if not (folder / f"{chunk}{suffix}").is_file()]
        if missing:
            raise DataError(
                f"{folder / missing[0]}{suffix}: missing ({len(missing)} of {len(chunks)} chunks "
                "have none); make it with `capstan featurize`"
            )


def _consolidate_chunk(
    folders: ConsolidateFolders, chunk: str, settings: ConsolidateSettings
) -> Counter[str]:
    source, features = folders.input / chunk, folders.features / f"{chunk}.parquet"
    provenance = {
        "chunk_sha256": sha256_file(source),
        "features_sha256": sha256_file(features),
        "cleaning": settings.cleaning,
        "split": settings.assigned(chunk)
        or {"validation": settings.validation_share, "test": settings.test_share},
    }
    # Resolved, so that the link outlives a datum's own view of its inputs. Pachyderm recognises
    # it as its own file and copies that server-side.
    _link(folders.output / f"{chunk}.npy", (folders.vectors / f"{chunk}.npy").resolve())
    if _is_unchanged(folders.output / f"{chunk}.parquet", provenance):
        return Counter({"shards unchanged": 1})
    shard = read_feature_shard(features)
    rows = {row.key: row for row in shard.rows if row.row is not None}
    examples, counts = _join(chunk, read_captions(source), rows, settings)
    write_training_shard(
        folders.output,
        TrainingShard(
            chunk, shard.extractor, shard.npy_sha256, settings.cleaning, examples, provenance
        ),
    )
    return counts


def _is_unchanged(path: Path, provenance: dict[str, Any]) -> bool:
    try:
        return path.is_file() and read_training_shard(path).provenance == provenance
    except DataError as error:
        logger.info("%s; it is made again", error)
        return False


def read_captions(path: Path) -> list[str]:
    """The caption of every line of a chunk, in order.

    Lines without a tab or not in UTF-8 have no picture, so no features, and never join.
    """
    lines = path.read_bytes().split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [divide_line(line)[0].decode(errors="replace") for line in lines]


def _join(
    chunk: str, captions: Sequence[str], features: dict[str, Feature], settings: ConsolidateSettings
) -> tuple[pa.Table, Counter[str]]:
    clean, assigned = PROFILES[settings.cleaning], settings.assigned(chunk)
    examples: list[dict[str, Any]] = []
    counts = Counter({"joined": 0, "without features": 0, "empty after cleaning": 0})
    for index, caption in enumerate(captions):
        feature = features.get(row_key(chunk, index))
        if feature is None:
            counts["without features"] += 1
        elif not (cleaned := clean(caption)):
            counts["empty after cleaning"] += 1
        else:
            split = assigned or settings.split(feature.sha256)
            row = asdict(feature) | {"caption": caption, "cleaned": cleaned, "split": split}
            examples.append({name: row[name] for name in EXAMPLE_SCHEMA.names})
            counts.update(("joined", split))
    counts["shards written"] = 1
    return pa.Table.from_pylist(examples, schema=EXAMPLE_SCHEMA), counts


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(path)
