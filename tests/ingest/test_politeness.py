from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.testing import politeness
from capstan.testing.politeness import RequestLog, most_at_once, too_early, violations

Line = tuple[int, int, int]  # began, how long it took, the wait that was asked for
lines = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9), st.integers(0, 20)), max_size=30)


@given(lines)
def test_most_at_once_is_what_counting_finds(requests: list[Line]) -> None:
    began = np.array([line[0] for line in requests], float)
    ended = np.array([line[0] + line[1] + 0.5 for line in requests])
    counted = max((((began <= now) & (now < ended)).sum() for now in began), default=0)
    assert most_at_once(began, ended) == counted


@given(lines)
def test_too_early_is_what_comparing_all_pairs_finds(requests: list[Line]) -> None:
    began = np.array([line[0] for line in requests], float)
    ended = began + np.array([line[1] for line in requests]) + 0.5
    not_before = np.array([line[0] + line[2] if line[2] else 0.0 for line in requests])
    found = sum(
        any(
            ended[other] <= began[each] - 0.1 and began[each] < not_before[other]
            for other in range(len(requests))
        )
        for each in range(len(requests))
    )
    assert too_early(began, ended, not_before, 0.1) == found


def write(path: Path) -> Path:
    log = RequestLog()
    for now, host, wait in ((1.0, 0, 5.0), (3.0, 0, 0.0), (1.0, 1, 0.0), (1.5, 1, 0.0)):
        number = log.begin(now, host, "/none/cat.jpg", 1)
        log.answer(number, 429 if wait else 200, now + wait if wait else 0.0)
        if host == 0:
            log.end(number, now + 0.1, whole=True)  # the other host's never end
    assert len(log) == 4
    log.write(path, ["hasty", "crowded"], 9.0)
    return path


def test_violations_of_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "log.parquet")
    assert [str(violation) for violation in violations(path, 1)] == [
        "hasty: 1 requests before its Retry-After had passed",
        "crowded: 2 connections at once of 1 allowed",
    ]
    assert [violation.host for violation in violations(path, 2)] == ["hasty"]


def test_the_command_fails_where_there_are_violations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["politeness", str(write(tmp_path / "log.parquet")), "--per-host", "2"]
    monkeypatch.setattr("sys.argv", words)
    assert politeness.main() == 1
    assert "4 requests to 2 hosts, 1 violations\nhasty:" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*words, "--grace", "60"])
    assert politeness.main() == 0


def test_an_empty_log(tmp_path: Path) -> None:
    RequestLog().write(tmp_path / "log.parquet", ["nobody"], 1.0)
    assert violations(tmp_path / "log.parquet", 1) == []
