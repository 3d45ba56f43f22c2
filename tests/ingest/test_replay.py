import io
from collections import Counter
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.replay import read_report
from capstan.errors import DataError
from capstan.testing.photolike import SMALLEST, Sizes
from capstan.testing.replies import Fault
from capstan.testing.simulated_web import SimulatedWeb

LEAST = len(Sizes()["1.jpg"])  # bytes of the smallest photo
LINES = [
    ("http://a.example/1.jpg", "200", "image/jpeg", "31039.0", "{'Server': 'x'}"),
    ("https://b.example/2.png", "200", "image/png", "900", "{}"),
    ("http://a.example/3.jpg", "404", "", "", "{}"),
    ("http://c.example/4.jpg", "408", "", "", ""),
    ("http://c.example/5.jpg", "408", "", "", "{'Server': 'x'}"),
    ("http://c.example/6.jpg", "200", "text/html", "50", "{}"),
]


def write(path: Path) -> Path:
    path.write_text(
        "".join(f"{u}\tvalidation\t{s}\t{k}\t{n}\tfile\t{h}\n" for u, s, k, n, h in LINES)
    )
    return path


def test_a_report_becomes_hosts_and_paths(tmp_path: Path) -> None:
    report = read_report(write(tmp_path / "report.tsv"))
    paths = [answer.path for answer in report.answers]
    assert paths[:3] == ["/200/31039.jpg", "/200/900.png", "/404/0.jpg"]
    assert paths[3] in ("/stalled/0.jpg", "/reset/0.jpg")
    assert paths[4:] == ["/408/0.jpg", "/html/50.jpg"]
    assert report.names == ("a.example", "b.example", "c.example")
    web = SimulatedWeb(report.hosts())
    urls = report.urls(web, 8)
    assert len(set(urls)) == 8  # the report over again, under other addresses
    assert urls[6].startswith(f"http://{web.addresses['a.example']}:{web.port}/200/31039.jpg?")


def test_time_scale_and_bad_hosts(tmp_path: Path) -> None:
    report = read_report(write(tmp_path / "report.tsv"))
    [bad] = report.bad  # a fifth of three
    slow, fast = report.hosts(), report.hosts(time_scale=0.1)
    for before, after in zip(slow, fast, strict=True):
        assert after.latency == pytest.approx(before.latency / 10)
        assert after.bandwidth == pytest.approx(before.bandwidth * 10)
    for host, spoiled in zip(slow, report.hosts(harsh=True), strict=True):
        assert (host != spoiled) == (host.name == bad)
        assert spoiled.name != bad or spoiled.fault is Fault.STALLED or spoiled.bandwidth < 2_000
    web = SimulatedWeb(slow)
    healthy = report.urls(web, 20, healthy_only=True)
    assert not any(web.base(bad) in url for url in healthy)


@pytest.mark.parametrize("text", ["", "only\tthree\tcolumns\n", "\0\n"])
def test_what_is_no_report_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match="report"):
        read_report(path)
    with pytest.raises(DataError, match=r"none\.gz"):
        read_report(tmp_path / "none.gz")


@pytest.mark.shared
def test_the_real_report(captions: Path) -> None:
    report = read_report(captions / "downloaded_validation_report.tsv.gz")
    first = Counter(answer.path.split("/")[1] for answer in report.answers)
    assert len(report.answers) == 15_840
    assert (len(report.names), len(report.bad)) == (3_377, 675)
    assert first["200"] + first["html"] == 14_802
    assert first["stalled"] + first["reset"] == 289


@given(st.integers(1, 20_000))
@example(LEAST + 3)
@example(LEAST + 4)
def test_photos_have_the_size_that_was_asked_for(size: int) -> None:
    body = Sizes()[f"{size}.jpg"]
    assert len(body) == (LEAST if size < LEAST + 4 else size)  # a comment takes four bytes or more
    with PIL.Image.open(io.BytesIO(body)) as picture:
        picture.load()
        assert (picture.format, picture.width > picture.height) == ("JPEG", True)


def test_photos_that_cannot_be() -> None:
    assert Sizes()["0.jpg"] == b""
    assert len(Sizes()["1.jpg"]) < 1.5 * SMALLEST
    assert "cat.jpg" not in Sizes()
