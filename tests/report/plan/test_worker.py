"""A simulated worker keeps to the rules of a real one."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.ingest.config import Concurrency, RetryPolicy
from capstan.ingest.http.pool import KEPT
from capstan.records import Reason
from capstan.report.plan.machine import MachineSize
from capstan.report.plan.web import IMAGE
from capstan.report.plan.worker import simulate
from tests.examples import examples
from tests.report.plan.parts import CHEAP, MANNER, WORKER, even, row, with_dead_hosts

ENDS = [IMAGE, Reason.NOT_FOUND, Reason.TIMEOUT, Reason.DISCONNECTED, Reason.DNS, Reason.CONNECT]


@examples(40)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(ENDS)), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(0, 4),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_every_row_ends_once_and_no_limit_is_passed(
    drawn: list[tuple[int, str]],
    in_flight: int,
    aside: int,
    per_host: int,
    attempts: int,
    processes: int,
) -> None:
    rows = [row(host, end) for host, end in drawn]
    load = Concurrency(processes, in_flight, aside, per_host)
    manner = replace(MANNER, load=load, patience=RetryPolicy(attempts=attempts))
    chunks = [rows[::2], rows[1::2]] if len(rows) > 1 else [rows]
    seen = simulate(chunks, WORKER, CHEAP, manner)
    assert seen.rows == len(rows) == len(seen.times)
    pictures = sum(end == IMAGE for _, end in drawn)  # but for those of hosts that were given up
    assert pictures - seen.ends[Reason.HOST_DOWN] <= seen.ends[IMAGE] <= pictures
    assert seen.requests <= attempts * len(rows)
    assert seen.per_host <= per_host
    assert seen.connections <= 2 * (in_flight + aside)
    assert max(seen.times) <= seen.seconds
    assert seen.open == 0


def test_the_same_seed_gives_the_same() -> None:
    web = with_dead_hosts(even(5, spread=0.5), 3, 0.2)
    first, again, other = (
        simulate([web.rows(300, (seed, 0))], WORKER, CHEAP, MANNER, seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.times != other.times


def test_politeness_bounds_the_rate_of_one_host() -> None:
    manner = replace(MANNER, load=Concurrency(per_host=4, processes=1))
    seen = simulate([[row(0, latency=0.5)] * 400], WORKER, CHEAP, manner)
    assert seen.seconds == pytest.approx(400 / 4 * 0.5, rel=0.1)
    assert seen.per_host == 4


def test_the_limit_of_a_host_is_shared_by_the_processes() -> None:
    manner = replace(MANNER, load=Concurrency(per_host=4))
    rows = [row(0, latency=0.5)] * 100
    seen = simulate([rows, rows], WORKER, CHEAP, manner)
    assert seen.per_host <= 4
    assert seen.seconds == pytest.approx(200 / 4 * 0.5, rel=0.15)


def test_a_row_that_times_out_is_tried_as_often_as_asked() -> None:
    patience = RetryPolicy(attempts=3, first_wait=1.0, deadline=1_000.0, host_patience=1_000.0)
    manner = replace(MANNER, patience=patience, timeout=5.0)
    seen = simulate([[row(0, Reason.TIMEOUT)]], WORKER, CHEAP, manner)
    assert seen.requests == 3
    assert 3 * 5 + 1 + 2 <= seen.seconds <= 3 * 5 + 2 + 3.1


def test_a_dead_host_is_given_up() -> None:
    manner = replace(MANNER, patience=RetryPolicy(host_patience=10.0), timeout=5.0)
    seen = simulate([[row(0, Reason.TIMEOUT)] * 200], WORKER, CHEAP, manner)
    assert seen.ends[Reason.HOST_DOWN] > 150
    assert seen.seconds < 60


def test_slow_rows_that_step_aside_do_not_hold_up_the_rest() -> None:
    rows = [row(number, latency=5.0) for number in range(40)]
    rows += [row(100 + number, latency=0.1) for number in range(400)]

    def half_done(aside: int) -> float:
        manner = replace(MANNER, load=Concurrency(1, in_flight=20, aside=aside))
        return sorted(simulate([rows], WORKER, CHEAP, manner).times)[200]

    assert half_done(aside=100) < half_done(aside=0) / 2


def test_cores_bound_what_is_decoded() -> None:
    costs = replace(CHEAP, picture=0.01)
    rows = [row(number, latency=0.0) for number in range(400)]
    seconds = {
        cores: simulate([rows], MachineSize(cores, 1e12, 1e12), costs, MANNER).seconds
        for cores in (1, 4)
    }
    assert seconds[1] == pytest.approx(4.0, rel=0.1)
    assert seconds[4] == pytest.approx(1.0, rel=0.25)


def test_a_link_bounds_what_is_downloaded() -> None:
    rows = [row(number, latency=0.0) for number in range(200)]
    seen = simulate([rows], MachineSize(2, 1e5, 1e12), CHEAP, MANNER)
    assert seen.seconds == pytest.approx(200 * 10_000 / 1e5, rel=0.05)
    assert seen.busy["link"] > 0.9


def test_a_connection_is_kept_for_the_next_row_of_its_host() -> None:
    costs = replace(CHEAP, connecting=1.0)
    manner = replace(MANNER, load=Concurrency(1, per_host=1))
    assert KEPT > 1.0
    seen = simulate([[row(0, latency=0.1)] * 10], WORKER, costs, manner)
    assert seen.seconds == pytest.approx(1.0 + 10 * 0.1, rel=0.1)
