"""A small run in folders, made by the stages themselves but for pixels; and it as Pachyderm."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from capstan.cli import main
from capstan.feature_shards import write_feature_shard
from capstan.files import sha256_file, write_json
from capstan.ingest.rows import read_rows
from capstan.records import (
    PREDICTION_FORMAT,
    PREDICTION_VERSION,
    Answer,
    Extractor,
    Failure,
    Feature,
    Image,
    Outcome,
    Reason,
    row_key,
)
from capstan.shards import read_images, write_image_shard
from tests.report.lineage.pachd import Pachd

EXTRACTOR = Extractor("resnet50-avg", "random:1", "1" * 64, 32, "caffe-center-crop")
CHUNKS = ("cc.tsv/0000000000000000", "cc.tsv/0000000000000001")
NOT_FOUND, EMPTY, CORRUPT, GOOD = 1, 2, 3, 4  # rows of a chunk, and what becomes of them

Trace = Callable[..., int]


def lines(chunk: str) -> bytes:
    """Twelve rows, each of another colour."""
    captions = [f"A {chunk[-1]} coloured circle number {index}." for index in range(12)]
    captions[EMPTY] = "..."
    return "".join(
        f"{each}\thttp://pictures.test/{i}\n" for i, each in enumerate(captions)
    ).encode()


def make_run(root: Path) -> None:
    """Two chunks through all stages; the captioner learns for an epoch."""
    for chunk in CHUNKS:
        path = root / "rawdata" / chunk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines(chunk))
        _ingest(root, chunk)
        _featurize(root, chunk)
    assert consolidate(root) == 0
    folders = ("--input", root / "consolidate", "--output", root / "model")
    assert run("train", *folders, "--profile", "small", "--epochs", 1, "--min-count", 1) == 0
    _predict(root)


def run(*words: object) -> int:
    """The command, in this process."""
    return main([str(word) for word in words])


def consolidate(root: Path) -> int:
    """Training shards of what is there."""
    folders = ("--input", root / "rawdata", "--features", root / "features")
    return run("consolidate", *folders, "--output", root / "consolidate")


def outcomes(root: Path, chunk: str) -> list[Outcome]:
    """What becomes of the rows of a chunk on the web."""
    found = []
    with (root / "rawdata" / chunk).open("rb") as file:
        for row in read_rows(file, chunk):
            assert not isinstance(row, Outcome)
            data = f"picture {row.key}".encode()
            image = Image(data, 1, 1, 1, 1, hashlib.sha256(data).hexdigest())
            failed = Failure(Reason.NOT_FOUND) if row.index == NOT_FOUND else None
            found.append(Outcome(row, Answer(404 if failed else 200, 1), failed or image))
    return found


def of_chunk(root: Path, chunk: str) -> dict[str, str]:
    """What an image shard, or a fused one, says it was made of."""
    return {"source_sha256": sha256_file(root / "rawdata" / chunk)}


def _ingest(root: Path, chunk: str) -> None:
    write_image_shard(root / "images", chunk, outcomes(root, chunk), of_chunk(root, chunk))


def _featurize(root: Path, chunk: str) -> None:
    tar = root / "images" / f"{chunk}.tar"
    features: list[Feature] = []
    for image in read_images(tar):
        if image.key == row_key(chunk, CORRUPT):
            features.append(Feature(image.key, image.sha256, None, Reason.CORRUPT_IMAGE))
        else:
            number = sum(feature.row is not None for feature in features)
            features.append(Feature(image.key, image.sha256, number))
    vectors = np.random.default_rng(0).random((len(features) - 1, 12))
    provenance = {"source_sha256": sha256_file(tar)}
    write_feature_shard(
        root / "features", chunk, features, vectors.astype(np.float16), EXTRACTOR, provenance
    )


def _predict(root: Path) -> None:
    """What `capstan predict` writes; `tests/predict` has the real thing."""
    picture = root / "inpredict" / "new" / "one.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"a picture")
    said = {"caption": "a circle", "reason": None, "file": "new/one.png"}
    hashes = {
        "sha256": sha256_file(picture),
        "model_sha256": sha256_file(root / "model" / "saved" / "saved_model.keras"),
    }
    head = {"format": PREDICTION_FORMAT, "version": PREDICTION_VERSION}
    write_json(root / "predict" / "new" / "one.png.json", {**head, **said, **hashes})
    (root / "predict" / "new" / "one.png.txt").write_text("a circle\n")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; to read only."""
    root = tmp_path_factory.mktemp("whole")
    make_run(root)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The run; to do things to."""
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.fixture
def trace(capsys: pytest.CaptureFixture[str]) -> Trace:
    """`capstan trace`, in this process, after which `capsys` holds its output alone."""
    capsys.readouterr()
    return lambda *words: run("trace", *words)


@pytest.fixture(scope="session")
def pachd(whole: Path) -> Iterator[Pachd]:
    """The run as commits of a Pachyderm, whose newest commit of `model` is not finished."""
    with Pachd(whole) as pachd:
        yield pachd
