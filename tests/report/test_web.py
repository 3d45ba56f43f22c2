import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.cli import main
from capstan.errors import CapstanError, DataError, SettingError
from capstan.files import write_table
from capstan.ingest.config import IngestSettings
from capstan.ingest.run import ingest
from capstan.ingest.statistics import RunStatistics
from capstan.report.charts import BINS, BOX, rate_chart
from capstan.report.web import TOP, write_web_report
from capstan.testing.web import Fault, Web
from tests.ingest.conftest import write_chunk
from tests.report.conftest import write_statistics
from tests.report.test_page import Audit


def read(page: Path) -> Audit:
    cells = re.compile("</(td|th|dt|dd|small|p)>|<small>")  # words of two of them are two words
    return Audit(cells.sub(r"\g<0> ", page.read_text()))


def draw(directory: Path) -> Audit:
    write_web_report(directory, directory / "report.html")
    return read(directory / "report.html")


def words(page: Audit) -> str:
    return " ".join(page.text.split())


def test_a_real_run_is_told_with_its_numbers(
    web: Web, settings: IngestSettings, tmp_path: Path
) -> None:
    faults = [Fault.NONE, Fault.NOT_FOUND, Fault.FLAKY, Fault.REDIRECT]
    for chunk in range(2):
        rows = [(f"{fault}", web.url("wide.jpg", fault, chunk)) for fault in faults]
        write_chunk(settings, f"cc.tsv/{chunk}", rows)
    directory = tmp_path / "the-statistics"
    ingest(replace(settings, statistics=directory))
    assert main(["report", "--statistics", str(directory)]) == 0
    page = read(directory / "report.html")
    text = words(page)
    assert page.bad == page.links == []
    latency = json.loads((directory / "run.json").read_text())["latency"]["p50"]
    for expected in (
        "the-statistics",
        "8 rows on 1 host; 6 of them, 75.0 %, gave a picture.",
        "attempts per row 1.25",
        "not found the picture is gone 2 25.0 %",
        "200 ok 6 75.0 %",
        "404 not found 2 25.0 %",
        f"50 % {1000 * latency:,.0f} ms",
        "127.0.0.1 rows 8 images 6 attempts 10",
        "cc.tsv/1 rows 4 images 3 attempts 5",
        "2: not found 2",
    ):
        assert expected in text


def test_hosts_are_ranked_by_rows_and_by_failures(tmp_path: Path) -> None:
    sizes = {f"host-{n:02d}": (10 + n, 10 + n) for n in range(40)}
    write_statistics(tmp_path, sizes | {"bad-1": (9, 2), "bad-2": (9, 1)})
    text = words(draw(tmp_path))
    most, worst = text.split("With the most rows")[1].split("With the most failures")
    assert most.startswith(f", {TOP} of 42 ")
    assert most.index("host-39 rows 49 images 49") < most.index("host-38")
    assert "host-27" not in most
    assert worst.index("bad-2 rows 9 images 1 attempts 17 bytes 2.0 kB") < worst.index("bad-1")
    assert "host-39" not in worst
    assert "404 not found 15" in text
    assert "99 % 2.0 s" in text


def test_slowest_shards_come_first(tmp_path: Path) -> None:
    write_statistics(tmp_path, {"a": (3, 3)})
    path = tmp_path / "shards.parquet"
    table, line = pq.read_table(path), pq.read_table(path).to_pylist()[0]
    manifest = json.loads(table.schema.metadata[b"capstan"])
    lines = [line | {"shard": f"s-{n}", "latency_p99": n / 4} for n in range(30)]
    write_table(path, table.from_pylist(lines), manifest)
    text = words(draw(tmp_path)).split("The slowest")[1]
    assert text.startswith(f", {TOP} of 29 ")
    assert text.index("s-29 ") < text.index("7.2 s") < text.index("s-28 ") < text.index("7.0 s")
    assert "s-17 " not in text


def test_a_run_that_fetched_nothing(tmp_path: Path) -> None:
    RunStatistics().write(tmp_path)
    text = words(draw(tmp_path))
    assert "No row was fetched" in text
    assert "Nobody was asked." in text


