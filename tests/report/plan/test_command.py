"""`capstan plan`: text, JSON, page, and errors in one line."""

import json
import re
from pathlib import Path

import pytest

from capstan.cli import main

QUICK = ("plan", "--rows", "400", "--chunk-rows", "100", "--seeds", "2")


def test_text_says_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--workers", "3", "--gpus", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("400 rows, 3 workers of 4 cores, 2 GPUs: ")
    for word in (
        "images",
        "longest: ",
        "twice the GPUs",
        "not found",
        "image shards",
        "connections",
    ):
        assert word in said, word
    assert "assumed, not measured: " in said


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--json", "--no-changes"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["format"] == "capstan-plan"
    assert sum(entry["ends"].values()) == 400
    seconds = sum(stage["seconds"] for stage in entry["stages"])
    assert entry["seconds"] == pytest.approx(seconds)
    assert entry["bottleneck"] in {stage["name"] for stage in entry["stages"]}
    assert entry["changes"] == []


def test_the_page_carries_all_and_loads_nothing(tmp_path: Path) -> None:
    output = tmp_path / "plan.html"
    assert main([*QUICK, "--output", str(output)]) == 0
    page = output.read_text()
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page)
    for word in ("The stages over time", "Storage over time", "What a change would bring"):
        assert word in page
    assert page.count('class="pipeline"') == 5


def test_rates_of_yours_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = tmp_path / "rates.json"
    rates.write_text('{"load_rows": 100}')
    assert main([*QUICK, "--json", "--no-changes", "--rates", str(rates)]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["stages"][0]["seconds"] == pytest.approx(4)
    assert entry["rates"]["load_rows"]["origin"] == "given"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--rows", "0"], 2, "--rows 0: give at least 1"),
        (["--workers", "0"], 2, "--workers 0: give at least 1"),
        (["--chunk-rows", "1000000"], 2, "--chunk-rows 1000000: give at most 100,000"),
        (["--seeds", "0"], 2, "--seeds 0: give 1 to 1,000"),
        (["--seed", "-1"], 2, "--seed -1: give at least 0"),
        (["--bandwidth", "nan"], 2, "--bandwidth nan: give at least"),
        (["--rates", "{folder}/none.json"], 2, "none.json: No such file"),
        (["--rates", "{folder}/bad.json"], 1, "bad.json: no rate speed"),
        (["--rates", "{folder}/zero.json"], 1, "zero.json: disk: 0.0 bytes/s is no rate"),
        (["--rates", "{folder}/text.json"], 1, "text.json: "),
        (["--web", "{folder}/none.json"], 1, "none.json"),
        (["--web", "{folder}"], 1, "run.json"),
        (["--output", "{folder}"], 2, "is a folder"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    status: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.json").write_text('{"speed": 1}')
    (tmp_path / "zero.json").write_text('{"disk": 0}')
    (tmp_path / "text.json").write_text("fast")
    filled = [word.format(folder=tmp_path) for word in words]
    assert main([*QUICK, *filled]) == status
    line = capsys.readouterr().err
    assert "error: " in line
    assert said in line
    assert line.count("\n") == 1
