from hypothesis import given
from hypothesis import strategies as st

from capstan.ingest.scheduling.host import FEWEST_FAILURES, FIRST_LIMIT, Host, HostLimits
from capstan.records import Reason


def new_host(most: int = 4) -> Host:
    return Host(HostLimits(most, outage=100.0, pause=100.0))


def trouble(host: Host, began: float, ended: float) -> None:
    host.record_failure(Reason.TIMEOUT, began, ended)


def test_a_host_that_does_well_gets_more_and_halves_when_it_does_not() -> None:
    host = new_host(32)
    assert host.limit == FIRST_LIMIT
    for _ in range(60):
        host.record_success()
    assert host.limit == 32
    trouble(host, 1.0, 2.0)
    assert host.limit == 16
    trouble(host, 1.5, 2.5)  # was in flight when the first one ended
    assert host.limit == 16
    trouble(host, 2.0, 3.0)
    assert host.limit == 8
    for _ in range(8):
        host.record_success()
    assert 8.9 < host.limit < 9.0  # one more for each round, no longer one for each answer


def test_a_host_that_only_errs_is_closed_for_a_while_and_one_good_answer_opens_it() -> None:
    host = new_host()
    trouble(host, 0.0, 10.0)
    trouble(host, 50.0, 99.0)
    assert not host.is_closed(99.0)
    trouble(host, 99.0, 101.0)
    assert host.closed_for is Reason.HOST_DOWN
    assert host.is_closed(200.9) and not host.has_room(200.9)
    assert not host.is_closed(201.0) and host.has_room(201.0)  # one may look
    trouble(host, 201.0, 202.0)
    assert host.is_closed(301.9)
    failing = [host.is_failing]
    host.record_success()
    assert [*failing, host.is_failing] == [True, False]
    assert not host.is_closed(203.0) and host.is_ordinary(302.0) is False


def test_a_few_failures_close_no_host_however_long_ago_the_first_was() -> None:
    host = new_host()
    for number in range(FEWEST_FAILURES - 1):
        trouble(host, 1_000.0 * number, 1_000.0 * number + 1)
    assert host.closed_for is None


def test_pauses_are_kept_and_those_too_long_to_wait_for_close() -> None:
    host = new_host()
    host.back_off(Reason.RATE_LIMITED, 5.0, 10.0)
    host.back_off(Reason.RATE_LIMITED, 1.0, 11.0)
    assert not host.has_room(14.9) and host.has_room(15.0)
    assert not host.is_closed(14.9)
    host.back_off(Reason.RATE_LIMITED, 101.0, 20.0)
    assert host.is_closed(120.9) and host.closed_for is Reason.RATE_LIMITED


@given(
    most=st.integers(1, 50),
    events=st.lists(st.tuples(st.booleans(), st.floats(0, 30), st.floats(0, 5)), max_size=200),
)
def test_the_limit_stays_within_bounds(most: int, events: list[tuple[bool, float, float]]) -> None:
    host, now = new_host(most), 0.0
    for good, took, later in events:
        now += later
        if good:
            host.record_success()
        else:
            trouble(host, now - took, now)
        assert 1 <= host.limit <= most
        assert host.failures == 0 or host.failing_since is not None
