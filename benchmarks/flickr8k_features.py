"""Train and score a captioner on ready-made Flickr8k features, next to the blind baseline.

    python -m benchmarks.flickr8k_features FOLDER [--work DIR] [FLAGS OF capstan train]

FOLDER holds `resnet50_features_train_dev.npz` and `captions_train_dev.tsv`. Both become raw data
and feature shards below --work, which then go through `capstan consolidate` and `capstan train`,
the dev pictures as the validation split.
"""

import argparse
import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capstan.cli import main as capstan
from capstan.feature_shards import write_feature_shard
from capstan.records import Extractor, Feature, row_key

ROWS = 5_000  # of a chunk
EXTRACTOR = Extractor("resnet50-avg", "imagenet", "0" * 64, 224, "flickr8k-ready-made")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/flickr8k-features"))
    parser.add_argument("--cleaning", default="tutorial")
    arguments, flags = parser.parse_known_args()
    work = arguments.work
    if not (work / "rawdata").exists():
        write_shards(arguments.folder, work)
    consolidated, model = work / f"consolidate-{arguments.cleaning}", work / "model"
    consolidate = [
        f"--input={work}/rawdata",
        f"--features={work}/features",
        f"--output={consolidated}",
        f"--cleaning={arguments.cleaning}",
        "--validation-share=0",
        "--test-share=0",
        "--assign=dev.tsv/*=validation",
    ]
    _check(capstan(["consolidate", *consolidate]))
    started = time.monotonic()
    command = ["train", "--input", str(consolidated), "--output", str(model), *flags]
    _check(subprocess.call([sys.executable, "-m", "capstan.cli", *command]))
    print(f"{time.monotonic() - started:.0f} s with start-up and scoring")


def _check(status: int) -> None:
    if status:
        sys.exit(status)


def write_shards(folder: Path, work: Path) -> None:
    """One row per caption, in chunks of train.tsv and dev.tsv, and their feature shards."""
    with np.load(folder / "resnet50_features_train_dev.npz") as file:
        features: NDArray[np.float16] = file["features"]
        index = {str(name): i for i, name in enumerate(file["names"])}
    lines = (folder / "captions_train_dev.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    for split in ("train", "dev"):
        of_split = [(name, caption) for name, there, caption in rows if there == split]
        for start in range(0, len(of_split), ROWS):
            chunk = f"{split}.tsv/{start // ROWS:016d}"
            _write_chunk(work, chunk, of_split[start : start + ROWS], features, index)


def _write_chunk(
    work: Path,
    chunk: str,
    rows: Sequence[tuple[str, str]],
    features: NDArray[np.float16],
    index: dict[str, int],
) -> None:
    path = work / "rawdata" / chunk
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{caption}\thttp://flickr8k.invalid/{name}\n" for name, caption in rows]
    path.write_text("".join(lines), encoding="utf-8")
    place = {name: i for i, name in enumerate(dict.fromkeys(name for name, _ in rows))}
    entries = [
        Feature(row_key(chunk, i), hashlib.sha256(name.encode()).hexdigest(), place[name])
        for i, (name, _) in enumerate(rows)
    ]
    vectors = features[[index[name] for name in place]]
    write_feature_shard(work / "features", chunk, entries, vectors, EXTRACTOR, {})


if __name__ == "__main__":
    main()
