"""`capstan trace` over folders: what it finds, and that it finds what was tampered with."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.feature_shards import write_feature_shard
from capstan.files import read_json, write_json
from capstan.records import Feature, Image, row_key
from capstan.report.lineage.row import find_row
from capstan.report.lineage.source import FolderFiles
from capstan.report.lineage.tree import shown
from capstan.shards import FUSED, OUTCOMES_SUFFIX, outcome_row, write_outcomes
from tests.report.lineage.conftest import (
    CHUNKS,
    CORRUPT,
    EMPTY,
    EXTRACTOR,
    GOOD,
    NOT_FOUND,
    Trace,
    consolidate,
    lines,
    of_chunk,
    outcomes,
)

KEY = row_key(CHUNKS[0], GOOD)
PREDICTION = "predict/new/one.png.json"


@pytest.fixture
def stations(trace: Trace, capsys: pytest.CaptureFixture[str]) -> Any:
    """The steps below the first of a trace, by name."""

    def find(*words: object) -> dict[str, dict[str, Any]]:
        trace(*words, "--json")
        step = json.loads(capsys.readouterr().out)
        return {each["name"]: each for each in step["steps"]}

    return find


def states(step: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What was checked, and what came of it, of a step and all below."""
    for check in step["checks"]:
        yield check["what"], check["state"]
    for below in step["steps"]:
        yield from states(below)


def test_a_row_is_followed_to_the_model(whole: Path, stations: Any) -> None:
    found = stations(KEY, "--run", whole)
    assert list(found) == [
        *("TSV line", "outcome", "picture", "feature row", "training row", "model")
    ]
    line = found["TSV line"]["facts"]
    start, end = map(int, line["bytes"].split(" to "))
    assert lines(CHUNKS[0])[start:end].decode() == f"{line['caption']}\t{line['url']}\n"
    assert line["line"] == GOOD + 1
    picture = found["outcome"]["facts"]["sha256"]
    assert found["picture"]["facts"]["sha256"] == picture
    assert found["feature row"]["facts"]["row"] == 2  # of 0 and EMPTY before it
    assert found["training row"]["facts"]["cleaned"] == "a 0 coloured circle number 4"
    checked = [state for step in found.values() for _, state in states(step)]
    assert set(checked) == {"ok"}
    assert len(checked) == 3 + 1 + 3 + 5 + 4


@pytest.mark.parametrize(
    ("index", "last", "reason"),
    [
        (NOT_FOUND, "outcome", "not_found"),
        (EMPTY, "training row", "empty after cleaning"),
        (CORRUPT, "feature row", "corrupt_image"),
    ],
)
def test_a_lost_row_ends_with_its_reason(
    whole: Path, stations: Any, index: int, last: str, reason: str
) -> None:
    found = stations(f"{CHUNKS[1]}/{index}", "--run", whole)
    assert list(found)[-1] == last
    assert found[last]["facts"]["reason"] == reason


