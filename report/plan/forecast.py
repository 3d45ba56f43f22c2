"""A plan: the stages of a scenario over time, what they need, and where the time goes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median_low

from capstan.report.plan.cluster import StageRun, run
from capstan.report.plan.rates import Rates
from capstan.report.plan.requirements import Need, needs
from capstan.report.plan.scenario import Scenario
from capstan.report.plan.stages import MOST_ROWS, Ingested, Planner
from capstan.report.plan.web import WebModel

BUSY = 0.7  # share of the time from which a part of a worker counts as what limits it
WHOLE = "all"  # the name of all stages together


def percent(share: float) -> str:
    """A part of one, in whole percents."""
    return f"{100 * share:.0f} %"


@dataclass(frozen=True)
class Span:
    """The least and the most seconds that a stage took, by the seeds tried."""

    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """What is to be expected."""

    scenario: Scenario
    web: WebModel
    rates: Rates
    ingested: Ingested
    course: Sequence[StageRun]
    needs: Sequence[Need]
    spans: Mapping[str, Span]  # by stage, and of the WHOLE

    @property
    def seconds(self) -> float:
        """All stages, one after another."""
        return sum(ran.seconds for ran in self.course)

    @property
    def bottleneck(self) -> StageRun:
        """The stage that takes longest."""
        return max(self.course, key=lambda ran: ran.seconds)

    def stage(self, name: str) -> StageRun:
        """A stage by name."""
        return next(ran for ran in self.course if ran.stage.name == name)

    @property
    def busy(self) -> Mapping[str, float]:
        """What share of the time each part of an ingest worker was busy, on average."""
        samples = self.ingested.samples
        return {part: fmean(seen.busy[part] for seen in samples) for part in samples[0].busy}

    def why(self, ran: StageRun) -> str:
        """What holds a stage up, in words."""
        part, share = max(ran.shares.items(), key=lambda item: item[1])
        if part != "work":
            return {
                "files": f"moving files takes {percent(share)} of its workers' time",
                "overhead": f"starting takes {percent(share)} of its workers' time",
                "idle": f"workers are idle for {percent(share)} of the time: at its start, and at "
                "its end, while the last datums are done",
            }[part]
        if ran.stage.name == "load":
            return "one stream of rows into Pachyderm"
        return self._why_images() if ran.stage.name == "images" else "calculating"

    def _why_images(self) -> str:
        part, share = max(self.busy.items(), key=lambda item: item[1])
        if share >= BUSY:
            return f"the {part} of its workers, busy for {percent(share)} of the time"
        samples = self.ingested.samples
        tail = fmean(seen.tail for seen in samples) / fmean(seen.seconds for seen in samples)
        return (
            f"waiting for hosts: nothing of a worker is busy for more than {percent(share)} of the "
            f"time, and {percent(tail)} of it passes after 99 % of a chunk's rows"
        )


def make_plan(scenario: Scenario, web: WebModel, rates: Rates, seeds: int = 1) -> Forecast:
    """Simulate a scenario with so many seeds, each with rows and hosts by its own lot."""
    each = [
        simulated(replace(scenario, seed=scenario.seed + number), web, rates)
        for number in range(seeds)
    ]
    plan = _together(each)
    return replace(plan, spans={name: _span(name, each) for name in plan.spans})


def simulated(
    scenario: Scenario, web: WebModel, rates: Rates, most_rows: int = MOST_ROWS
) -> Forecast:
    """Simulate a scenario with its seed, with so many rows one by one, or a chunk."""
    planner = Planner(scenario, web, rates)
    return _of(planner, scenario, planner.ingest(most_rows), rates)


def _of(planner: Planner, scenario: Scenario, ingested: Ingested, rates: Rates) -> Forecast:
    course = run(planner.stages(ingested), planner.store)
    needed = needs(scenario, planner, ingested, course, rates)
    plan = Forecast(scenario, planner.web, rates, ingested, course, needed, {})
    names = [*(ran.stage.name for ran in course), WHOLE]
    return replace(plan, spans={name: _span(name, [plan]) for name in names})


def _together(each: Sequence[Forecast]) -> Forecast:
    """On a cluster chunks of all seeds by turns; on a machine the run of median length."""
    first = each[0]
    if first.scenario.cluster.machine:
        middle = median_low(plan.seconds for plan in each)
        return next(plan for plan in each if plan.seconds == middle)
    samples = [seen for plan in each for seen in plan.ingested.samples]
    planner = Planner(first.scenario, first.web, first.rates)
    return _of(planner, first.scenario, Ingested(samples, first.ingested.rows), first.rates)


def _span(name: str, each: Sequence[Forecast]) -> Span:
    seconds = [plan.seconds if name == WHOLE else plan.stage(name).seconds for plan in each]
    return Span(min(seconds), max(seconds))
