"""Progress: the numbers, and the line that people read."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.progress import Progress, Snapshot, duration


def test_line_tells_rate_eta_and_failures() -> None:
    snapshot = Snapshot("ingest", "rows", 250, 1000, 10.0, {"dns": 3, "timeout": 10})
    assert snapshot.line() == (
        "ingest: 250/1,000 rows · 25.0/s · ETA 30s · 13 failed (timeout 10, dns 3)"
    )


def test_line_of_work_without_end() -> None:
    assert Snapshot("serve", "requests", 0, None, 0.0, {}).line() == "serve: 0 requests · 0.0/s"


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0.001, 10**6))
def test_eta_never_below_zero(done: int, total: int, seconds: float) -> None:
    eta = Snapshot("x", "rows", done, total, seconds, {}).eta
    assert eta is None if done == 0 else eta is not None and eta >= 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (65, "1m05s"), (7620, "2h07m")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_last_line_is_logged_with_numbers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Progress("ingest", "rows", 2) as progress:
        progress.add()
        progress.add(reason="dns")
    numbers = caplog.records[-1].__dict__["progress"]
    assert (numbers["done"], numbers["total"], numbers["failures"]) == (2, 2, {"dns": 1})
    assert "2/2 rows" in repr(progress)
