"""The replayed web as parts of the benchmark: `replay`, `harsh` and `polite`."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq

from benchmarks.ingest_rounds import Scratch, print_table
from benchmarks.ingest_tools import (
    Capstan,
    Finished,
    Img2dataset,
    Tool,
    ToolTask,
    peer_python,
    write_rows,
)
from benchmarks.replay import Report, read_report
from capstan.errors import SettingError
from capstan.testing.photolike import Sizes
from capstan.testing.politeness import treatments, violations
from capstan.testing.simulated_web import SimulatedWeb
from capstan.testing.virtual_hosts import RateLimit, VirtualHost

TIMEOUT = 10  # seconds for an attempt, the peer's default
# The peer's processes and threads of each to choose from; the last few where memory counts.
SHAPES = ((2, 128), (2, 256), (2, 512), (1, 256), (1, 64), (1, 16))
HARSH_LIMIT = 400.0  # seconds; a tar pit holds the peer for hours
POLITE = 16  # connections to a host
GRACES = (0.0, 0.1, 0.3, 0.6)  # seconds
MOST = 0.99  # of the healthy pictures, so that no single slow one decides on their rate


@dataclass(frozen=True)
class Setting:
    """A web and the rows that are asked of it."""

    report: Report
    count: int
    time_scale: float
    harsh: bool = False
    healthy_only: bool = False
    limited: bool = False  # every host has a rate limit

    def hosts(self) -> list[VirtualHost]:
        """Every host as it behaves."""
        hosts = self.report.hosts(self.time_scale, self.harsh)
        if not self.limited:
            return hosts
        limits = [RateLimit(20, 1.0, as_date) for as_date in (False, True)]
        return [replace(host, limit=limits[number % 2]) for number, host in enumerate(hosts)]


@dataclass(frozen=True)
class ReplayOutcome:
    """A run, and what the web's own log tells of it."""

    finished: Finished
    healthy: int  # pictures that healthy hosts gave
    healthy_seconds: float  # from the first request to the end of most of those
    tail: float  # seconds that the run went on after the last of them
    log: Path

    @property
    def healthy_rate(self) -> float:
        """Pictures of healthy hosts per second, while most of them came."""
        return MOST * self.healthy / self.healthy_seconds if self.healthy else 0.0


class ReplayStage:
    """Runs tools, each on a fresh web and in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._scratch, self._folder, self._runs = Scratch(folder), folder, 0
        self._pictures = Sizes().warm()

    def __repr__(self) -> str:
        return f"<Stage {self._folder}, {self._runs} runs>"

    def run(self, tool: Tool, setting: Setting) -> ReplayOutcome:
        """Run a tool once."""
        self._runs += 1
        folder = self._folder / f"web-{self._runs}"
        folder.mkdir(parents=True)
        log = folder / "log.parquet"
        with SimulatedWeb(setting.hosts(), log, self._pictures) as web:
            urls = setting.report.urls(web, setting.count, setting.healthy_only)
            rows = write_rows(folder, urls, min(10_000, -(-len(urls) // 2)))
            limit = HARSH_LIMIT if setting.harsh else 1_800.0
            finished = self._scratch.run(tool, ToolTask(rows, timeout=TIMEOUT, limit=limit))
        return see(finished, log, setting.report)

    def alternate(
        self, tools: list[Tool], setting: Setting, rounds: int
    ) -> dict[str, list[ReplayOutcome]]:
        """Every tool once in each round, in turn."""
        seen: dict[str, list[ReplayOutcome]] = {str(tool): [] for tool in tools}
        for _ in range(rounds):
            for tool in tools:
                seen[str(tool)].append(self.run(tool, setting))
        return seen


def see(finished: Finished, log: Path, report: Report) -> ReplayOutcome:
    """Read the web's log."""
    table = pq.read_table(log)
    column = {name: table[name].to_numpy() for name in table.column_names}
    good = column["whole"] & (column["status"] == 200)
    good &= ~np.isin(column["host"], list(report.bad))
    pictures = len(np.unique(column["path"][good]))  # each row has a path of its own
    ended = np.sort(column["ended"][good]) if pictures else np.zeros(1)
    seconds = ended[int(MOST * (len(ended) - 1))] - column["began"].min(initial=np.inf)
    return ReplayOutcome(finished, pictures, seconds, finished.end - ended[-1], log)


# The parts


def replay(folder: Path, arguments: argparse.Namespace) -> None:
    """The web as it was."""
    compare(folder, arguments, Setting(*_asked(arguments)))


