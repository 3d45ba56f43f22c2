"""From image shards to feature shards, with a real ResNet50 on small pictures."""

import logging
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

import capstan.featurize.extractor
from capstan.errors import DataError, SettingError
from capstan.feature_shards import open_features, read_feature_shard
from capstan.featurize import weights
from capstan.featurize.config import Config
from capstan.featurize.extractor import ResNetExtractor
from capstan.featurize.run import featurize as featurize_shards
from capstan.records import Reason
from tests.commands import run_here
from tests.featurize.conftest import CHUNK, SIZE, jpeg, write_images
from tests.networks import loaded

built = cache(weights.load_resnet50)  # nothing here changes one


@pytest.fixture(scope="module")
def extractor() -> ResNetExtractor:
    return loaded("random:3", SIZE, batch_size=4)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "in", tmp_path / "out", "random:3", SIZE, batch_size=4)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch, extractor: ResNetExtractor) -> list[int]:
    """Use one real extractor for all runs; tell how many pictures each call was given."""
    counts: list[int] = []
    extract = extractor.extract

    def counting(pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
        counts.append(len(pictures))
        return extract(pictures)

    monkeypatch.setattr(extractor, "extract", counting)
    monkeypatch.setattr(capstan.featurize.extractor, "ResNetExtractor", lambda *_: extractor)
    return counts


def test_features_do_not_depend_on_batch_neighbours_or_order(extractor: ResNetExtractor) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (9, SIZE, SIZE, 3), np.uint8)
    together = extractor.extract(pictures)
    assert together.shape == (9, 2048)
    assert together.dtype == np.float16
    alone = np.concatenate([extractor.extract(picture[None]) for picture in pictures])
    backwards = extractor.extract(pictures[::-1])[::-1]
    assert np.array_equal(together, alone)
    assert np.array_equal(together, backwards)
    assert np.isfinite(together).all()
    assert together.astype(np.float32).std(axis=0).mean() > 0.01  # pictures differ


def test_shard_has_a_row_for_every_picture(config: Config, computed: list[int]) -> None:
    pictures = [jpeg(0), jpeg(1), b"no picture", jpeg(0), jpeg(2), jpeg(1)]
    write_images(config.input, pictures)
    featurize_shards(config)
    shard = read_feature_shard(config.output / f"{CHUNK}.parquet")
    assert [row.row for row in shard.rows] == [0, 1, None, 2, 3, 4]
    assert shard.rows[2].reason == Reason.NOT_AN_IMAGE
    vectors = open_features(config.output / f"{CHUNK}.npy", shard.npy_sha256)
    assert vectors.shape == (5, 2048)
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[1], vectors[4])
    assert sum(computed) == 3


def test_pictures_are_spared_over_shards(config: Config, computed: list[int]) -> None:
    write_images(config.input, [jpeg(0), jpeg(1)], "a")
    write_images(config.input, [jpeg(1), jpeg(2)], "b")
    featurize_shards(config)
    assert sum(computed) == 3


def test_second_run_does_nothing_and_says_so(
    config: Config, computed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_images(config.input, [jpeg(0)], "a")
    write_images(config.input, [jpeg(1)], "b")
    featurize_shards(config)
    featurize_shards(config)
    assert "2 shards: 2 unchanged, 0 to do" in caplog.text
    write_images(config.input, [jpeg(2)], "b")
    featurize_shards(config)
    assert "2 shards: 1 unchanged, 1 to do" in caplog.text
    assert sum(computed) == 3


def test_shard_without_pictures(config: Config, computed: list[int]) -> None:
    write_images(config.input, [])
    featurize_shards(config)
    shard = read_feature_shard(config.output / f"{CHUNK}.parquet")
    assert shard.rows == []
    assert open_features(config.output / f"{CHUNK}.npy", shard.npy_sha256).shape == (0, 2048)


def test_truncated_shard_costs_no_other(config: Config, computed: list[int]) -> None:
    write_images(config.input, [jpeg(0), jpeg(1)])
    tar = config.input / f"{CHUNK}.tar"
    tar.write_bytes(tar.read_bytes()[:4096])
    write_images(config.input, [jpeg(2)], "other")
    with pytest.raises(DataError, match=r"0000000000000000\.tar: damaged \(truncated at byte 4096"):
        featurize_shards(config)
    made = [path.name for path in config.output.rglob("*") if path.is_file()]
    assert sorted(made) == ["other.npy", "other.parquet"]


def test_weights_are_known_by_their_values(tmp_path: Path, extractor: ResNetExtractor) -> None:
    model, sha256 = built("random:3", SIZE)
    assert sha256 == extractor.identity.weights_sha256
    assert weights.load_resnet50("random:4", SIZE)[1] != sha256
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "a.keras")
    _, from_weights = weights.load_resnet50(str(tmp_path / "a.weights.h5"), SIZE)
    _, from_model = weights.load_resnet50(str(tmp_path / "a.keras"), SIZE)
    assert from_weights == from_model


def test_imagenet_weights_come_through_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cached.weights.h5"
    built("random:3", SIZE)[0].save_weights(path)
    asked: dict[str, str] = {}

    def get_file(name: str, origin: str, **options: str) -> str:
        asked.update(options, name=name, origin=origin)
        return str(path)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    _, sha256 = weights.load_resnet50("imagenet", SIZE)
    assert sha256 == weights.load_resnet50(str(path), SIZE)[1]
    assert asked["file_hash"] == "4d473c1dd8becc155b73f8504c6f6626"
    assert asked["origin"].startswith(
        "https://storage.googleapis.com/tensorflow/keras-applications"
    )

    def no_network(*_: str, **__: str) -> str:
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    with pytest.raises(SettingError, match=r"cannot be downloaded .* put resnet50_weights"):
        weights.load_resnet50("imagenet", SIZE)


def test_files_that_are_no_resnet50_weights(tmp_path: Path) -> None:
    (tmp_path / "bad.weights.h5").write_bytes(b"nothing")
    (tmp_path / "bad.keras").write_bytes(b"nothing")
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    other.save(tmp_path / "other.keras")
    for name in ("bad.weights.h5", "bad.keras", "other.weights.h5", "other.keras"):
        with pytest.raises(SettingError, match=rf"{name}: not .*headless ResNet50"):
            weights.load_resnet50(str(tmp_path / name), SIZE)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "absent.weights.h5"], "absent.weights.h5: no such weights; give --weights"),
        (["--weights", "/dev/null"], "/dev/null: no such weights"),
        (["--weights", "random:x"], "random:x: no such weights"),
        (["--image-size", "8"], "--image-size 8: ResNet50 takes 32 to 1024 pixels"),
        (["--batch-size", "0"], "--batch-size 0: give at least 1"),
        ([], "holds no image shards"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, flags: list[str], message: str) -> None:
    words = ["featurize", "--input", str(tmp_path), "--output", str(tmp_path / "out"), *flags]
    if flags:
        write_images(tmp_path, [jpeg(0)])
    done = run_here(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
