"""The two tools that are compared, each as whole processes on the same rows."""

import json
import os
import subprocess
import sys
import time
import venv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.processes import ProcessRun, run
from capstan.errors import CapstanError, SettingError
from capstan.shards import STATS_SUFFIX

PEER = Path(".venv-img2dataset")
# Its own ranges admit versions that it cannot run with one day; these floors are known to work.
PEER_PACKAGES = (
    "img2dataset==1.47.*",
    "albumentations>=1.4.24,<2",
    "opencv-python-headless>=4.10,<5",
    "pandas>=2.2,<3",
    "pyarrow>=18",
    "wandb>=0.19",
)


@dataclass(frozen=True)
class TaskRows:
    """The same rows as each tool reads them."""

    count: int
    chunks: Path  # folder of TSV chunks
    table: Path  # parquet
    shard: int  # rows in each shard, for both


@dataclass(frozen=True)
class ToolTask:
    """What both tools are to do."""

    rows: TaskRows
    resize: bool = False
    environment: Mapping[str, str] | None = None
    timeout: int = 30  # seconds for an attempt
    limit: float = 1_800.0  # seconds for the whole


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    ran: ProcessRun
    images: int
    failures: Counter[str]
    bytes: int  # of all files written
    end: float  # when, in seconds since the epoch

    @property
    def rate(self) -> float:
        """Images per second, from the start of the first process to the end of the last."""
        return self.images / self.ran.seconds


@dataclass(frozen=True)
class Capstan:
    """`capstan ingest`."""

    per_host: int = 10_000
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(["capstan", *self.flags])

    def run(self, task: ToolTask, output: Path) -> Finished:
        """Do the task into a fresh folder."""
        log = output.with_suffix(".log")
        ran = run(self.words(task, output), _environment(task), log, task.limit)
        return capstan_finished(ran, output)

    def words(self, task: ToolTask, output: Path) -> list[str]:
        """The command that does the task."""
        words = [sys.executable, "-m", "capstan.cli", "ingest", "--allow-private"]
        words += ["--input", str(task.rows.chunks), "--output", str(output)]
        words += ["--per-host", str(self.per_host), "--timeout", str(task.timeout)]
        words += [] if task.resize else ["--resize-mode", "no", *header_check()]
        return [*words, *self.flags]


@cache
def header_check() -> list[str]:
    """The flag that leaves pixels undecoded, as the peer does when it keeps originals."""
    words = [sys.executable, "-m", "capstan.cli", "ingest", "--help"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return ["--check", "header"] if "--check" in said else []


@dataclass(frozen=True)
class Img2dataset:
    """The peer: processes with so many threads each."""

    python: str
    processes: int
    threads: int
    name: str = "img2dataset"

    def __str__(self) -> str:
        return f"{self.name}, {self.processes} processes x {self.threads} threads"

    def run(self, task: ToolTask, output: Path) -> Finished:
        """Do the task into a fresh folder."""
        flags: dict[str, Any] = {
            "url_list": task.rows.table,
            "input_format": "parquet",
            "caption_col": "caption",
            "output_format": "webdataset",
            "output_folder": output,
            "processes_count": self.processes,
            "thread_count": self.threads,
            "number_sample_per_shard": task.rows.shard,
            "extract_exif": False,
            "timeout": task.timeout,
        }
        if task.resize:
            flags |= {"resize_mode": "keep_ratio", "image_size": 256, "encode_quality": 95}
            flags |= {"resize_only_if_bigger": True}
        else:
            flags |= {"disable_all_reencoding": True}
        words = [str(Path(self.python).with_name("img2dataset"))]
        words += [f"--{name}={value}" for name, value in flags.items()]
        ran = run(words, _environment(task), output.with_suffix(".log"), task.limit)
        return _finished(ran, output, "*_stats.json", _peer_counts)

    def with_threads(self, threads: int) -> "Img2dataset":
        """The same with another number of threads."""
        return replace(self, threads=threads)


class Tool(Protocol):
    """What does a task; its text names it."""

    def run(self, task: ToolTask, output: Path) -> Finished:
        """Do the task into a fresh folder."""


def capstan_finished(ran: ProcessRun, output: Path) -> Finished:
    """What the shards anywhere below a folder hold."""
    return _finished(ran, output, f"**/*{STATS_SUFFIX}", _capstan_counts)


def _environment(task: ToolTask) -> dict[str, str]:
    return {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", **(task.environment or {})}


def _capstan_counts(stats: dict[str, Any]) -> tuple[int, Counter[str]]:
    return stats["images"], Counter(stats["failures"])


def _peer_counts(stats: dict[str, Any]) -> tuple[int, Counter[str]]:
    said = Counter(stats["status_dict"])
    return stats["successes"], said - Counter({"success": stats["successes"]})


def _finished(ran: ProcessRun, output: Path, pattern: str, counts: Any) -> Finished:
    ended = time.time()
    images, failures = 0, Counter[str]()
    for path in output.glob(pattern):
        shard_images, shard_failures = counts(json.loads(path.read_bytes()))
        images += shard_images
        failures += shard_failures
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return Finished(ran, images, failures, size, ended)


# What they need


def write_rows(folder: Path, urls: Sequence[str], shard: int) -> TaskRows:
    """Write the rows for both tools."""
    chunks = folder / "chunks" / "web.tsv"
    chunks.mkdir(parents=True)
    captions = [f"picture {index}" for index in range(len(urls))]
    for number, start in enumerate(range(0, len(urls), shard)):
        pairs = zip(captions[start : start + shard], urls[start : start + shard], strict=True)
        text = "".join(f"{caption}\t{url}\n" for caption, url in pairs)
        (chunks / f"{number:016x}").write_text(text)
    table = folder / "rows.parquet"
    pq.write_table(pa.table({"caption": captions, "url": list(urls)}), table)
    return TaskRows(len(urls), chunks.parent, table, shard)


def peer_python(base: str) -> str:
    """The interpreter of an environment with img2dataset, made the first time.

    Its TLS is a fair anchor from Python 3.12 on; before, it is eight times slower.
    """
    python = PEER / "bin" / "python"
    if python.exists():
        return str(python)
    print(f"making {PEER} (a minute)", flush=True)
    if base == sys.executable:
        venv.create(PEER, with_pip=True)
    else:
        try:
            subprocess.run([base, "-m", "venv", str(PEER)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SettingError(
                f"--peer-python {base}: does not run; give a Python of 3.12 or newer"
            ) from error
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([*install, *PEER_PACKAGES], check=True)
    except subprocess.CalledProcessError as error:
        raise CapstanError(f"img2dataset cannot be installed into {PEER}; see above") from error
    return str(python)