def harsh(folder: Path, arguments: argparse.Namespace) -> None:
    """A fifth of the hosts dead or tar pits; also, what those cost the healthy ones."""
    setting = Setting(*_asked(arguments), harsh=True)
    answers = setting.report.answers
    share = sum(answer.host in setting.report.bad for answer in answers) / len(answers)
    print(f"{len(setting.report.bad):,} bad hosts with {share:.0%} of the rows")
    compare(folder, arguments, setting)
    without = replace(setting, harsh=False, healthy_only=True)
    without = replace(without, count=round(setting.count * (1 - share)))  # the same healthy rows
    capstan = Capstan(arguments.per_host, arguments.capstan)
    stage, rates = ReplayStage(folder / "without"), dict[str, list[float]]()
    for _ in range(arguments.rounds):
        for name, each in (("with", setting), ("without", without)):
            rates.setdefault(name, []).append(stage.run(capstan, each).healthy_rate)
    print(
        f"healthy rows of capstan: {median(rates['with']):,.0f}/s with the bad hosts, "
        f"{median(rates['without']):,.0f}/s without, "
        f"{median(rates['with']) / median(rates['without']):.1%}\n"
    )


def polite(folder: Path, arguments: argparse.Namespace) -> None:
    """Every host has a rate limit; was any of them asked more than it allowed?"""
    report, count, time_scale = _asked(arguments)
    setting = Setting(report, count, time_scale, limited=True)
    seen = ReplayStage(folder).run(Capstan(POLITE, arguments.capstan), setting)
    hosts = list(treatments(seen.log))
    found = violations(seen.log, POLITE)
    early = {grace: sum(each.too_early for each in treatments(seen.log, grace)) for grace in GRACES}
    print(
        f"{sum(host.requests for host in hosts):,} requests to {len(hosts):,} hosts, at most "
        f"{max(host.most_connections for host in hosts)} connections to one of {POLITE} allowed; "
        f"{len(found)} hosts violated; failures {dict(seen.finished.failures)}\n"
        f"requests before a Retry-After had passed, by seconds granted for those under way: {early}"
    )
    for violation in found[:10]:
        print(f"  {violation}")


def compare(folder: Path, arguments: argparse.Namespace, setting: Setting) -> None:
    """Capstan, the peer at its best and the peer in no more memory than capstan."""
    stage = ReplayStage(folder)
    capstan = Capstan(arguments.per_host, arguments.capstan)
    tools: list[Tool] = [capstan]
    if not arguments.no_peer:
        tools += choose_peers(stage, capstan, setting, arguments)
    seen = stage.alternate(tools, setting, arguments.rounds)
    what = "harsh replay" if setting.harsh else "replay"
    title = f"{what}, {setting.count:,} rows, time scale {setting.time_scale:g}"
    finished = {name: [run.finished for run in runs] for name, runs in seen.items()}
    print_table(title, finished, None if arguments.no_peer else str(tools[1]))
    for name, runs in seen.items():
        ended = "killed, never ended" if any(run.finished.ran.killed for run in runs) else "ended"
        print(
            f"{name}: healthy rows {median(run.healthy_rate for run in runs):,.0f}/s; {ended} "
            f"{max(run.tail for run in runs):.1f} s after the last of them"
        )


def choose_peers(
    stage: ReplayStage, capstan: Capstan, setting: Setting, arguments: argparse.Namespace
) -> list[Tool]:
    """The peer at its best, and at its best in capstan's memory, or else in its least."""
    python = peer_python(arguments.peer_python)
    if arguments.threads:
        return [Img2dataset(python, 2, arguments.threads)]
    memory = stage.run(capstan, setting).finished.ran.peak
    tried = {
        peer: stage.run(peer, setting) for peer in (Img2dataset(python, *shape) for shape in SHAPES)
    }
    best = max(tried, key=lambda peer: tried[peer].healthy_rate)
    peaks = {peer: seen.finished.ran.peak for peer, seen in tried.items()}
    ceiling = max(memory, min(peaks.values()))
    frugal = max(
        (peer for peer in tried if peaks[peer] <= ceiling),
        key=lambda peer: tried[peer].healthy_rate,
    )
    for peer, seen in tried.items():
        print(f"  {peer}: {seen.healthy_rate:,.0f} healthy/s, {peaks[peer] >> 20} MiB")
    print(f"best: {best}; in capstan's memory ({memory >> 20} MiB) or its own least: {frugal}")
    return [best, frugal]


def _asked(arguments: argparse.Namespace) -> tuple[Report, int, float]:
    if arguments.report is None:
        raise SettingError("this part replays a report; give its file with --report")
    report = read_report(arguments.report)
    return report, arguments.rows or len(report.answers), arguments.time_scale
