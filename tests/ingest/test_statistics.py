import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.ingest import statistics as module
from capstan.ingest.config import IngestSettings
from capstan.ingest.run import ingest
from capstan.ingest.statistics import Latencies, RowStatistics
from capstan.records import Answer, Failure, Reason
from capstan.testing.web import Fault, Web
from tests.ingest.conftest import files, write_chunk


@given(seconds=st.lists(st.floats(1e-4, 1e4), min_size=1), percent=st.floats(1, 100))
def test_percentiles_are_near_the_exact_ones(seconds: list[float], percent: float) -> None:
    latencies = Latencies()
    for value in seconds:
        latencies.note(value)
    exact = sorted(seconds)[-int(-len(seconds) * percent // 100) - 1]
    assert latencies.percentile(percent) == pytest.approx(exact, rel=0.026)


def test_nothing_has_no_percentiles() -> None:
    assert Latencies().percentile(50) is None


def test_few_hosts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HOSTS", 2)
    total = RowStatistics()
    for name, rows in (("a", 1), ("b", 5), ("c", 2), ("d", 3), ("e", 4)):
        one = RowStatistics()
        for _ in range(rows):
            one.note(name, Answer(200, 1, 10), Failure(Reason.EMPTY_BODY), 0.1)
        total.add(one)
    assert [name for name, _ in total.busiest()] == ["b", "e"]
    assert total.numbers()["rows"] == 15  # of the hosts that were dropped, too


def test_a_run_says_what_it_saw(web: Web, settings: IngestSettings, tmp_path: Path) -> None:
    faults = [Fault.NONE, Fault.NOT_FOUND, Fault.FLAKY, Fault.REDIRECT]
    for chunk in range(2):
        rows = [(f"{fault}", web.url("wide.jpg", fault, chunk)) for fault in faults]
        write_chunk(settings, f"cc.tsv/{chunk}", rows)
    directory = tmp_path / "statistics"
    ingest(replace(settings, statistics=directory))

    run = json.loads((directory / "run.json").read_text())
    size = sum(row["bytes"] for row in pq.read_table(directory / "hosts.parquet").to_pylist())
    assert (run["rows"], run["images"], run["attempts"], run["bytes"]) == (8, 6, 10, size)
    assert run["http_statuses"] == {"200": 6, "404": 2}
    assert run["reasons"] == {"not_found": 2}
    assert 0 < run["latency"]["p50"] <= run["latency"]["p99.9"] < 10
    (host,) = pq.read_table(directory / "hosts.parquet").to_pylist()
    assert (host["host"], host["rows"], host["reasons"]) == ("127.0.0.1", 8, "not_found 2")
    shards = pq.read_table(directory / "shards.parquet").to_pylist()
    assert sorted(shard["shard"] for shard in shards) == ["cc.tsv/0", "cc.tsv/1"]
    assert [shard["rows"] for shard in shards] == [4, 4]
    timeline = pq.read_table(directory / "timeline.parquet").to_pylist()
    assert sum(second["rows"] for second in timeline) == 8
    assert sum(second["bytes"] for second in timeline) == size
    assert not any("statistics" in name for name in files(settings.output))
