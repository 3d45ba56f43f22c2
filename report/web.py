"""What an ingestion saw of the web, as a page: speed, failures, statuses, hosts and shards.

Drawn of the files that `capstan ingest --statistics` writes.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from capstan.errors import DataError
from capstan.files import input_directory, read_json, read_table
from capstan.ingest.statistics import FORMAT, VERSION
from capstan.report.charts import Chart, rate_chart
from capstan.report.html import check_output, write_page
from capstan.report.rows import NO_HOST, Failed, reason_lines

Line = TypeVar("Line")
TOP = 12  # lines of a table
CURE = "ingest again with --statistics"
STATUS_WORDS = {"none": "no answer came"}


@dataclass(frozen=True)
class Outcomes:
    """What came of some rows: of a run, or of those of one host or shard."""

    name: str
    rows: int
    images: int
    attempts: int
    bytes: int  # of bodies
    reasons: Mapping[str, int]  # of those without a picture, the commonest first
    latency: Mapping[str, float | None]  # seconds by `p50`, `p99`...; of the last requests

    @property
    def failures(self) -> int:
        """Rows that gave no picture."""
        return self.rows - self.images


@dataclass(frozen=True)
class Sums:
    """The whole run."""

    seen: Outcomes
    seconds: float
    hosts: int
    reasons: Sequence[Failed]
    statuses: Sequence[Failed]

    @property
    def images_per_second(self) -> float:
        """Pictures over the whole time."""
        return self.seen.images / max(self.seconds, 1e-3)

    @property
    def megabytes_per_second(self) -> float:
        """Bytes of bodies over the whole time, in millions."""
        return self.seen.bytes / 1e6 / max(self.seconds, 1e-3)


@dataclass(frozen=True)
class Busy:
    """Hosts or shards: some of them, of so many."""

    shown: Sequence[Outcomes]
    total: int


def write_web_report(directory: Path, output: Path) -> None:
    """Draw the statistics in `directory` into the HTML file `output`.

    SettingError when a path cannot be used, DataError when a file is missing or damaged.
    """
    input_directory(directory, "--statistics")
    check_output(output)
    sums = read_sums(directory / "run.json")
    hosts = _read(directory / "hosts.parquet", lambda line: _seen(line["host"] or NO_HOST, line))
    shards = _read(directory / "shards.parquet", _shard)
    timeline = _read(directory / "timeline.parquet", _second)
    values = {
        "title": directory.resolve().name,
        "sums": sums,
        "images": _rates("images", timeline, sums.seconds, 1),
        "megabytes": _rates("bytes", timeline, sums.seconds, 1e-6),
        "busiest": _most(hosts, lambda host: host.rows),
        "worst": _most(hosts, lambda host: host.failures),
        "slowest": _most(shards, lambda shard: shard.latency["p99"] or 0),
    }
    write_page("web.html", values, output)


def read_sums(path: Path) -> Sums:
    """Read `run.json`."""
    run = read_json(path, FORMAT, VERSION)
    try:
        seen = _seen("", run | {"reasons": ""}, run["latency"])
        statuses = [
            Failed(status, _status_words(status), int(count), seen.rows, "")
            for status, count in run["http_statuses"].items()
        ]
        counts = {reason: int(count) for reason, count in run["reasons"].items()}
        reasons = reason_lines(counts, seen.rows)
        return Sums(seen, float(run["seconds"]), int(run["hosts"]), reasons, statuses)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error!r}); {CURE}") from error


def _read(path: Path, parse: Callable[[Mapping[str, Any]], Line]) -> list[Line]:
    table, _ = read_table(path, FORMAT, VERSION)
    try:
        return [parse(line) for line in table.to_pylist()]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error!r}); {CURE}") from error


def _seen(
    name: str, line: Mapping[str, Any], latency: Mapping[str, float | None] | None = None
) -> Outcomes:
    counts = {count: int(line[count]) for count in ("rows", "images", "attempts", "bytes")}
    times = {name: value and float(value) for name, value in (latency or {}).items()}
    return Outcomes(str(name), **counts, reasons=_reasons(line["reasons"]), latency=times)


def _reasons(text: str) -> dict[str, int]:
    """Take `not_found 3, dns 1` apart."""
    counts = Counter[str]()
    for part in filter(None, text.split(", ")):
        reason, count = part.split(" ")
        counts[reason.replace("_", " ")] = int(count)
    return dict(counts.most_common())


def _shard(line: Mapping[str, Any]) -> Outcomes:
    return _seen(line["shard"], line, {key: line[f"latency_{key}"] for key in ("p50", "p99")})


def _second(line: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(line[name]) for name in ("second", "images", "bytes")}


def _rates(name: str, timeline: Sequence[Mapping[str, int]], seconds: float, unit: float) -> Chart:
    amounts = {line["second"]: line[name] * unit for line in timeline}
    return rate_chart(name, amounts, seconds)


def _most(lines: Sequence[Outcomes], by: Callable[[Outcomes], float]) -> Busy:
    """Those with the most, but none that has nothing of it."""
    some = [line for line in lines if by(line) > 0]
    return Busy(sorted(some, key=lambda line: (-by(line), line.name))[:TOP], len(some))


def _status_words(status: str) -> str:
    try:
        return HTTPStatus(int(status)).phrase.lower()
    except ValueError:
        return STATUS_WORDS.get(status, "a status of the host's own")
