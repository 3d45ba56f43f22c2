"""Make a web mix from a report of downloads.

    python -m capstan.report.plan.mix REPORT --output MIX

The report is a TSV (`url, split, status, mimetype, size, file, headers`, may be gzipped), such as
`downloaded_validation_report.tsv.gz` of Conceptual Captions' downloader: what each URL answered
in January 2019. So was `report/plan/conceptual_captions_2019.json` made. Shares, counts and
quantiles alone are kept: no URL and no name of a host.
"""

import argparse
import csv
import gzip
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from capstan.errors import CapstanError, DataError
from capstan.files import atomic_write
from capstan.records import Reason
from capstan.report.plan.web import BUSIEST, FORMAT, IMAGE, VERSION

COLUMNS = 7
PLACES = (0, 0.005, 0.01, 0.02, *(n / 20 for n in range(1, 20)))
PLACES = (*PLACES, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1)
DENIED, GONE = {401, 403}, {404, 410}
GUESSED: dict[str, Any] = {
    "guess": "latencies and bandwidths, which the report does not tell: as benchmarks/replay.py "
    "has them",
    "latency": {"median": 0.25, "between": 0.6, "within": 0.6},
    "bandwidth": {"median": 2e6, "between": 0.7, "within": 0.0},
}
SOURCE = (
    "what {rows:,} URLs of Conceptual Captions' validation split answered in January 2019 ({name} "
    "of its downloader): shares and quantiles only. A status of 408 without headers was its word "
    "for no answer; half of those count as timeouts, half as closed connections"
)


@dataclass(frozen=True, slots=True)
class ReportedAnswer:
    """What a URL answered."""

    host: str
    secure: bool
    ends: Mapping[str, float]  # of the row; more than one where the report leaves it open
    bytes: float


def read_report(path: Path) -> list[ReportedAnswer]:
    """Read a report; raises DataError where it is none."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            csv.field_size_limit(sys.maxsize)
            answers = [_answer(line) for line in csv.reader(file, delimiter="\t")]
    except (OSError, csv.Error, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a report ({error})") from error
    if not answers:
        raise DataError(f"{path}: no rows in it; give a report of downloads")
    return answers


def _answer(line: Sequence[str]) -> ReportedAnswer:
    if len(line) != COLUMNS:
        raise ValueError(f"{len(line)} columns where {COLUMNS} are expected")
    url, _, status, kind, size, _, headers = line
    parts = urlsplit(url)
    ends = _ends(int(status), kind, bool(headers))
    return ReportedAnswer(parts.hostname or "", parts.scheme == "https", ends, float(size or 0))


def _ends(status: int, kind: str, answered: bool) -> Mapping[str, float]:
    if status == 408 and not answered:
        return {Reason.TIMEOUT: 0.5, Reason.DISCONNECTED: 0.5}
    return {_end(status, kind): 1.0}


def _end(status: int, kind: str) -> str:
    if status == 200:
        return IMAGE if kind.startswith("image/") else Reason.NOT_AN_IMAGE
    if status < 300:
        return Reason.EMPTY_BODY
    if status in DENIED:
        return Reason.DENIED
    if status in GONE:
        return Reason.NOT_FOUND
    return Reason.CLIENT_ERROR if status < 500 else Reason.SERVER_ERROR


def mix(answers: Sequence[ReportedAnswer], name: str) -> dict[str, Any]:
    """The mix, as `capstan.report.plan.web` reads it."""
    counts = Counter(answer.host for answer in answers)
    busiest = dict(counts.most_common(BUSIEST))
    head = [answer for answer in answers if answer.host in busiest]
    tail = [answer for answer in answers if answer.host not in busiest]
    sizes = [answer.bytes for answer in answers if IMAGE in answer.ends]
    rows = len(answers)
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": SOURCE.format(rows=rows, name=name),
        "secure": round(sum(answer.secure for answer in answers) / rows, 4),
        "shares": [round(count / rows, 6) for count in busiest.values()],
        "tail_hosts": hosts_behind(len(counts) - len(busiest), len(tail)),
        "head": _shares(head),
        "tail": _shares(tail),
        "bytes": [[place, round(float(np.quantile(sizes, place)))] for place in PLACES],
        **GUESSED,
    }


def hosts_behind(seen: int, rows: int) -> int:
    """How many equally busy hosts there are if that many rows by lot showed so many of them."""
    if not 0 < seen < rows:
        return seen
    low, high = float(seen), float(rows) * rows
    while high - low > 0.5:
        middle = (low + high) / 2
        shown = middle * (1 - exp(-rows / middle))
        low, high = (middle, high) if shown < seen else (low, middle)
    return round(high)


def _shares(answers: Sequence[ReportedAnswer]) -> dict[str, float]:
    counts: dict[str, float] = defaultdict(float)
    for answer in answers:
        for end, part in answer.ends.items():
            counts[str(end)] += part
    listed = sorted(counts.items(), key=lambda item: -item[1])
    return {end: round(count / len(answers), 6) for end, count in listed}


def main() -> int:
    """Write a mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, metavar="REPORT")
    parser.add_argument("--output", type=Path, required=True, metavar="MIX")
    arguments = parser.parse_args()
    try:
        entry = mix(read_report(arguments.report), arguments.report.name)
    except CapstanError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    with atomic_write(arguments.output) as file:
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry[key])}" for key in entry)
        file.write(f"{{\n{lines}\n}}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
