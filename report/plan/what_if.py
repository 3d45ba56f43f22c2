"""What a change would bring: the same plan with more of one thing, for each thing there is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from capstan.report.plan.forecast import Forecast, simulated
from capstan.report.plan.rates import Rates
from capstan.report.plan.scenario import MOST_CHUNK_ROWS, Scenario

TRIAL_ROWS = 10_000  # simulated one by one for each change
MOST_TRIAL_DATUMS = 20_000


@dataclass(frozen=True)
class Change:
    """Something that could be changed, and the time of the whole with it."""

    what: str
    seconds: float
    before: float  # without it, of a simulation as small
    bottleneck: str  # the stage that takes longest with it

    @property
    def saved(self) -> float:
        """Share of the time; negative where it takes longer."""
        return 1 - self.seconds / self.before


def try_changes(plan: Forecast) -> Sequence[Change]:
    """Changes, those that save most first; all with the same draws."""
    scenario, web = _small(plan.scenario), plan.web
    before = simulated(scenario, web, plan.rates, TRIAL_ROWS).seconds
    changes = []
    for what, other, rates in _changes(scenario, plan.rates):
        tried = simulated(other, web, rates, TRIAL_ROWS)
        changes.append(Change(what, tried.seconds, before, tried.bottleneck.stage.name))
    return sorted(changes, key=lambda change: change.seconds)


def _changes(scenario: Scenario, rates: Rates) -> Iterator[tuple[str, Scenario, Rates]]:
    for other in (*_of_cluster(scenario), *_of_manner(scenario)):
        yield *other, rates
    if not scenario.cluster.machine:
        twice = {name: 2 * rates[name] for name in ("pfs", "pfs_worker")}
        yield "a file system for datums twice as fast", scenario, rates.given(twice, "tried")


def _of_cluster(scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    cluster, job = scenario.cluster, scenario.job
    clusters = {
        "twice the cores of a worker": replace(cluster, cores=2 * cluster.cores),
        "twice the bandwidth of a worker": replace(cluster, bandwidth=2 * cluster.bandwidth),
    }
    if cluster.gpus:
        clusters["twice the GPUs"] = replace(cluster, gpus=2 * cluster.gpus)
    if not cluster.machine:
        clusters["twice the workers of images"] = replace(cluster, workers=2 * cluster.workers)
        several = 2 * cluster.consolidate_workers
        clusters["twice the workers of consolidate"] = replace(cluster, consolidate_workers=several)
    for what, other in clusters.items():
        yield what, replace(scenario, cluster=other)
    if not cluster.machine:
        rows = min(2 * job.chunk_rows, MOST_CHUNK_ROWS)
        yield f"chunks of {rows:,} rows", replace(scenario, job=replace(job, chunk_rows=rows))


def _of_manner(scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    load, patience, hosts = scenario.load, scenario.patience, scenario.hosts
    polite = replace(load, per_host=2 * load.per_host)
    yield f"--per-host {polite.per_host:,}", replace(scenario, load=polite)
    more = replace(load, in_flight=2 * load.in_flight)
    yield f"--in-flight {more.in_flight:,}", replace(scenario, load=more)
    timeout, deadline = hosts.timeout / 3, patience.deadline / 3
    hasty = replace(
        scenario,
        hosts=replace(hosts, timeout=timeout),
        patience=replace(patience, deadline=deadline),
    )
    yield f"--timeout {timeout:g} --deadline {deadline:g}", hasty


def _small(scenario: Scenario) -> Scenario:
    """As many times fewer rows and workers: the same time, but for the rounding."""
    cluster, job = scenario.cluster, scenario.job
    factor = max(1, job.chunks // MOST_TRIAL_DATUMS)
    if factor == 1:
        return scenario
    workers = ceil(cluster.workers / factor)
    gpus = ceil(cluster.gpus / factor)
    consolidating = ceil(cluster.consolidate_workers / factor)
    fewer = replace(cluster, workers=workers, gpus=gpus, consolidate_workers=consolidating)
    return replace(scenario, job=replace(job, rows=job.rows // factor), cluster=fewer)
