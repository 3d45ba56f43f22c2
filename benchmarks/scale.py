"""Training from as many captions as Conceptual Captions has: memory, time to start, rate.

    python -m benchmarks.scale --rows 3300000 --work DIR [--captions N] [--cold]

Writes made-up raw data and feature shards below --work (4.7 kB a row: features drawn from a pool,
captions of Zipf's words and people's lengths) and consolidates them, unless they are there already.
Then times the input alone, and `capstan train --profile small` for one epoch of --captions in a
process of its own whose memory is sampled. Further flags go to `capstan train`.

Anonymous memory is what a run needs; mapped memory is files that the system keeps while there is
room. --cold drops the features from memory before each measurement.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from capstan.cli import main as capstan
from capstan.feature_shards import write_feature_shard
from capstan.files import data_files
from capstan.progress import Progress
from capstan.records import Extractor, Feature, row_key
from capstan.train.dataset import Examples, epoch_order, load_corpus
from capstan.train.settings import TrainSettings
from capstan.train.vocabulary import build_vocabulary

SIZE = 2048  # of a feature vector
CHUNK = 10_000  # rows
BYTES = 4_700  # a row, all files together
POOL = 4_096  # feature vectors that rows draw from
WORDS = 40_000  # Conceptual Captions has 40,995
JUDGED = 500  # captions in each of the splits that are not for training
BATCHES = (128, 1024)  # captions
SECONDS = 3.0  # to time batches for
EXTRACTOR = Extractor("resnet50-avg", "made-up", "0" * 64, 224, "none")


def main() -> None:
    """Write, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--work", type=Path, required=True, help="a folder on a roomy disk")
    parser.add_argument("--captions", type=int, default=50_000, help="to train on")
    parser.add_argument("--cold", action="store_true", help="drop features from memory first")
    arguments, flags = parser.parse_known_args()
    folder = arguments.work / f"{arguments.rows}-rows"
    if not (folder / "whole").exists():
        check_room(folder, arguments.rows * BYTES)
        with timed("everything written"):
            write(folder, arguments.rows)
        (folder / "whole").touch()
    shards = folder / "consolidated"
    print_input(shards, arguments.cold)
    if arguments.cold:
        drop(data_files(shards, ".npy"))
    print_training(shards, folder / "model", arguments.captions, flags)


# Made-up shards


def check_room(directory: Path, needed: int) -> None:
    """Say what will be written, and stop where it does not fit."""
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    print(f"{directory}: {needed / 1e9:.1f} GB will be written, {free / 1e9:.1f} GB are free")
    if free < needed:
        sys.exit(f"{directory}: too little room; give another --work or fewer --rows")


def write(folder: Path, rows: int) -> None:
    """Raw data and feature shards of so many rows, consolidated."""
    random = np.random.default_rng(0)
    pool = random.gamma(0.5, 0.8, (POOL, SIZE)).astype(np.float16)
    words = make_words(random)
    with Progress("write", "rows", rows) as progress:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            lines = [
                f"{caption}\thttp://scale.invalid/{start + i}\n"
                for i, caption in enumerate(make_captions(words, count, random))
            ]
            features = pool[random.integers(POOL, size=count)]
            write_chunk(folder, f"scale.tsv/{start:016d}", lines, features)
            progress.add(count)
    share = min(0.1, JUDGED / rows)
    flags = [
        f"--input={folder / 'rawdata'}",
        f"--features={folder / 'features'}",
        f"--output={folder / 'consolidated'}",
        f"--validation-share={share}",
        f"--test-share={share}",
    ]
    if status := capstan(["consolidate", *flags]):
        sys.exit(status)


def make_words(random: np.random.Generator) -> NDArray[np.str_]:
    """Different words of two to four syllables."""
    syllables = np.array([a + b for a in "bdfgklmnprst" for b in "aeiou"])
    parts = syllables[random.integers(len(syllables), size=(2 * WORDS, 4))]
    parts[np.arange(4) >= random.integers(2, 5, len(parts))[:, None]] = ""
    words = dict.fromkeys("".join(row) for row in parts)
    return np.array(list(words)[:WORDS])


def make_captions(
    words: NDArray[np.str_], count: int, random: np.random.Generator
) -> Iterator[str]:
    """Captions of 10.4 words on average, as in Conceptual Captions, the first words commonest."""
    shares = np.cumsum(1 / np.arange(5, len(words) + 5))
    lengths = 4 + random.negative_binomial(3, 0.32, count)
    numbers = np.searchsorted(shares, random.random(lengths.sum()) * shares[-1])
    for caption in np.split(words[numbers], np.cumsum(lengths)[:-1]):
        yield " ".join(caption)


