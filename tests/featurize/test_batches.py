"""Feeding the network: which pictures share a batch, and what is said of the others."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.featurize.batches import Feed
from capstan.featurize.config import Config
from capstan.featurize.tasks import to_do
from capstan.records import Failure, Reason
from tests.examples import examples
from tests.featurize.conftest import SIZE, jpeg, write_images

BROKEN = b"no picture"


def feed_of(tmp_path: Path, *shards: list[bytes], batch_size: int = 4) -> Feed:
    for number, pictures in enumerate(shards):
        write_images(tmp_path / "in", pictures, f"shard-{number:02d}")
    config = Config(tmp_path / "in", tmp_path / "out", "random:1", SIZE, batch_size)
    return Feed(to_do(config), config)


def test_batches_run_on_over_shards(tmp_path: Path) -> None:
    shards = [[jpeg(n) for n in range(start, start + 3)] for start in (0, 10, 20)]
    batches = list(feed_of(tmp_path, *shards))
    assert [len(batch.pictures) for batch in batches] == [4, 4, 1]
    assert [[shard.task.chunk for shard in batch.ended] for batch in batches] == [
        ["shard-00"],
        ["shard-01"],
        ["shard-02"],
    ]
    assert all(batch.pixels.shape == (4, SIZE, SIZE, 3) for batch in batches)


def test_repeated_and_broken_pictures_take_no_place(tmp_path: Path) -> None:
    feed = feed_of(tmp_path, [jpeg(0), BROKEN, jpeg(0)], [jpeg(0), BROKEN, jpeg(1)])
    (batch,) = feed
    assert len(batch.pictures) == 2
    assert feed.repeated == 3
    assert batch.tally == {None: 4, Reason.NOT_AN_IMAGE: 2}
    first, second = batch.ended
    (_, a), (_, b), (_, c) = first.pictures
    assert a is c is second.pictures[0][1]
    assert b.result == Failure(Reason.NOT_AN_IMAGE)


def test_damaged_shard_is_left_out(tmp_path: Path) -> None:
    feed = feed_of(tmp_path, [jpeg(0), jpeg(1)], [jpeg(2)])
    tar = tmp_path / "in" / "shard-00.tar"
    data = bytearray(tar.read_bytes())
    second = data.rindex(jpeg(1)[:64])
    data[second + 100] ^= 1
    tar.write_bytes(data)
    batches = list(feed)
    assert [shard.task.chunk for batch in batches for shard in batch.ended] == ["shard-01"]
    (error,) = feed.damaged
    assert "shard-00.tar: damaged" in str(error)
    assert f"at byte {second - 512}" in str(error)


@examples(20)
@given(st.data())
def test_every_shard_ends_when_its_pictures_are_there(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    known = {number: jpeg(number) for number in range(6)} | {6: BROKEN}
    shards = data.draw(
        st.lists(st.lists(st.sampled_from(range(7)), max_size=7), min_size=1, max_size=5)
    )
    size = data.draw(st.integers(1, 5))
    folder = tmp_path_factory.mktemp("feed")
    feed = feed_of(folder, *([known[n] for n in shard] for shard in shards), batch_size=size)
    vector = np.zeros(2048, np.float16)
    ended, rows = [], 0
    for batch in feed:
        for picture in batch.pictures:
            assert picture.result is None
            picture.result = vector
        for shard in batch.ended:
            assert all(picture.result is not None for _, picture in shard.pictures)
            ended.append([picture.sha256 for _, picture in shard.pictures])
        rows += batch.tally.total()
    assert len(ended) == len(shards)
    assert [len(pictures) for pictures in ended] == [len(shard) for shard in shards]
    assert rows == sum(map(len, shards))


def test_stopping_early_leaves_no_thread(tmp_path: Path) -> None:
    feed = feed_of(tmp_path, *([jpeg(n)] for n in range(20)), batch_size=1)
    batches = iter(feed)
    next(batches)
    del batches
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith(("feed", "decode")) for name in names)
