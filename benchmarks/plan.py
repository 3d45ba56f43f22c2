"""`capstan plan` beside real runs on this machine: what it says beforehand, and what came.

    python -m benchmarks.plan [CASE ...] [--folder DIR] [--rates FILE]

First the machine's rates are measured by short runs (--rates keeps them, for `capstan plan --rates
FILE` too), then each case is planned and run: other settings, other webs and other rows than those.
Takes about ten minutes. Rows that wait for their hosts are planned well on a busy machine too, and
timed there from the first request on; what cores decide needs a quiet one.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.ingest_rounds import machine
from benchmarks.plan_rates import (
    KEEP,
    VERIFY,
    Rates,
    RatesBench,
    calibrate,
    photos_of,
    simulated_web_rates,
)
from benchmarks.plan_web import even, served
from capstan.errors import CapstanError
from capstan.records import Reason
from capstan.report.plan.forecast import simulated
from capstan.report.plan.rates import shipped_rates
from capstan.report.plan.scenario import Scenario
from capstan.report.plan.web import IMAGE, WebModel, read_web

PHOTO = (640, 480)  # pixels, 90 kB; between the two sizes that rates are measured with
CHUNKS = 4
FEATURE_PICTURES = 400
SHORT = ("--timeout", "3", "--deadline", "12", "--host-patience", "5")


@dataclass(frozen=True)
class Case:
    """Rows of a web, and how they are asked for; no web: photos from nginx."""

    name: str
    rows: int
    flags: tuple[str, ...]
    web: WebModel | None = None


def failing(web: WebModel) -> WebModel:
    """The same web with a seventh of the hosts dead, in its tail, and some rows gone."""
    ends = {IMAGE: 0.80, Reason.TIMEOUT: 0.14, Reason.NOT_FOUND: 0.06}
    return replace(web, shares=(0.2, 0.1, 0.05), tail_hosts=120, tail=ends)


def cases() -> dict[str, Case]:
    """All of them by name."""
    slow, few = even(60, 1.0), ("--in-flight", "25")
    listed = [
        Case("originals kept", 12_000, KEEP),
        Case("originals kept, one process", 8_000, (*KEEP, "--processes", "1")),
        Case("originals verified", 2_500, VERIFY),
        Case("resized to 256", 2_500, ()),
        Case("resized to 256, one process", 2_000, ("--processes", "1")),
        Case("three hosts, 8 at a time", 600, (*KEEP, "--per-host", "8"), even(3, 1.0)),
        Case("slow web, 50 at work", 1_500, (*KEEP, *few, "--aside", "0"), slow),
        Case("slow web, 50 at work and others aside", 1_500, (*KEEP, *few), slow),
        Case("slow web, one process", 800, (*KEEP, *few, "--processes", "1"), slow),
        Case("dead hosts", 1_500, (*KEEP, *SHORT), failing(even(3, 0.5))),
        Case("the web of 2019", 3_000, (*KEEP, *SHORT), read_web()),
    ]
    return {case.name: case for case in listed}


def main() -> int:
    """Compare what was asked for."""
    arguments = parse()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}, {date.today()}: python -m benchmarks.plan {' '.join(sys.argv[1:])}")
    try:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            compare(RatesBench(Path(folder)), arguments)
    except CapstanError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="those whose names hold this; all")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-plan"))
    parser.add_argument(
        "--rates",
        type=Path,
        metavar="FILE",
        help="where to write the rates; those that are there are taken as they are",
    )
    return parser.parse_args()


def compare(bench: RatesBench, arguments: argparse.Namespace) -> None:
    """Measure rates, then plan and run each case."""
    rates = rates_here(bench, arguments.rates)
    simulated_web = simulated_web_rates(bench)
    print(f"  serving_row {simulated_web['serving_row']:.4g} of the simulated web", flush=True)
    print("\n| case | rows | planned | measured | planned / measured |\n|---|---|---|---|---|")

    def wanted(name: str) -> bool:
        return not arguments.cases or any(word in name for word in arguments.cases)

    for case in filter(lambda case: wanted(case.name), cases().values()):
        planned, measured = run(bench, case, rates | (simulated_web if case.web else {}))
        print_line(case.name, case.rows, planned, measured)
    if wanted("features"):
        planned = featurize_planned(FEATURE_PICTURES, rates)
        measured = bench.featurize(FEATURE_PICTURES)
        print_line("features, random weights", FEATURE_PICTURES, planned, measured)


def rates_here(bench: RatesBench, path: Path | None) -> Rates:
    """The rates of this machine: measured, and kept at a path for the next time."""
    if path and path.exists():
        rates: Rates = json.loads(path.read_bytes())
    else:
        rates = calibrate(bench)
        if path:
            path.write_text(json.dumps(rates, indent=2) + "\n")
    for name, value in rates.items():
        print(f"  {name} {value:.4g}")
    return rates


def print_line(name: str, rows: int, planned: float, measured: float) -> None:
    """A line of the table."""
    print(
        f"| {name} | {rows:,} | {planned:.1f} s | {measured:.1f} s | {planned / measured:.2f} |",
        flush=True,
    )


def run(bench: RatesBench, case: Case, rates: Rates) -> tuple[float, float]:
    """Plan a case, then do it: seconds of both."""
    return of_photos(bench, case, rates) if case.web is None else of_web(bench, case, rates)


def of_photos(bench: RatesBench, case: Case, rates: Rates) -> tuple[float, float]:
    """The whole time."""
    folder = bench.folder / "case"
    with photos_of(folder, [PHOTO]) as (photos,):
        planned = ingest_planned(case, even(1, 0.0, photos.bytes), rates)
        measured = bench.ingest(photos.urls(case.rows), case.flags, photos.pid).ran.seconds
    shutil.rmtree(folder)
    return planned, measured


def of_web(bench: RatesBench, case: Case, rates: Rates) -> tuple[float, float]:
    """The time from the first request on."""
    assert case.web is not None
    log = bench.folder / "log.parquet"
    planned = ingest_planned(case, case.web, rates) - rates["ingest_start"]
    with served(case.web, case.rows, log) as (web, urls):
        bench.ingest(urls, case.flags, web.pid)
        ended = time.time()
    return planned, ended - min(pq.read_table(log)["began"].to_pylist())


def ingest_planned(case: Case, mix: WebModel, rates: Rates) -> float:
    """Seconds that a plan gives to the ingestion of a case."""
    words = ["--machine", "--rows", str(case.rows), "--chunk-rows", str(-(-case.rows // CHUNKS))]
    return _stage([*words, *case.flags], mix, rates, "images")


def featurize_planned(pictures: int, rates: Rates) -> float:
    """Seconds that a plan gives to featurizing."""
    words = ["--machine", "--rows", str(pictures), "--chunk-rows", str(-(-pictures // 2))]
    return _stage(words, even(1, 0.0), rates, "features")


def _stage(words: Sequence[str], mix: WebModel, rates: Rates, name: str) -> float:
    parser = argparse.ArgumentParser()
    Scenario.configure(parser)
    cores = ["--cores", str(len(os.sched_getaffinity(0))), "--bandwidth", "1000"]
    scenario = Scenario.from_arguments(parser.parse_args([*words, *cores]))
    plan = simulated(scenario, mix, shipped_rates().given(rates, "measured here"))
    return next(ran.seconds for ran in plan.course if ran.stage.name == name)


if __name__ == "__main__":
    sys.exit(main())