def write_chunk(
    folder: Path, chunk: str, lines: Sequence[str], features: NDArray[np.float16]
) -> None:
    """A chunk of raw data and its feature shard; every row is a picture of its own."""
    path = folder / "rawdata" / chunk
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    keys = [row_key(chunk, i) for i in range(len(lines))]
    entries = [
        Feature(key, hashlib.sha256(key.encode()).hexdigest(), i) for i, key in enumerate(keys)
    ]
    write_feature_shard(folder / "features", chunk, entries, features, EXTRACTOR, {})


def drop(paths: Sequence[Path]) -> None:
    """Have the system forget what it keeps of some files, so that they are read from disk again."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


# The input alone


def print_input(shards: Path, cold: bool) -> None:
    """Time each part of the input in this process, without TensorFlow."""
    with timed("load_corpus"):
        corpus = load_corpus(shards)
        training = corpus.select("train")
    with timed("vocabulary"):
        vocabulary = build_vocabulary(training.pieces("cleaned"), 4, 10_000)
    with timed("captions to numbers"):
        examples = Examples(training, vocabulary, TrainSettings().max_length)
    for size in BATCHES:
        with timed(f"order of an epoch, batches of {size}"):
            order = epoch_order(examples.lengths, size, 0, 0)
        if cold:
            drop(data_files(shards, ".npy"))
        print_batches(size, examples, order)


def print_batches(size: int, examples: Examples, order: list[NDArray[np.int64]]) -> None:
    """Time batches made ready, by the clock and by processor time, which others disturb less."""
    started, busy, captions = time.monotonic(), time.process_time(), 0
    for batch in examples.batches(order):
        captions += len(batch.words)
        if time.monotonic() - started > SECONDS:
            break
    rates = captions / (time.monotonic() - started), captions / (time.process_time() - busy)
    print(
        f"batches of {size} made ready: {rates[0]:,.0f} captions/s, "
        f"{rates[1]:,.0f} a second of processor"
    )


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long a block took and this process's memory after it."""
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    print(f"{what}: {seconds:.1f} s, then {memory(os.getpid())}", flush=True)


# Memory


@dataclass(frozen=True)
class Memory:
    """Resident memory in bytes."""

    anonymous: int = 0
    mapped: int = 0

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.anonymous + other.anonymous, self.mapped + other.mapped)

    def most(self, other: "Memory") -> "Memory":
        """The larger of each."""
        return Memory(max(self.anonymous, other.anonymous), max(self.mapped, other.mapped))

    def __str__(self) -> str:
        return f"{self.anonymous / 1e9:.2f} GB anonymous and {self.mapped / 1e9:.2f} GB mapped"


def memory(process: int) -> Memory:
    """What a process and its children have resident now; nothing once they are gone."""
    folder = Path(f"/proc/{process}")
    try:
        lines = (line.split() for line in (folder / "status").read_text().splitlines())
        sizes = {line[0]: int(line[1]) * 1024 for line in lines if line[-1] == "kB"}
        children = (folder / f"task/{process}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return Memory()
    own = Memory(sizes.get("RssAnon:", 0), sizes.get("RssFile:", 0))
    return sum((memory(int(child)) for child in children), own)


class Peak:
    """The most memory a process and its children have had while the block ran."""

    def __init__(self, process: int) -> None:
        self.memory = Memory()
        self._process, self._stopped = process, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            self.memory = self.memory.most(memory(self._process))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


# Training


def print_training(shards: Path, output: Path, captions: int, flags: Sequence[str]) -> None:
    """Run `capstan train` and print what it needed."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "capstan.cli", "train", "--profile=small", "--epochs=1"]
    command += [f"--input={shards}", f"--output={output}", f"--epoch-captions={captions}"]
    command += ["--log-format=json", "--progress-interval=0.5", *flags]
    nowhere, started = subprocess.DEVNULL, time.time()
    with (
        subprocess.Popen(command, stdout=nowhere, stderr=subprocess.PIPE, text=True) as process,
        Peak(process.pid) as peak,
    ):
        first = first_steps(process.stderr or [], started)
    if process.returncode:
        sys.exit(process.returncode)
    seconds = time.time() - started
    curve = json.loads((output / "curves.jsonl").read_text().splitlines()[0])
    print(f"first steps after {first:.1f} s, all over after {seconds:.1f} s")
    print(f"{curve['captions_per_second']:,.0f} captions/s for {curve['seconds']:.0f} s")
    print(f"waited for batches {curve['waited']:.1%} of that time")
    print(f"at most {peak.memory} in all processes")


def first_steps(log: Iterable[str], started: float) -> float:
    """Seconds until the first captions were learned from, by the log of a run.

    Repeats the log, but for its progress.
    """
    first = 0.0
    for line in log:
        try:
            entry = json.loads(line)
        except ValueError:  # a crash or a library
            sys.stderr.write(line)
            continue
        progress, seconds = entry.get("progress"), entry["time"] - started
        if progress is None:
            print(f"{seconds:7.1f} s  {entry['message']}", flush=True)
        elif progress["label"] == "train" and progress["done"]:
            first = first or seconds
    return first


if __name__ == "__main__":
    main()
