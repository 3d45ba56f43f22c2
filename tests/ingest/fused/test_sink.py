"""Chunks through the engine of `ingest` into feature shards, with a quick extractor."""

from collections import Counter
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from capstan.feature_shards import open_features, read_feature_shard
from capstan.featurize.pictures import decode
from capstan.ingest.config import IngestSettings
from capstan.ingest.fused import remote
from capstan.ingest.fused.sink import FeatureSink, feature_sink
from capstan.records import Failure, Reason
from capstan.shards import OUTCOMES_SUFFIX, read_outcomes
from capstan.testing.web import Web
from tests.ingest.conftest import files, work_here, write_chunk
from tests.ingest.fused.conftest import NETWORK, SIZE, fuse

PARTS = (".npy", ".parquet", "_outcomes.parquet", "_stats.json")


def test_what_fails_to_decode_has_its_reason_and_no_vector(
    web: Web, settings: IngestSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = count()

    def every_second(data: bytes, size: int) -> NDArray[np.uint8] | Failure:
        return decode(data, size) if next(answers) % 2 else Failure(Reason.CORRUPT_IMAGE)

    monkeypatch.setattr(remote, "decode", every_second)
    names = [f"{n}.jpg" for n in range(5)]
    write_chunk(settings, "0", [(name, web.url(name)) for name in names])
    assert fuse(settings) == ["0"]
    outcomes = read_outcomes(settings.output / f"0{OUTCOMES_SUFFIX}").to_pylist()
    shard = read_feature_shard(settings.output / "0.parquet")
    vectors = open_features(settings.output / "0.npy", shard.npy_sha256)
    assert Counter(row["reason"] for row in outcomes) == {None: 2, "corrupt_image": 3}
    assert [row.key for row in shard.rows] == [
        row["key"] for row in outcomes if row["reason"] is None
    ]
    assert [row.row for row in shard.rows] == list(range(len(vectors)))


def test_a_chunk_without_a_picture_is_an_empty_shard(settings: IngestSettings) -> None:
    write_chunk(settings, "0", [("a", "no url")])
    fuse(settings)
    assert np.load(settings.output / "0.npy").shape == (0, 2048)
    assert read_feature_shard(settings.output / "0.parquet").rows == []


def test_what_is_unchanged_is_not_done_again(web: Web, settings: IngestSettings) -> None:
    for chunk in ("0", "1"):
        write_chunk(settings, chunk, [("a", web.url("wide.jpg", row=int(chunk)))])
    assert fuse(settings) == ["0", "1"]
    before = files(settings.output)
    assert sorted(before) == [f"{chunk}{part}" for chunk in ("0", "1") for part in PARTS]
    assert fuse(settings) == []
    (settings.output / "1.npy").unlink()
    assert fuse(settings) == ["1"]
    assert files(settings.output) == before
    assert fuse(settings, replace(NETWORK, precision="float32")) == ["0", "1"]


def test_image_shards_and_feature_shards_are_not_taken_for_each_other(
    web: Web, settings: IngestSettings
) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg"))])
    fuse(settings)
    assert len(work_here(settings)) == 1
    assert fuse(settings) == ["0"]


def test_a_sink_belongs_to_one_network() -> None:
    sink = feature_sink(NETWORK)
    assert isinstance(sink, FeatureSink)
    assert sink.identity == {
        "weights_source": "random:3",
        "image_size": SIZE,
        "precision": "auto",
        "runtime": "tensorflow",
    }
