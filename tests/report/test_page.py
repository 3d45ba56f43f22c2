import json
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from capstan.cli import main
from capstan.errors import DataError, SettingError
from capstan.report.html import safe_link
from capstan.report.page import write_report
from capstan.report.run import read_model, read_run
from tests.report.conftest import ALL, OLD_METRICS, Plan

MakeRun = Callable[[Plan], Path]
NETWORK = {"script", "iframe", "object", "embed", "audio", "video", "base", "form"}


class Audit(HTMLParser):
    """Collects whatever could run or load something, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.links: list[str] = []
        self.pictures = 0
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in NETWORK:
            self.bad.append(tag)
        for name, value in attributes:
            if name.startswith("on"):
                self.bad.append(name)
            if name == "src":
                self.pictures += 1
                if not (value or "").startswith("data:image/jpeg;base64,"):
                    self.bad.append(f"src={value}")
            if name == "href" and tag == "a" and not (value or "").startswith("#"):
                self.links.append(value or "")
            if name == "style" and "url(" in (value or ""):
                self.bad.append("style url")

    def handle_data(self, data: str) -> None:
        self.text += data


def draw(run: Path) -> tuple[str, Audit]:
    output = run / "report.html"
    write_report(read_run(run), output)
    html = output.read_text()
    return html, Audit(html)


def test_full_run_tells_everything(make_run: MakeRun) -> None:
    html, page = draw(make_run(Plan(rows=300)))
    text = " ".join(page.text.split())
    assert page.bad == []
    assert page.pictures > 24
    for words in (
        "Coloured shapes",
        "Standardised features made the captions right.",
        "300 lines of text and address came in",
        "93.1 % right, word for word",
        "not found",
        "drawn by lot",
        "More that are not right",
        "4 of 5 are right",
        "rows/s",
        "captions/s",
        "18 epochs",
        "BLEU-4",
        "random:7",
        "Made for a test.",
        "CIDEr-D 5.2",
        "CIDEr-D 0.00",
        "startseq and endseq counted",
        "6.123",
        "3.0 on average, median 3, longest 5",
        "“a red circle”",
        "beam 3, length penalty 0.7",
    ):
        assert words in text
    assert "not run" not in text
    assert page.links
    assert all(link.startswith("http://pictures") for link in page.links)
    assert html.startswith("<!doctype html>")


@pytest.mark.parametrize("count", range(len(ALL)))
def test_partial_run_names_what_was_not_run(make_run: MakeRun, count: int) -> None:
    _, page = draw(make_run(Plan(stages=ALL[:count], finished=False)))
    assert page.bad == []
    assert "not run" in page.text
    assert "not finished" in page.text
    assert ("93.1 %" in page.text) == ("model" in ALL[:count])


def test_hostile_words_stay_words(make_run: MakeRun) -> None:
    attack = """</style><script>alert(1)</script><img src=x onerror=alert(1)>"' {{ 7 * 7 }}"""
    plan = Plan(
        rows=200,
        caption=lambda caption: f"{attack} {caption}",
        url=lambda url: f'{url}"onmouseover="alert(1)' if "red" in url else "javascript:alert(1)",
        title=attack,
        notes=[attack],
    )
    run = make_run(plan)
    (run / "inpredict/0.png").write_text(attack)
    html, page = draw(run)
    assert page.bad == []
    assert "<script" not in html
    assert "{{ 7 * 7 }}" in page.text
    assert "javascript:alert(1)" in page.text
    assert page.links
    assert all(link.startswith("http://pictures") for link in page.links)
    assert "no picture to show" in page.text


def test_half_characters_do_not_stop_the_page(make_run: MakeRun) -> None:
    run = make_run(Plan())
    line = {"key": "k", "sha256": "s", "references": ["\ud800"], "caption": "\ud800 \u202e x" * 900}
    (run / "repos/model/predictions.jsonl").write_text(json.dumps(line) + "\n")
    html, page = draw(run)
    assert page.bad == []
    assert len(html) < 100_000


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        ("http://a/b", True),
        ("HTTPS://a/b", True),
        ("javascript:alert(1)", False),
        (" javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//a/b", False),
        ("http://a/" + "b" * 3000, False),
    ],
)
def test_only_web_addresses_become_links(url: str, linked: bool) -> None:
    assert safe_link(url) == (url if linked else None)


def test_a_large_run_is_drawn_fast_and_small(make_run: MakeRun) -> None:
    run = make_run(Plan(rows=1500, chunks=3))
    begin = time.process_time()
    draw(run)
    assert time.process_time() - begin < 3
    assert (run / "report.html").stat().st_size < 3_000_000