def test_addresses_without_a_host_have_a_line(tmp_path: Path) -> None:
    write_statistics(tmp_path, {"": (3, 0)})
    assert "(no host) rows 3" in words(draw(tmp_path))


def test_hostile_hosts_stay_words(tmp_path: Path) -> None:
    write_statistics(tmp_path, {"</style><script>alert(1)</script>{{ 7 * 7 }}": (3, 1)})
    page = draw(tmp_path)
    assert page.bad == []
    assert "<script>alert(1)</script>{{ 7 * 7 }}" in page.text


def test_many_hosts_are_drawn_fast_and_small(tmp_path: Path) -> None:
    write_statistics(tmp_path, {f"h{n}.example": (2, 1) for n in range(20_000)})
    begin = time.process_time()
    draw(tmp_path)
    assert time.process_time() - begin < 3
    assert (tmp_path / "report.html").stat().st_size < 100_000


@pytest.mark.parametrize(
    "name", ["run.json", "hosts.parquet", "shards.parquet", "timeline.parquet"]
)
@pytest.mark.parametrize("text", [None, "PAR1", "[]", "{"])
def test_damage_names_the_file_and_leaves_the_old_page(
    tmp_path: Path, name: str, text: str | None
) -> None:
    write_statistics(tmp_path, {"a": (3, 1)})
    draw(tmp_path)
    old = (tmp_path / "report.html").read_bytes()
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        write_web_report(tmp_path, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == old


@pytest.mark.parametrize("name", ["hosts", "shards", "timeline"])
def test_columns_that_lack_name_the_file(tmp_path: Path, name: str) -> None:
    write_statistics(tmp_path, {"a": (3, 1)})
    path = tmp_path / f"{name}.parquet"
    table = pq.read_table(path)
    write_table(path, table.drop_columns("bytes"), json.loads(table.schema.metadata[b"capstan"]))
    with pytest.raises(DataError, match=rf"{name}.parquet: damaged .* ingest again"):
        draw(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "capstan-run"}, "not a capstan-ingest-statistics"),
        ({"version": 2}, "version 2, but this capstan reads version 1"),
        ({"http_statuses": None}, "damaged"),
        ({"reasons": {"dns": "x"}}, "damaged"),
        ({"latency": 3}, "damaged"),
        ({"seconds": None}, "damaged"),
    ],
)
def test_sums_of_another_kind(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_statistics(tmp_path, {"a": (3, 1)})
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | change))
    with pytest.raises(DataError, match=rf"run.json: .*{message}"):
        draw(tmp_path)


def test_unfit_paths_are_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--statistics"):
        write_web_report(tmp_path / "none", tmp_path / "page.html")
    write_statistics(tmp_path, {"a": (3, 1)})
    with pytest.raises(CapstanError, match="is a folder"):
        write_web_report(tmp_path, tmp_path)
    assert main(["report", "--statistics", str(tmp_path), "--model", str(tmp_path)]) == 2
    assert main(["report", "--statistics", str(tmp_path), "--images", str(tmp_path)]) == 2


@given(
    st.dictionaries(st.integers(0, 5000), st.integers(0, 10**9), max_size=40),
    st.floats(0, 5000),
)
def test_rates_keep_every_amount(amounts: dict[int, int], seconds: float) -> None:
    seconds = max([seconds, *amounts])
    chart = rate_chart("images", amounts, seconds)
    top = float(chart.y_ticks[-1].label.replace(",", ""))
    places = [tuple(map(float, at.split())) for at in chart.lines[0].path[1:].split("L")]
    assert len(places) <= 2 * (BINS + 1)
    assert (places[0][0], places[-1][0]) == (0, BOX)
    assert all(0 <= left <= BOX and 0 <= down <= BOX for left, down in places)
    drawn = sum(
        (right - left) / BOX * (1 - down / BOX) * top
        for (left, down), (right, _) in zip(places[::2], places[1::2], strict=True)
    )
    total = sum(amounts.values()) / max(seconds, 1e-3)
    assert drawn == pytest.approx(total, abs=0.2 * top)  # the drawing is in thousandths
