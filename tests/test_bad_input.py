"""What a user can get wrong: one line with the name and the cure, never a traceback, no debris."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from capstan import shards
from capstan.records import Answer, Image, Outcome, Row, row_key
from capstan.shards import write_image_shard
from tests.commands import run_here
from tests.networks import each_network_once
from tests.paths import ROOT

CHUNK = "cc.tsv/0000000000000000"
__all__ = ["each_network_once"]
pytestmark = pytest.mark.usefixtures("each_network_once")


def write_shard(folder: Path, version: int = shards.VERSION) -> Path:
    data = b"not really a picture"
    image = Image(data, 4, 4, 4, 4, hashlib.sha256(data).hexdigest())
    row = Row(0, row_key(CHUNK, 0), "a dog", "http://example.com/dog.jpg")
    with mock.patch.object(shards, "VERSION", version):
        write_image_shard(folder, CHUNK, [Outcome(row, Answer(200, 1, 20), image)], {})
    return folder / f"{CHUNK}.tar"


def missing_tsv(folder: Path) -> list[object]:
    return ["split", folder / "cc.tsv", "--rows", 10, "--output", folder / "out"]


def tsv_of_one_column(folder: Path) -> list[object]:
    (folder / "cc.tsv").write_text("a dog\na cat\n")
    return missing_tsv(folder)


def chunk_of_one_column(folder: Path) -> list[object]:
    (folder / "in").mkdir()
    (folder / "in" / "chunk").write_text("a dog\na cat\n")
    return ["ingest", "--input", folder / "in", "--output", folder / "out"]


def output_that_is_a_file(folder: Path) -> list[object]:
    (folder / "in").mkdir()
    (folder / "in" / "chunk").write_text("a dog\thttp://example.com/dog.jpg\n")
    (folder / "out").touch()
    return ["ingest", "--input", folder / "in", "--output", folder / "out"]


def run_of(folder: Path, specs: Path) -> list[object]:
    (folder / "rawdata").mkdir()
    repos = [f"--repo=rawdata={folder / 'rawdata'}", f"--repo=inpredict={folder / 'rawdata'}"]
    return ["run", "--pipelines", specs, *repos, "--output", folder / "run"]


def unknown_spec_field(folder: Path) -> list[object]:
    specs = folder / "specs"
    shutil.copytree(ROOT / "deploy" / "pipelines", specs)
    spec = json.loads((specs / "images.json").read_text())
    spec["transform"]["comand"] = "capstan"
    (specs / "images.json").write_text(json.dumps(spec))
    return run_of(folder, specs)


def featurize(folder: Path) -> list[object]:
    flags = ["--weights", "random:1", "--image-size", 32]
    return ["featurize", "--input", folder / "in", "--output", folder / "out", *flags]


def truncated_shard(folder: Path) -> list[object]:
    tar = write_shard(folder / "in")
    tar.write_bytes(tar.read_bytes()[:5000])
    return featurize(folder)


def shard_of_another_version(folder: Path) -> list[object]:
    write_shard(folder / "in", version=2)
    return featurize(folder)


def train_on_image_shards(folder: Path) -> list[object]:
    write_shard(folder / "in")
    return ["train", "--input", folder / "in", "--output", folder / "out"]


def model_without_vocabulary(folder: Path) -> list[object]:
    (folder / "saved").mkdir()
    for name in ("saved_model.keras", "model.json"):
        (folder / "saved" / name).touch()
    (folder / "dog.jpg").touch()
    return ["predict", folder / "dog.jpg", "--model", folder / "saved"]


def report_of_nothing(folder: Path) -> list[object]:
    return ["report", folder / "absent"]


@pytest.mark.parametrize(
    ("make", "status", "name", "cure"),
    [
        (missing_tsv, 2, "cc.tsv", "no such file"),
        (tsv_of_one_column, 1, "cc.tsv", "caption<TAB>url"),
        (chunk_of_one_column, 1, "chunk", "caption<TAB>url"),
        (output_that_is_a_file, 2, "out", "give another directory with --output"),
        (unknown_spec_field, 2, "images.json", "comand"),
        (truncated_shard, 1, f"{CHUNK}.tar", "delete the shard and make it again"),
        (shard_of_another_version, 1, f"{CHUNK}.tar", "make it again with this capstan"),
        (train_on_image_shards, 1, f"{CHUNK}.parquet", "not a capstan-training-shard"),
        (model_without_vocabulary, 1, "vocabulary.json", "copy it whole"),
        (report_of_nothing, 2, "absent", "capstan run"),
    ],
)
def test_bad_input(
    make: Callable[[Path], list[object]], status: int, name: str, cure: str, tmp_path: Path
) -> None:
    done = run_here(*make(tmp_path))
    *_, last = done.stderr.strip().splitlines()
    assert done.returncode == status, done.stderr
    assert "error: " in last
    assert name in last
    assert cure in last
    assert "Traceback" not in done.stderr
    out = tmp_path / "out"
    assert not out.is_dir() or [path for path in out.rglob("*") if path.is_file()] == []