def test_a_large_test_set_is_drawn_fast_and_small(make_run: MakeRun) -> None:
    run = make_run(Plan())
    path = run / "repos/model/predictions.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    line["references"] = [f"a {number} of true captions to compare with" for number in range(5)]
    many = [line | {"key": str(n), "sha256": str(n), "cider_d": n % 99} for n in range(20_000)]
    path.write_text("".join(json.dumps(line) + "\n" for line in many))
    begin = time.process_time()
    draw(run)
    assert time.process_time() - begin < 5
    assert (run / "report.html").stat().st_size < 1_000_000


def test_same_run_same_page(make_run: MakeRun) -> None:
    run = make_run(Plan())
    assert draw(run)[0] == draw(run)[0]


def test_command_writes_where_it_is_told(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(Plan())
    assert main(["report", str(run), "--output", str(tmp_path / "new/page.html")]) == 0
    assert (tmp_path / "new/page.html").is_file()
    assert not (run / "report.html").exists()
    assert main(["report", str(run)]) == 0
    assert "report.html" in capsys.readouterr().err


def test_missing_run_is_a_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no such folder; give one that `capstan run` wrote"):
        read_run(tmp_path / "none")
    assert main(["report", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_folder_without_a_run_is_a_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no run\.json"):
        read_run(tmp_path)


def test_output_that_is_a_folder_is_a_setting(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is a folder"):
        write_report(read_run(make_run(Plan())), tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", '{"format": "capstan-run", "version": 1}'),
        ("run.json", '{"format": "capstan-run", "version": 2}'),
        ("run.json", "{"),
        ("notes.json", "[]"),
        ("repos/model/metrics.json", '{"format": "capstan-metrics", "version": 1}'),
        ("repos/model/curves.jsonl", '{"epoch": 1}\n'),
        ("repos/model/metrics.json", json.dumps(OLD_METRICS | {"wording": {}})),
        ("repos/model/predictions.jsonl", '{"key": "k"}\n'),
        ("repos/model/predictions.jsonl", "no\n"),
        ("repos/images/shapes.tsv/0000000000000000.parquet", "PAR1"),
    ],
)
def test_damage_names_the_file_and_leaves_the_old_page(
    make_run: MakeRun, name: str, text: str
) -> None:
    run = make_run(Plan())
    (run / "report.html").write_text("old")
    (run / name).write_text(text)
    with pytest.raises(DataError, match=Path(name).name):
        write_report(read_run(run), run / "report.html")
    assert (run / "report.html").read_text() == "old"


# A model without a run


@pytest.fixture
def model(make_run: MakeRun) -> Path:
    """A model's folder that lies far from its run, whose image shards are in `images`."""
    run = make_run(Plan(rows=300))
    moved = (run / "repos/model").rename(run.parent / "model")
    (run / "repos/images").rename(run.parent / "images")
    return moved


def test_a_model_alone_has_a_page(model: Path) -> None:
    write_report(read_model(model), model / "page.html")
    page = Audit((model / "page.html").read_text())
    text = " ".join(page.text.split())
    assert page.bad == []
    assert page.pictures == 0
    assert "no picture to show" not in text
    for words in (
        "93.1 % right",
        "The best",
        "The worst",
        "18 epochs",
        "6.123",
        "Made for a test.",
    ):
        assert words in text
    for words in ("not run", "New pictures", "The run over time", "started", "What was lost"):
        assert words not in text


def test_a_model_alone_with_the_shards_of_its_pictures(model: Path) -> None:
    assert main(["report", "--model", str(model), "--images", str(model.parent / "images")]) == 0
    page = Audit((model / "report.html").read_text())
    assert page.pictures > 24
    assert page.bad == []


def test_a_model_while_it_learns(model: Path) -> None:
    for name in ("metrics.json", "predictions.jsonl"):
        (model / name).unlink()
    write_report(read_model(model), model / "page.html")
    text = Audit((model / "page.html").read_text()).text
    assert "A model has been trained, and not judged yet." in text
    assert "18 epochs" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RUN, --model, --statistics: give one"),
        (["run", "--model", "model"], "RUN, --model, --statistics: give one"),
        (["run", "--images", "images"], "goes with --model"),
        (["--model", "none"], "--model"),
        (["--model", "images"], "holds no metrics.json or curves.jsonl"),
        (["--model", "model", "--images", "none"], "--images"),
    ],
)
def test_unfit_folders_are_settings(
    model: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    folder = model.parent
    assert main(["report", *(w if w.startswith("-") else str(folder / w) for w in words)]) == 2
    assert message in capsys.readouterr().err
    assert not (model / "report.html").exists()


def test_figures_of_older_versions_are_shown(make_run: MakeRun) -> None:
    run = make_run(Plan())
    (run / "repos/model/metrics.json").write_text(json.dumps(OLD_METRICS))
    path = run / "repos/model/predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["cider_d"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, page = draw(run)
    assert "93.1 %" in page.text
    assert "BLEU-1 to 4 (tutorial)" in page.text
    assert "capstan evaluate gives it one" in page.text
    assert "How it speaks" not in page.text
