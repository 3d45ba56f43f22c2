from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.ingest.config import RetryPolicy
from capstan.ingest.http.fetch import parse_retry_after
from capstan.ingest.scheduling.host import RETRYABLE
from capstan.ingest.scheduling.retry import Attempt, is_retryable, pause_before_next, policy
from capstan.records import Answer, Failure, Image, Reason

PICTURE = Image(b"", 1, 1, 1, 1, "")
PATIENCE = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 6),
    deadline=st.floats(0.1, 300),
    first_wait=st.floats(0, 10),
    longest_wait=st.floats(0, 60),
)


class Row:
    """A fake row: fails as told, on a clock that only waits and attempts move."""

    def __init__(self, plan: list[tuple[Reason | None, float | None, float]]) -> None:
        self.plan, self.now, self.waits, self.starts = plan, 0.0, [0.0], [0.0]

    def attempt(self) -> Attempt:
        reason, asked, seconds = self.plan[len(self.waits) - 1]
        self.starts.append(self.now)
        self.now += seconds
        result = PICTURE if reason is None else Failure(reason)
        return Attempt(Answer(attempts=len(self.waits)), result, asked, self.now)

    def run(self, patience: RetryPolicy) -> Attempt:
        rules = policy(patience)
        while (wait := pause_before_next(rules, last := self.attempt())) is not None:
            self.waits.append(wait)
            self.now += wait
        return last


@given(
    patience=PATIENCE,
    plan=st.lists(
        st.tuples(
            st.sampled_from([None, *Reason]),
            st.none() | st.integers(0, 500).map(float),
            st.floats(0, 40),
        ),
        min_size=6,
        max_size=6,
    ),
)
def test_the_policy_holds(
    patience: RetryPolicy, plan: list[tuple[Reason | None, float | None, float]]
) -> None:
    row = Row(plan)
    last = row.run(patience)

    used = plan[: last.answer.attempts]
    assert len(used) == len(row.waits) <= patience.attempts
    assert all(reason in RETRYABLE for reason, _, _ in used[:-1])
    assert all(start < patience.deadline for start in row.starts)
    for (_, asked, _), wait in zip(used, row.waits[1:], strict=False):
        if asked is not None:
            assert wait == asked
        else:
            assert 0 <= wait <= patience.longest_wait + patience.first_wait
    stopped = (
        last.answer.attempts == patience.attempts
        or not is_retryable(last)
        or last.seconds + patience.longest_wait + patience.first_wait >= patience.deadline
        or last.retry_after is not None
    )
    assert stopped


@pytest.mark.parametrize("reason", Reason)
def test_hopeless_rows_are_not_tried_again(reason: Reason) -> None:
    row = Row([(reason, None, 0.0)] * 3)
    assert row.run(RetryPolicy()).answer.attempts == (3 if reason in RETRYABLE else 1)


def test_a_host_that_asks_for_too_long_a_wait_is_not_asked_again() -> None:
    row = Row([(Reason.RATE_LIMITED, 86_400.0, 0.0)] * 3)
    assert row.run(RetryPolicy(deadline=60)).answer.attempts == 1
    assert row.waits == [0.0]


def test_waits_grow() -> None:
    row = Row([(Reason.TIMEOUT, None, 0.0)] * 5)
    row.run(RetryPolicy(attempts=5, first_wait=1.0, longest_wait=5.0))
    for wait, least in zip(row.waits[1:], [1.0, 2.0, 4.0, 5.0], strict=True):
        assert least <= wait <= least + 1.0


@given(header=st.text() | st.none())
def test_any_header_is_read_or_passed_over(header: str | None) -> None:
    seconds = parse_retry_after(header, 0.0)
    assert seconds is None or 0 <= seconds < 1e12


@given(now=st.integers(0, 4_000_000_000), ahead=st.integers(-1000, 100_000))
def test_dates_are_read(now: int, ahead: int) -> None:
    header = formatdate(now + ahead, usegmt=True)
    assert parse_retry_after(header, now) == max(0, ahead) or now + ahead < 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:02:00 -0000", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("9" * 5000, None),
        ("٣", None),
        ("soon", None),
        ("Thu, 99 Jan 1970 00:00:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, 100.0) == seconds
