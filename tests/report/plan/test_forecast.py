"""Plans as wholes: they add up, repeat, and move the way they must."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.report.plan import stages
from capstan.report.plan.cluster import SimStage, SimStore, SimTask, run
from capstan.report.plan.forecast import WHOLE, Forecast, make_plan, simulated
from capstan.report.plan.formatting import text
from capstan.report.plan.rates import shipped_rates
from capstan.report.plan.record import record
from capstan.report.plan.scenario import Cluster, Hosts, PlannedJob, Scenario
from capstan.report.plan.web import IMAGE
from capstan.report.plan.what_if import try_changes
from tests.examples import examples
from tests.report.plan.parts import even, with_dead_hosts

RATES = shipped_rates()
WEB = even(50, latency=0.2, spread=0.5)
JOB = PlannedJob(rows=8_000, chunk_rows=1_000)
FEW = PlannedJob(rows=1_500, chunk_rows=500)  # where all are simulated, and more than once


def plan_of(scenario: Scenario, seeds: int = 1) -> Forecast:
    """A plan that simulates one chunk a seed."""
    assert seeds == 1
    return simulated(scenario, WEB, RATES, most_rows=1_000)


@examples(15)
@given(
    st.integers(1, 20_000),
    st.integers(50, 400),
    st.integers(1, 40),
    st.integers(0, 8),
    st.booleans(),
)
def test_rows_are_conserved(
    rows: int, chunk_rows: int, workers: int, gpus: int, machine: bool
) -> None:
    cluster = Cluster(workers=workers, gpus=gpus, machine=machine)
    plan = simulated(Scenario(PlannedJob(rows, chunk_rows), cluster), WEB, RATES, most_rows=400)
    assert sum(plan.ingested.ends().values()) == rows
    for name in ("images", "consolidate"):
        ran = plan.stage(name)
        assert ran.rows == pytest.approx(rows)
        assert ran.curve.sum() == pytest.approx(rows, rel=1e-6)
        assert sum(ran.shares.values()) == pytest.approx(1.0, abs=1e-6)
    assert plan.stage("features").rows == pytest.approx(rows * plan.ingested.images)
    assert [ran.end for ran in plan.course[:-1]] == [ran.begin for ran in plan.course[1:]]


def test_the_same_seed_gives_the_same_plan() -> None:
    scenario = Scenario(FEW)
    plans = [make_plan(replace(scenario, seed=seed), WEB, RATES, 2) for seed in (3, 3, 4)]
    first, again, other = (record(plan, []) for plan in plans)
    assert first == again
    assert first["seconds"] != other["seconds"]


def test_spans_hold_the_plan() -> None:
    plan = make_plan(Scenario(FEW), with_dead_hosts(WEB, 20, 0.05), RATES, 3)
    span = plan.spans["images"]
    assert span.low < span.high
    assert span.low <= plan.stage("images").seconds <= span.high * 1.01
    assert plan.spans[WHOLE].low <= plan.seconds <= plan.spans[WHOLE].high * 1.01


def test_more_workers_are_never_slower() -> None:
    seconds = [
        plan_of(Scenario(JOB, Cluster(workers=workers))).stage("images").seconds
        for workers in (1, 2, 4, 8, 16)
    ]
    assert seconds == sorted(seconds, reverse=True)
    start = RATES["job"]
    assert seconds[0] - start > 2.5 * (seconds[3] - start)
    assert seconds[4] == pytest.approx(seconds[3])  # there are no more chunks


def test_the_bottleneck_moves_when_gpus_shrink() -> None:
    job = PlannedJob(rows=1_000_000, epochs=1)
    many, one = (
        plan_of(Scenario(replace(job, chunk_rows=1_000), Cluster(workers=400, gpus=gpus)))
        for gpus in (400, 1)
    )
    assert many.bottleneck.stage.name not in ("features", "model")
    assert one.bottleneck.stage.name in ("features", "model")


def test_a_host_that_answers_little_bounds_the_whole_whoever_asks() -> None:
    slow = Hosts(host_rate=100.0)
    web = even(1)
    seconds = [
        simulated(Scenario(JOB, Cluster(workers=workers), slow), web, RATES, 1_000)
        .stage("images")
        .seconds
        for workers in (2, 8)
    ]
    assert min(seconds) >= JOB.rows / 100.0
    assert seconds[0] == pytest.approx(seconds[1], rel=0.15)


def test_failures_make_fewer_pictures() -> None:
    web = with_dead_hosts(WEB, 20, 0.05)
    usual, none = (
        simulated(Scenario(JOB, hosts=Hosts(failures=factor)), web, RATES, 1_000)
        for factor in (1.0, 0.0)
    )
    assert usual.ingested.ends()[IMAGE] < none.ingested.ends()[IMAGE] == JOB.rows


def test_changes_are_tried_and_sorted() -> None:
    plan = plan_of(Scenario(PlannedJob(rows=400, chunk_rows=200), Cluster(workers=2, gpus=1)))
    changes = try_changes(plan)
    assert [change.seconds for change in changes] == sorted(change.seconds for change in changes)
    assert {"twice the GPUs", "twice the workers of images"} <= {change.what for change in changes}
    assert changes[0].saved > 0
    assert f"{changes[0].what}  " in text(plan, changes)


def test_a_stage_waits_for_the_slowest_datum_before_it() -> None:
    def stage(name: str, *seconds: float) -> SimStage:
        return SimStage(name, "rows", 2, [(SimTask(1, 0, each, 0), 1) for each in seconds])

    first, second = run([stage("a", 1, 5, 1), stage("b", 1)], SimStore(1e9, 1e9))
    assert (first.end, second.begin, second.end) == (5, 5, 6)
    assert first.shares["work"] == pytest.approx(7 / 10)
    assert first.shares["idle"] == pytest.approx(3 / 10)


def test_workers_share_the_store() -> None:
    tasks = [(SimTask(1, 100, 0, 0), 4)]
    (alone,) = run([SimStage("a", "rows", 4, tasks)], SimStore(worker=10, all=1e9))
    (together,) = run([SimStage("a", "rows", 4, tasks)], SimStore(worker=10, all=20))
    assert alone.seconds == pytest.approx(10)
    assert together.seconds == pytest.approx(20)


def test_very_many_rows_are_planned_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "MOST_TASKS", 5_000)
    job = PlannedJob(rows=2_000_000_000, chunk_rows=2_000)
    plan = plan_of(Scenario(job, Cluster(workers=1_000)))
    assert plan.stage("images").rows == pytest.approx(job.rows)
    datums = next(need for need in plan.needs if need.name == "datums")
    assert datums.amount == 3 * job.chunks + 1
