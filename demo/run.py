"""The demo from first picture to last caption; each step is a program of its own."""

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from capstan.demo.pictures import picture_files, write_held_out, write_tsv
from capstan.demo.shapes import scenes
from capstan.errors import CapstanError
from capstan.files import data_files, write_json
from capstan.progress import duration
from capstan.shards import STATS_SUFFIX, read_image_stats
from capstan.testing.web import Web

logger = logging.getLogger(__name__)

IMAGE_SIZE = 48  # pixels; the network's input
PORT = 8397  # the same each time, for URLs are data: other URLs would mean other work
PROMISED = 0.8  # share of held-out captions exactly right
SHORT_FORM = "This is the short form: too little training for right captions."


@dataclass(frozen=True)
class DemoSize:
    """How much of everything."""

    name: str
    pictures: int
    held_out: int
    chunk: int  # rows
    seen: int  # pictures that the backbone is pre-trained on
    epochs: int
    keeps_promise: bool  # whether captions must come out right


FULL = DemoSize("full", 3000, 300, chunk=1500, seen=8000, epochs=6, keeps_promise=True)
SHORT = DemoSize("short", 200, 20, chunk=100, seen=320, epochs=2, keeps_promise=False)


def run_demo(folder: Path, size: DemoSize, pipelines: Path) -> None:
    """Run all steps below `folder`; raises CapstanError when one fails or a promise is broken."""
    started = time.monotonic()
    drawn = scenes(size.pictures + size.held_out, seed=1)
    shown, held_out = drawn[: size.pictures], drawn[size.pictures :]
    weights = pretrain(folder, size)
    write_held_out(folder / "inpredict" / "held-out", folder / "truth.tsv", held_out)
    write_notes(folder, size)
    files = picture_files(shown)
    with serve(files) as web:
        logger.info("serving %d pictures at %s", len(files), web.address)
        write_tsv(folder / "shapes.tsv", shown, files, web)
        capstan(
            "split", folder / "shapes.tsv", "--rows", size.chunk, "--output", folder / "rawdata"
        )
        run_pipelines(folder, size, pipelines, weights)
    conclude(folder, size)
    logger.info("done in %s; open %s", duration(time.monotonic() - started), folder / "report.html")


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Web]:
    """Serve at the demo's own port, or where there is room."""
    with ExitStack() as stack:
        try:
            web = stack.enter_context(Web(files, slow=1.0, port=PORT))
        except OSError:
            logger.warning("port %d is taken: other URLs, so everything is done again", PORT)
            web = stack.enter_context(Web(files, slow=1.0))
        yield web


def pretrain(folder: Path, size: DemoSize) -> Path:
    """Pre-train the backbone, unless an earlier run did."""
    weights = folder / f"backbone-{size.name}-{IMAGE_SIZE}px-{size.seen}.weights.h5"
    if weights.is_file():
        logger.info("backbone: unchanged")
        return weights
    program(
        "capstan.demo.pretrain",
        "--output",
        weights,
        "--pictures",
        size.seen,
        "--image-size",
        IMAGE_SIZE,
    )
    return weights


def run_pipelines(folder: Path, size: DemoSize, pipelines: Path, weights: Path) -> None:
    """All five pipelines through the dry run, with the demo's settings."""
    settings = [
        "images.allow-private",
        "images.per-host=64",
        f"features.weights={weights}",
        f"features.image-size={IMAGE_SIZE}",
        "consolidate.test-share=0.1",
        f"model.epochs={size.epochs}",
        "model.batch-size=64",
        "model.min-count=1",
        f"predict.weights={weights}",
    ]
    capstan(
        "run",
        *("--pipelines", pipelines, "--output", folder),
        *("--repo", f"rawdata={folder / 'rawdata'}", "--repo", f"inpredict={folder / 'inpredict'}"),
        *(word for setting in settings for word in ("--set", setting)),
    )


def capstan(*words: object) -> None:
    """Run a `capstan` command; its output goes where ours goes."""
    program("capstan.cli", *words)


def program(module: str, *words: object) -> None:
    """Run a module as a process; raises CapstanError when it fails."""
    done = subprocess.run([sys.executable, "-m", module, *map(str, words)], check=False)
    if done.returncode:
        name = " ".join(["capstan", str(words[0])] if module == "capstan.cli" else [module])
        raise CapstanError(f"{name} failed with status {done.returncode}; see above")


def write_notes(folder: Path, size: DemoSize) -> None:
    """What the report says at its top."""
    notes = [
        f"{size.pictures:,} generated pictures, served by a local web server that also makes "
        "faults: nothing came from the internet.",
        "What makes the captions right: no published weights can be had offline, and on ResNet50 "
        "with random weights about 70 % of the captions come out right. So the backbone was first "
        f"taught to name shapes on {size.seen:,} other generated pictures of {IMAGE_SIZE} pixels, "
        "none of them held out (of its 16 blocks 4 are trained, the others pass on what they get). "
        "The captioner on top is trained as always, on standardised features.",
    ]
    if not size.keeps_promise:
        notes.append(SHORT_FORM)
    write_json(folder / "notes.json", {"title": "The Capstan demo", "notes": notes})


def conclude(folder: Path, size: DemoSize) -> None:
    """Check what the demo promises and print it."""
    stats = [
        read_image_stats(path) for path in data_files(folder / "repos" / "images", STATS_SUFFIX)
    ]
    rows, images = (sum(entry[name] for entry in stats) for name in ("rows", "images"))
    failures = sum(sum(entry["failures"].values()) for entry in stats)
    logger.info("rows %d = images %d + failures %d", rows, images, failures)
    if rows != size.pictures or rows != images + failures:
        raise CapstanError(f"{size.pictures} rows went in, {images} + {failures} came out")
    metrics = json.loads((folder / "repos" / "model" / "metrics.json").read_bytes())
    logger.info(
        "test split, %d pictures: captions exactly right %.1f %%; with shuffled features %.1f %%; "
        "blind %.1f %%",
        metrics["pictures"],
        *(100 * metrics[name]["exact"] for name in ("model", "shuffled", "blind")),
    )
    right = share_right(folder)
    logger.info("%d new pictures: captions exactly right %.1f %%", size.held_out, 100 * right)
    if not size.keeps_promise:
        logger.info(SHORT_FORM)
    if size.keeps_promise and min(right, metrics["model"]["exact"]) < PROMISED:
        raise CapstanError(f"fewer than {PROMISED:.0%} of the captions are right; that is a bug")


def share_right(folder: Path) -> float:
    """Share of the held-out pictures whose predicted caption is the true one, word for word."""
    truth = [line.split("\t") for line in (folder / "truth.tsv").read_text().splitlines()]
    predicted = folder / "repos" / "predict"
    right = [
        words((predicted / f"{name}.txt").read_text()) == words(caption) for name, caption in truth
    ]
    return sum(right) / len(right)


def words(caption: str) -> Sequence[str]:
    """The words of a caption, without case and punctuation."""
    return re.findall(r"\w+", caption.lower())
