"""Shards: what is written is read back; what is damaged, altered or of another make is refused."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_expander

from capstan import feature_shards, shards
from capstan.errors import DataError
from capstan.feature_shards import (
    TrainingShard,
    open_features,
    read_feature_manifest,
    read_feature_shard,
    read_training_shard,
    write_feature_shard,
    write_training_shard,
)
from capstan.records import (
    Answer,
    Extractor,
    Failure,
    Feature,
    Image,
    Outcome,
    Reason,
    Row,
    row_key,
)
from capstan.schemas import EXAMPLE_SCHEMA
from capstan.shards import (
    read_image_stats,
    read_images,
    read_outcomes,
    tar_header,
    write_image_shard,
)
from tests.examples import examples

CHUNK = "cc.tsv/0000000000000000"
EXTRACTOR = Extractor("resnet50-avg", "random:1", "ab" * 32, 224, "caffe-center-crop")


def image_of(data: bytes) -> Image:
    return Image(data, 4, 3, 8, 6, hashlib.sha256(data).hexdigest())


def outcome(index: int, result: Image | Failure, caption: str = "a dog") -> Outcome:
    row = Row(index, row_key(CHUNK, index), caption, f"http://example.com/{index}.jpg")
    return Outcome(row, Answer(200, 1, 10, row.url), result)


results = st.one_of(
    st.binary(min_size=1, max_size=3000).map(image_of), st.sampled_from(Reason).map(Failure)
)


@examples(30)
@given(st.lists(st.tuples(results, st.text(st.characters(codec="utf-8"))), max_size=8))
def test_image_shard_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Image | Failure, str]]
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    outcomes = [outcome(index, result, caption) for index, (result, caption) in enumerate(rows)]
    stats = write_image_shard(folder, CHUNK, outcomes, {"source_sha256": "x"})
    images = list(read_images(folder / f"{CHUNK}.tar"))
    expected = [one for one in outcomes if isinstance(one.result, Image)]
    assert [(image.key, image.caption, image.data) for image in images] == [
        (one.row.key, one.row.caption, one.result.data)
        for one in expected
        if isinstance(one.result, Image)
    ]
    assert stats == read_image_stats(folder / f"{CHUNK}_stats.json")
    assert stats["rows"] == len(rows) == stats["images"] + sum(stats["failures"].values())
    table = read_outcomes(folder / f"{CHUNK}.parquet").to_pylist()
    assert [line["key"] for line in table] == [one.row.key for one in outcomes]
    assert [line["caption"] for line in table] == [one.row.caption for one in outcomes]


def write_shard(folder: Path, count: int = 3) -> Path:
    outcomes = [outcome(index, image_of(bytes([index]) * 900)) for index in range(count)]
    outcomes.append(outcome(count, Failure(Reason.NOT_FOUND)))
    write_image_shard(folder, CHUNK, outcomes, {"source_sha256": "x"})
    return folder / f"{CHUNK}.tar"


def test_equal_outcomes_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shard(tmp_path / name)
    for suffix in (".tar", ".parquet", "_stats.json"):
        one, two = (tmp_path / name / f"{CHUNK}{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_webdataset_reads_image_shards(tmp_path: Path) -> None:
    tar = write_shard(tmp_path)
    with tar.open("rb") as stream:
        source = [{"url": tar.name, "stream": stream}]
        samples = list(group_by_keys(tar_file_expander(source)))
    assert [sample["__key__"] for sample in samples] == [row_key(CHUNK, i) for i in range(3)]
    assert samples[1]["jpg"] == b"\1" * 900
    assert samples[1]["txt"] == b"a dog"


def test_empty_image_shard_is_read(tmp_path: Path) -> None:
    write_image_shard(tmp_path, CHUNK, [outcome(0, Failure(Reason.DNS))], {})
    assert list(read_images(tmp_path / f"{CHUNK}.tar")) == []


def test_every_truncation_of_a_tar_is_refused(tmp_path: Path) -> None:
    tar = write_shard(tmp_path)
    whole = tar.read_bytes()
    for size in [0, 1, *range(512, len(whole), 512), len(whole) - 1]:
        tar.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"0000000000000000\.tar: .*"):
            list(read_images(tar))


def test_altered_picture_is_refused(tmp_path: Path) -> None:
    tar = write_shard(tmp_path)
    tar.write_bytes(tar.read_bytes().replace(b"\1" * 900, b"\1" * 899 + b"\2"))
    with pytest.raises(DataError, match=r"-000001\.jpg at byte 4608 does not match its sha256"):
        list(read_images(tar))


def test_foreign_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("x.jpg"), io.BytesIO())
    with pytest.raises(DataError, match="not a capstan-image-shard"):
        list(read_images(path))


def test_other_versions_are_refused(tmp_path: Path) -> None:
    with (
        mock.patch.object(shards, "VERSION", 99),
        mock.patch.object(feature_shards, "VERSION", 99),
    ):
        tar = write_shard(tmp_path)
        features(tmp_path / "features")
    for read, path in (
        (lambda path: list(read_images(path)), tar),
        (read_outcomes, tar.with_suffix(".parquet")),
        (read_image_stats, tar.with_name(tar.name.replace(".tar", "_stats.json"))),
        (read_feature_shard, tmp_path / "features" / f"{CHUNK}.parquet"),
    ):
        with pytest.raises(DataError, match="version 99, but this capstan reads version 1"):
            read(path)


def features(folder: Path, count: int = 3) -> Path:
    rows = [Feature(f"k{index}", f"s{index}", index) for index in range(count)]
    rows.append(Feature("bad", "sbad", None, Reason.CORRUPT_IMAGE))
    array = np.arange(count * 2048).reshape(count, 2048).astype(np.float16)
    write_feature_shard(folder, CHUNK, rows, array, EXTRACTOR, {"source_sha256": "y"})
    return folder / f"{CHUNK}.parquet"


@pytest.mark.parametrize("count", [0, 3])
def test_feature_shard_round_trip(tmp_path: Path, count: int) -> None:
    parquet = features(tmp_path, count)
    shard = read_feature_shard(parquet)
    assert shard.extractor == EXTRACTOR
    assert shard.rows[-1] == Feature("bad", "sbad", None, Reason.CORRUPT_IMAGE)
    assert [row.row for row in shard.rows[:-1]] == list(range(count))
    array = open_features(parquet.with_suffix(".npy"), shard.npy_sha256)
    assert array.shape == (count, 2048)
    assert array.dtype == np.float16
    assert read_feature_manifest(parquet)["source_sha256"] == "y"


def test_altered_features_are_refused(tmp_path: Path) -> None:
    parquet = features(tmp_path)
    npy = parquet.with_suffix(".npy")
    npy.write_bytes(npy.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"\.npy: damaged"):
        open_features(npy, read_feature_shard(parquet).npy_sha256)
    npy.unlink()
    with pytest.raises(DataError, match=r"\.npy: missing"):
        open_features(npy, "")


@pytest.mark.parametrize("size", [0, 10, 500])
def test_truncated_parquet_is_refused(tmp_path: Path, size: int) -> None:
    parquet = features(tmp_path)
    parquet.write_bytes(parquet.read_bytes()[:size])
    with pytest.raises(DataError, match=r"\.parquet: not a whole parquet file"):
        read_feature_shard(parquet)


def test_one_kind_of_shard_is_not_taken_for_another(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a capstan-training-shard \(capstan-feature-shard\)"):
        read_training_shard(features(tmp_path))


def test_training_shard_round_trip(tmp_path: Path) -> None:
    examples = pa.Table.from_pylist(
        [
            {
                "key": "k",
                "sha256": "s",
                "row": 0,
                "caption": "A dog.",
                "cleaned": "a dog",
                "split": "train",
            }
        ],
        schema=EXAMPLE_SCHEMA,
    )
    write_training_shard(tmp_path, TrainingShard(CHUNK, EXTRACTOR, "hash", "standard", examples))
    shard = read_training_shard(tmp_path / f"{CHUNK}.parquet")
    assert (shard.chunk, shard.extractor, shard.npy_sha256) == (CHUNK, EXTRACTOR, "hash")
    assert shard.examples.to_pylist() == examples.to_pylist()


def test_stats_that_are_no_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x_stats.json"
    path.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_image_stats(path)
    path.write_text(json.dumps([1]))
    with pytest.raises(DataError, match="not a capstan-image-shard"):
        read_image_stats(path)


@given(
    name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=120),
    size=st.integers(0, 1 << 40),
)
def test_tar_headers_are_the_librarys(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    assert tar_header(name, size) == member.tobuf(tarfile.PAX_FORMAT)
