"""Webs to plan for: the shipped mix, what an ingestion saw, and files that are neither."""

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import DataError
from capstan.files import write_json
from capstan.ingest.statistics import RunStatistics
from capstan.records import Reason
from capstan.report.plan.mix import hosts_behind, main, mix, read_report
from capstan.report.plan.web import IMAGE, SHIPPED, read_web
from tests.paths import SHARED_DATA
from tests.report.plan.parts import even

REPORT = SHARED_DATA / "conceptual-captions" / "downloaded_validation_report.tsv.gz"


def test_rows_follow_the_mix() -> None:
    web = read_web()
    rows = web.rows(20_000, (0, 0))
    ends = Counter(row.end for row in rows)
    assert ends[IMAGE] / len(rows) == pytest.approx(web.images, abs=0.01)
    busiest = sum(row.host == 0 for row in rows) / len(rows)
    assert busiest == pytest.approx(web.shares[0], abs=0.01)
    sizes = [row.bytes for row in rows if row.end == IMAGE]
    assert sum(sizes) / len(sizes) == pytest.approx(web.mean_bytes, rel=0.1)
    assert sum(row.secure for row in rows) / len(rows) == pytest.approx(web.secure, abs=0.01)


def test_what_speaks_against_a_small_host_is_true_of_all_its_rows() -> None:
    web = replace(read_web(), shares=(), tail_hosts=20, tail={IMAGE: 0.5, Reason.TIMEOUT: 0.5})
    by_host: dict[int, set[str]] = {}
    for row in web.rows(2_000, (0, 0)):
        by_host.setdefault(row.host, set()).add(row.end)
    assert all(len(ends) == 1 for ends in by_host.values())
    assert {end for ends in by_host.values() for end in ends} == {IMAGE, Reason.TIMEOUT}


def test_hosts_are_drawn_by_the_seed_of_the_web_rows_by_their_own() -> None:
    web = read_web()
    assert web.rows(50, (1, 2)) == read_web().rows(50, (1, 2)) != web.rows(50, (1, 3))
    other = replace(web, seed=1)
    assert list(other.host_latency[:5]) != list(web.host_latency[:5])


@given(st.floats(0, 1_000))
def test_failures_are_scaled_to_no_more_than_all(factor: float) -> None:
    web = read_web().with_failures(factor)
    for ends in (web.head, web.tail):
        assert sum(ends.values()) == pytest.approx(1.0, abs=1e-4)
        assert all(share >= 0 for share in ends.values())


def test_a_faster_web_answers_sooner() -> None:
    web = even(3, latency=1.0).at_time_scale(0.1)
    assert web.latency.median == pytest.approx(0.1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: entry.pop("shares"),
        lambda entry: entry.update(tail_hosts="many"),
        lambda entry: entry["head"].update(nonsense=0.1),
        lambda entry: entry.update(latency={"mean": 1}),
    ],
)
def test_a_damaged_mix_is_one_line(spoil: object, tmp_path: Path) -> None:
    entry = json.loads(SHIPPED.read_bytes())
    spoil(entry)  # type: ignore[operator]
    path = tmp_path / "mix.json"
    path.write_text(json.dumps(entry))
    with pytest.raises(DataError, match=r"mix\.json: not a whole mix") as caught:
        read_web(path)
    assert "\n" not in str(caught.value)


# From what an ingestion saw


def test_statistics_of_an_ingestion_are_a_web(tmp_path: Path) -> None:
    RunStatistics().write(tmp_path)
    with pytest.raises(DataError, match=r"run\.json: no row in it"):
        read_web(tmp_path)


# From a report

LINES = [
    "http://a.example/1\tval\t200\timage/jpeg\t100.0\tf\t{}",
    "https://a.example/2\tval\t404\t\t\t\t{}",
    "https://b.example/3\tval\t408\t\t\t\t",
    "https://c.example/4\tval\t200\ttext/html\t\tf\t{}",
]


def test_a_report_becomes_a_mix(tmp_path: Path) -> None:
    report, output = tmp_path / "report.tsv.gz", tmp_path / "mix.json"
    report.write_bytes(gzip.compress("\n".join(LINES).encode()))
    entry = mix(read_report(report), "report")
    assert entry["secure"] == 0.75
    assert entry["shares"] == [0.5, 0.25, 0.25]
    assert entry["head"] == {
        IMAGE: 0.25,
        Reason.NOT_FOUND: 0.25,
        Reason.NOT_AN_IMAGE: 0.25,
        Reason.TIMEOUT: 0.125,
        Reason.DISCONNECTED: 0.125,
    }
    write_json(output, entry)
    assert read_web(output).rows(10, (0, 0))
    assert "example" not in output.read_text()


def test_a_report_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.tsv"
    report.write_text("http://a.example\tval\n")
    monkeypatch.setattr("sys.argv", ["mix", str(report), "--output", str(tmp_path / "out")])
    assert main() == 1
    assert capsys.readouterr().err.count("\n") == 1


@given(st.integers(1, 3_000), st.integers(2, 3_000))
def test_as_many_hosts_as_would_show_so_many(seen: int, more: int) -> None:
    rows = seen + more
    hosts = hosts_behind(seen, rows)
    assert hosts >= seen
    assert hosts * (1 - (1 - 1 / hosts) ** rows) == pytest.approx(seen, rel=0.05, abs=2)


@pytest.mark.shared
@pytest.mark.skipif(not REPORT.exists(), reason="needs the 2019 report")
def test_the_shipped_mix_is_that_of_the_report() -> None:
    assert mix(read_report(REPORT), REPORT.name) == json.loads(SHIPPED.read_bytes())
