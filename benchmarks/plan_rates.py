"""The rates of this machine, as `capstan plan --rates FILE` takes them, from short runs.

A run's processor time is what its first rows take plus so much a row and so much a byte; two sizes
of pictures tell these apart.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.featurize import made_up, write_shards
from benchmarks.ingest_rounds import disk_rate
from benchmarks.ingest_tools import write_rows
from benchmarks.nginx import Behaviour, Nginx
from benchmarks.plan_web import even, served
from benchmarks.processes import ProcessRun, processor_seconds_of, run
from capstan.testing.photolike import photo

PHOTOS = 32
SMALL, LARGE = (400, 300), (800, 600)  # pixels: photos of about 35 and 140 kB
START_ROWS, KEPT_ROWS, DECODED_ROWS, SIMULATED_ROWS = 20, 6_000, 1_200, 4_000
FEW_PICTURES, MORE_PICTURES = 32, 160
KEEP = ("--resize-mode", "no", "--check", "header")
VERIFY = ("--resize-mode", "no")
LIMIT = 600.0  # seconds for one run
Rates = dict[str, float]


@dataclass(frozen=True)
class Took:
    """What a run took."""

    ran: ProcessRun
    rows: int
    bytes: int  # of a picture
    serving: float  # processor seconds of the web

    def beyond(self, start: float) -> float:
        """Processor seconds a row, without those that a run takes in any case."""
        return (self.ran.processor - start) / self.rows


@dataclass
class RatesBench:
    """Runs of the command in a folder."""

    folder: Path
    runs: int = 0

    def ingest(self, urls: Sequence[str], flags: Sequence[str], web: int, size: int = 0) -> Took:
        """Ingest addresses of a web with this process number."""
        folder = self._folder()
        rows = write_rows(folder, urls, max(1, -(-len(urls) // 4)))
        words = ["ingest", "--allow-private", "--input", str(rows.chunks), *flags]
        before = processor_seconds_of(web)
        ran = self._run([*words, "--output", str(folder / "images")], folder)
        return Took(ran, len(urls), size, processor_seconds_of(web) - before)

    def featurize(self, pictures: int) -> float:
        """Seconds of featurizing so many pictures in two shards."""
        folder = self._folder()
        write_shards(folder / "images", made_up(), 2, -(-pictures // 2))
        words = ["featurize", "--weights", "random:7", "--input", str(folder / "images")]
        return self._run([*words, "--output", str(folder / "features")], folder).seconds

    def _folder(self) -> Path:
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        folder.mkdir(parents=True)
        return folder

    def _run(self, words: Sequence[str], folder: Path) -> ProcessRun:
        os.sync()
        words = [sys.executable, "-m", "capstan.cli", *words]
        return run(words, os.environ, folder / "log", LIMIT)


@dataclass(frozen=True)
class Photos:
    """Photos of one size that nginx serves."""

    address: str
    name: str
    bytes: int  # mean
    pid: int  # of nginx

    def urls(self, count: int) -> list[str]:
        """So many addresses of them."""
        return [f"{self.address}/{self.name}-{row % PHOTOS}.jpg?row={row}" for row in range(count)]


@contextmanager
def photos_of(folder: Path, sizes: Sequence[tuple[int, int]]) -> Iterator[list[Photos]]:
    """Photos of these widths and heights, served while the `with` block runs."""
    root = folder / "root"
    root.mkdir(parents=True)
    means = []
    for width, height in sizes:
        photos = [photo(seed, width, height) for seed in range(PHOTOS)]
        means.append(sum(map(len, photos)) // PHOTOS)
        for number, data in enumerate(photos):
            (root / f"{width}-{number}.jpg").write_bytes(data)
    with Nginx(root, folder / "nginx", Behaviour()) as nginx:
        pid = int((folder / "nginx" / "nginx.pid").read_text())
        yield [
            Photos(nginx.address, str(width), mean, pid)
            for (width, _), mean in zip(sizes, means, strict=True)
        ]


def calibrate(bench: RatesBench) -> Rates:
    """All that is measured."""
    rates = {"connecting": 0.001, "disk": disk_rate(bench.folder, 500_000_000)}
    with photos_of(bench.folder / "photos", (SMALL, LARGE)) as photos:
        rates |= _ingest_rates(bench, photos)
    return rates | _featurize_rates(bench)


def _ingest_rates(bench: RatesBench, photos: Sequence[Photos]) -> Rates:
    def runs(count: int, flags: Sequence[str]) -> list[Took]:
        return [bench.ingest(each.urls(count), flags, each.pid, each.bytes) for each in photos]

    start = runs(START_ROWS, KEEP)[0].ran
    kept = runs(KEPT_ROWS, KEEP)
    row, byte = line(kept, [each.beyond(start.processor) for each in kept])
    rates = {"ingest_start": start.seconds, "ingest_row": row, "ingest_byte": byte}
    serving = [each.serving / each.rows for each in kept]
    rates["serving_row"], rates["serving_byte"] = line(kept, serving)
    for name, flags in (("verify", VERIFY), ("resize", ())):
        decoded = runs(DECODED_ROWS, flags)
        more = [each.beyond(start.processor) - row - byte * each.bytes for each in decoded]
        rates[f"{name}_picture"], rates[f"{name}_byte"] = line(decoded, more)
    return rates


def simulated_web_rates(bench: RatesBench) -> Rates:
    """What the simulated web takes of this machine for a row."""
    log = bench.folder / "calibration.parquet"
    with served(even(20, 0.0), SIMULATED_ROWS, log) as (web, urls):
        took = bench.ingest(urls, KEEP, web.pid)
    return {"serving_row": took.serving / took.rows, "serving_byte": 0.0}


def _featurize_rates(bench: RatesBench) -> Rates:
    few, more = (bench.featurize(count) for count in (FEW_PICTURES, MORE_PICTURES))
    rate = (MORE_PICTURES - FEW_PICTURES) / max(more - few, 1e-3)
    cores = len(os.sched_getaffinity(0))
    return {"featurize_start": max(0.0, few - FEW_PICTURES / rate), "featurize_core": rate / cores}


def line(took: Sequence[Took], values: Sequence[float]) -> tuple[float, float]:
    """What there is at no bytes, at least nothing, and what each byte adds."""
    small, large = took
    slope = max(0.0, (values[1] - values[0]) / (large.bytes - small.bytes))
    return max(0.0, values[0] - slope * small.bytes), slope
