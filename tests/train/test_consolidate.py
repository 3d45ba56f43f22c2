import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import DataError, SettingError
from capstan.feature_shards import read_training_shard
from capstan.records import Feature, Reason, row_key
from capstan.train.consolidate import ConsolidateSettings, consolidate, read_captions

CHUNK = "cc.tsv/0000000000000000"


def add_odd_chunk(world: Any) -> None:
    """A good row, one without features, one that cleans to nothing, one bad row, one good."""
    lines = [b"A red star\thttp://a\n", b"lost\thttp://b\n", b"!!\thttp://c\n", b"no tab\n"]
    lines.append(b'"A ""tab\there"\thttp://d\r\n')
    features = [
        Feature(row_key(CHUNK, 0), "a" * 64, 0),
        Feature(row_key(CHUNK, 1), "b" * 64, None, Reason.CORRUPT_IMAGE),
        Feature(row_key(CHUNK, 2), "c" * 64, 1),
        Feature(row_key(CHUNK, 4), "d" * 64, 2),
    ]
    world.add_chunk(CHUNK, lines, features, np.eye(3))


def test_rows_join_by_key(world: Any) -> None:
    add_odd_chunk(world)
    counts = consolidate(world.folders, ConsolidateSettings())
    shard = read_training_shard(world.folders.output / f"{CHUNK}.parquet")
    assert [
        (row["key"], row["row"], row["caption"], row["cleaned"])
        for row in shard.examples.to_pylist()
    ] == [
        (row_key(CHUNK, 0), 0, "A red star", "a red star"),
        (row_key(CHUNK, 4), 2, '"A ""tab\there"', "a tab here"),
    ]
    assert counts["joined"] == 2
    assert counts["without features"] == 2
    assert counts["empty after cleaning"] == 1


@given(
    st.lists(
        st.text(
            st.characters(exclude_characters="\n", exclude_categories=["Cs"]),
        )
    )
)
def test_captions_are_read_unaltered(tmp_path_factory: Any, captions: list[str]) -> None:
    path = tmp_path_factory.mktemp("chunk") / "chunk"
    path.write_bytes(b"".join(caption.encode() + b"\thttp://x\n" for caption in captions))
    assert read_captions(path) == captions
    if captions:
        path.write_bytes(path.read_bytes()[:-1])
        assert read_captions(path) == captions


def test_vectors_are_linked_and_never_read(world: Any, tmp_path: Path) -> None:
    add_odd_chunk(world)
    vectors = tmp_path / "vectors"
    (vectors / CHUNK).parent.mkdir(parents=True)
    (vectors / f"{CHUNK}.npy").touch()  # empty, as Pachyderm gives it with empty_files
    folders = world.folders
    consolidate(
        type(folders)(folders.input, folders.features, vectors, folders.output),
        ConsolidateSettings(),
    )
    link = folders.output / f"{CHUNK}.npy"
    assert link.readlink() == vectors / f"{CHUNK}.npy"
    assert link.readlink().is_absolute()


@given(st.binary(), st.floats(0, 0.4), st.floats(0, 0.4))
def test_split_depends_on_the_picture_only(data: bytes, validation: float, test: float) -> None:
    sha256 = hashlib.sha256(data).hexdigest()
    settings = ConsolidateSettings("tutorial", validation, test)
    assert settings.split(sha256) == ConsolidateSettings("standard", validation, test).split(sha256)
    assert settings.split(sha256) in ("train", "validation", "test")


def test_a_picture_under_several_captions_lies_in_one_split(world: Any) -> None:
    shas = [hashlib.sha256(bytes([i % 20])).hexdigest() for i in range(200)]
    lines = [f"words {i}\thttp://x/{i}\n".encode() for i in range(200)]
    features = [Feature(row_key(CHUNK, i), sha, i % 20) for i, sha in enumerate(shas)]
    world.add_chunk(CHUNK, lines, features, np.eye(20))
    world.consolidate(ConsolidateSettings(validation_share=0.3, test_share=0.3))
    rows = read_training_shard(world.folders.output / f"{CHUNK}.parquet").examples.to_pylist()
    splits = {sha: {row["split"] for row in rows if row["sha256"] == sha} for sha in shas}
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_shares_are_kept() -> None:
    settings = ConsolidateSettings(validation_share=0.1, test_share=0.2)
    splits = [settings.split(hashlib.sha256(str(i).encode()).hexdigest()) for i in range(5000)]
    assert abs(splits.count("validation") / 5000 - 0.1) < 0.02
    assert abs(splits.count("test") / 5000 - 0.2) < 0.02


def test_chunks_can_be_assigned_as_a_whole(world: Any, capstan: Callable[..., int]) -> None:
    world.add_shapes("dev.tsv/0000000000000000", 20)
    world.add_shapes("train.tsv/0000000000000000", 20)
    folders = world.folders
    flags = ["--input", folders.input, "--features", folders.features, "--output", folders.output]
    assert capstan("consolidate", *flags, "--assign", "dev.tsv/*=test", "*=train") == 0
    for name, split in (("dev", "test"), ("train", "train")):
        shard = read_training_shard(folders.output / f"{name}.tsv/0000000000000000.parquet")
        assert set(shard.examples["split"].to_pylist()) == {split}
    assert capstan("consolidate", *flags, "--validation-share", "0.9", "--test-share", "0.1") == 2


def test_unchanged_shards_are_skipped(world: Any) -> None:
    world.add_shapes("a.tsv/0000000000000000", 20)
    world.add_shapes("a.tsv/0000000000000001", 20)
    assert consolidate(world.folders, ConsolidateSettings())["shards written"] == 2
    assert consolidate(world.folders, ConsolidateSettings()) == {"shards unchanged": 2}
    with (world.folders.input / "a.tsv/0000000000000001").open("ab") as file:
        file.write(b"one more\thttp://x\n")
    again = consolidate(world.folders, ConsolidateSettings())
    assert (again["shards written"], again["shards unchanged"]) == (1, 1)
    assert consolidate(world.folders, ConsolidateSettings("tutorial"))["shards written"] == 2


def test_a_damaged_shard_is_made_again(world: Any) -> None:
    add_odd_chunk(world)
    path = world.consolidate() / f"{CHUNK}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    world.consolidate()
    assert path.read_bytes() == whole


def test_a_missing_feature_shard_is_named(world: Any) -> None:
    add_odd_chunk(world)
    (world.folders.features / f"{CHUNK}.parquet").unlink()
    with pytest.raises(DataError, match=rf"{CHUNK}.parquet: missing .*capstan featurize"):
        world.consolidate()


def test_no_chunks(world: Any) -> None:
    world.folders.input.mkdir()
    with pytest.raises(SettingError, match="capstan split"):
        world.consolidate()
