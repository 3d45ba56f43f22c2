"""Real photos and captions through the whole road, from a local web server.

    python -m benchmarks.photos FLICKR8K_FOLDER [--output runs/photos] [--weights random:7]

The folder holds `captions_train_dev.tsv` (`image<TAB>split<TAB>caption`) and `images/`. Every
caption of a photo that is there becomes a row; the dev photos become the validation split. Prints
that every row is accounted for, and BLEU on the dev photos beside the blind baseline.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from capstan.deploy.specs.folder import SHIPPED
from capstan.feature_shards import read_feature_shard
from capstan.files import data_files
from capstan.shards import STATS_SUFFIX, read_image_stats
from capstan.testing.web import Web

PORT = 8398  # the same each time, so that a second run finds its work done


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/photos"))
    parser.add_argument("--weights", default="random:7")
    parser.add_argument("--image-size", default="224")
    parser.add_argument("--pipelines", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    started = time.monotonic()
    with Web(arguments.folder / "images", port=PORT) as web:
        counts = write_tsvs(arguments.folder, arguments.output, web)
        print(f"rows: {dict(counts)}")
        run(arguments)
    print_result(arguments.output, counts.total())
    print(f"{time.monotonic() - started:.0f} s")


def write_tsvs(folder: Path, output: Path, web: Web) -> Counter[str]:
    """Write `train.tsv` and `dev.tsv` below `output`; return their rows."""
    rows: dict[str, list[str]] = {"train": [], "dev": []}
    for line in (folder / "captions_train_dev.tsv").read_text().splitlines():
        name, split, caption = line.split("\t")
        if (folder / "images" / name).is_file():
            rows[split].append(f"{caption}\t{web.url(name)}\n")
    output.mkdir(parents=True, exist_ok=True)
    for split, lines in rows.items():
        (output / f"{split}.tsv").write_text("".join(lines))
    return Counter({split: len(lines) for split, lines in rows.items()})


def run(arguments: argparse.Namespace) -> None:
    """Split both TSVs and run the pipelines up to the model."""
    output: Path = arguments.output
    rawdata = output / "rawdata"
    for name in ("train", "dev"):
        capstan("split", f"{output / name}.tsv", "--rows", "2500", "--output", str(rawdata))
    (output / "inpredict").mkdir(exist_ok=True)
    settings = [
        "images.allow-private",
        f"features.weights={arguments.weights}",
        f"features.image-size={arguments.image_size}",
        "consolidate.assign=dev.tsv/*=validation",
        "consolidate.validation-share=0",
        "consolidate.test-share=0",
    ]
    capstan(
        "run",
        *("--pipelines", str(arguments.pipelines), "--output", str(output)),
        *("--repo", f"rawdata={rawdata}", "--repo", f"inpredict={output / 'inpredict'}"),
        *(word for setting in settings for word in ("--set", setting)),
    )


def capstan(*words: str) -> None:
    """Run a `capstan` command; raises CalledProcessError when it fails."""
    subprocess.run([sys.executable, "-m", "capstan.cli", *words], check=True)


def print_result(output: Path, rows: int) -> None:
    """Print the accounts and the scores; raises AssertionError where the accounts are wrong."""
    repos = output / "repos"
    stats = [read_image_stats(path) for path in data_files(repos / "images", STATS_SUFFIX)]
    images = sum(entry["images"] for entry in stats)
    failures = sum(sum(entry["failures"].values()) for entry in stats)
    features = [
        row
        for path in data_files(repos / "features", ".parquet")
        for row in read_feature_shard(path).rows
    ]
    print(f"rows {rows} = images {images} + failures {failures}; features {len(features)}")
    assert rows == images + failures
    assert images == sum(row.row is not None for row in features)
    metrics = json.loads((repos / "model" / "metrics.json").read_bytes())
    print(f"{metrics['split']}: {metrics['pictures']} photos, {metrics['captions']} captions")
    for name in ("model", "shuffled", "blind"):
        scores = " / ".join(f"{score:.3f}" for score in metrics[name]["bleu"])
        print(f"BLEU-1..4 {name:<8} {scores}")


if __name__ == "__main__":
    main()