def test_a_model_tells_its_shards(
    whole: Path, trace: Trace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace("model", "--run", whole, "--json") == 0
    model = json.loads(capsys.readouterr().out)
    assert [step["place"] for step in model["steps"]] == list(CHUNKS)
    facts = model["facts"]
    assert facts["train"] + facts["validation"] + facts["test"] == 2 * (12 - 3)
    assert {state for _, state in states(model)} == {"ok"}


@pytest.mark.parametrize("name", [PREDICTION, "new/one.png.txt", "{run}/predict/new/one.png.txt"])
def test_a_prediction_leads_to_its_picture_and_model(whole: Path, stations: Any, name: str) -> None:
    assert "model" in stations(name.format(run=whole), "--run", whole)


def test_a_model_elsewhere_is_not_the_one_that_made_a_prediction(copy: Path, trace: Trace) -> None:
    network = copy / "model" / "saved" / "saved_model.keras"
    network.write_bytes(network.read_bytes() + b"!")
    assert trace(PREDICTION, "--run", copy) == 1


@pytest.mark.parametrize("text", ["A 1 coloured circle number 4.", "a 1 coloured CIRCLE number 4"])
def test_a_caption_leads_to_its_rows(whole: Path, stations: Any, text: str) -> None:
    assert stations(text, "--run", whole)["training row"]["place"] == row_key(CHUNKS[1], GOOD)


DAMAGED = [
    f"rawdata/{CHUNKS[0]}",
    f"images/{CHUNKS[0]}.tar",
    f"images/{CHUNKS[0]}.parquet",
    f"features/{CHUNKS[0]}.npy",
    f"features/{CHUNKS[0]}.parquet",
    f"consolidate/{CHUNKS[0]}.npy",
    f"consolidate/{CHUNKS[0]}.parquet",
    "model/saved/saved_model.keras",
    "model/saved/vocabulary.json",
]


@pytest.mark.parametrize("what", [KEY, "model"])
@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("how", ["altered", "truncated", "gone"])
def test_what_was_tampered_with_is_named(
    copy: Path, trace: Trace, capsys: pytest.CaptureFixture[str], what: str, name: str, how: str
) -> None:
    path = copy / name
    data = path.read_bytes()
    if how == "altered":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    assert trace(what, "--run", copy) == 1
    printed = capsys.readouterr()
    assert name in printed.err.splitlines()[-1]
    assert "Traceback" not in printed.err
    assert "[broken]" in printed.out


def test_features_without_pictures_lead_to_the_tsv(tmp_path: Path, stations: Any) -> None:
    """As `capstan ingest --featurize` writes them."""
    path = tmp_path / "rawdata" / CHUNKS[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(lines(CHUNKS[0]))
    all_rows, made_of = outcomes(tmp_path, CHUNKS[0]), of_chunk(tmp_path, CHUNKS[0])
    pictures = [each for each in all_rows if isinstance(each.result, Image)]
    rows = [
        Feature(each.row.key, each.result.sha256, number)
        for number, each in enumerate(pictures)
        if isinstance(each.result, Image)
    ]
    vectors = np.zeros((len(rows), 12), np.float16)
    features = tmp_path / "features"
    write_feature_shard(features, CHUNKS[0], rows, vectors, EXTRACTOR, made_of)
    suffixes = (".npy", ".parquet", OUTCOMES_SUFFIX)
    table = [outcome_row(each) for each in all_rows]
    write_outcomes(features, CHUNKS[0], FUSED, table, suffixes, made_of)
    assert consolidate(tmp_path) == 0
    found = stations(KEY, "--run", tmp_path)
    assert found["picture"]["facts"] == {"kept": "no, its features alone (ingest --featurize)"}
    assert found["training row"]["facts"]["cleaned"] == "a 0 coloured circle number 4"
    del found["model"]  # there is none
    assert {state for step in found.values() for _, state in states(step)} == {"ok"}


def test_stages_that_are_not_here_are_absent_not_broken(copy: Path, stations: Any) -> None:
    shutil.rmtree(copy / "images")
    shutil.rmtree(copy / "rawdata")
    found = stations(KEY, "--run", copy)
    absent = {
        name for name, step in found.items() for _, state in states(step) if state == "absent"
    }
    assert {"TSV line", "outcome", "picture"} <= absent
    assert not [1 for step in found.values() for _, state in states(step) if state == "broken"]
    assert found["training row"]["facts"]["split"]


def test_a_model_of_before_says_not_recorded(
    copy: Path, trace: Trace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "model" / "saved" / "model.json"
    old = read_json(path, "capstan-model", 1)
    write_json(
        path, {name: value for name, value in old.items() if name not in ("files", "shards")}
    )
    assert trace("model", "--run", copy) == 0
    assert capsys.readouterr().out.count("[not recorded]") == 4


def test_a_shallow_trace_reads_neither_tars_nor_arrays(copy: Path, trace: Trace) -> None:
    for path in copy.rglob("*.npy"):
        path.write_bytes(b"")
    assert trace("model", "--run", copy) == 1
    assert trace("model", "--run", copy, "--shallow") == 0


def test_a_model_alone_is_enough(copy: Path, tmp_path: Path, trace: Trace) -> None:
    alone = tmp_path / "taken"
    shutil.copytree(copy / "model" / "saved", alone)
    assert trace(alone) == 0
    assert trace(alone, "--run", copy) == 0


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("no such caption",), 1, "check it, and --run"),
        (("long " * 200,), 1, "check it, and --run"),
        ((f"{CHUNKS[0]}/12",), 1, "has no line 12"),
        (("model", "--commit", "model@master"), 2, "give --run grpc://HOST:PORT"),
        (("model", "--run", "/nowhere"), 2, "give one with --run"),
        (("model", "--run", "grpc://127.0.0.1:x"), 2, "write it as grpc://HOST:PORT"),
    ],
)
def test_what_cannot_be_traced_is_one_line(
    whole: Path,
    trace: Trace,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    run = () if "--run" in words else ("--run", whole)
    assert trace(*words, *run) == status
    last = capsys.readouterr().err.splitlines()[-1]
    assert says in last


@given(st.from_regex(r"[a-z._-]{1,9}/[0-9a-f]{1,16}", fullmatch=True), st.integers(0, 10**7))
def test_keys_lead_back_to_their_chunks(chunk: str, index: int) -> None:
    class OneChunk(FolderFiles):
        def files(self, repo: str) -> list[str]:
            return [chunk] if repo == "rawdata" else []

    source = OneChunk({})
    assert find_row(source, row_key(chunk, index)) == (chunk, index)
    assert find_row(source, f"{chunk}/{index}") == (chunk, index)


@given(st.text())
def test_a_terminal_obeys_no_caption(caption: str) -> None:
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", shown(caption))
