"""Outcomes and pictures are read from shards a little at a time, and are those of the shards."""

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import DataError
from capstan.ingest.service import outcomes, pictures
from capstan.ingest.service.outcomes import newest_pictures, one_parquet, read_page, split_key
from capstan.ingest.service.pictures import read_picture
from capstan.records import Answer, Failure, Image, Outcome, Reason, Row, row_key
from capstan.shards import read_images, read_outcomes, write_image_shard

CHUNKS = [f"web.tsv/{number:016d}" for number in range(0, 30, 10)]
LONG = f"{'a-long-name-' * 12}.tsv/0000000000000000"  # its keys do not fit in a ustar header


def outcome(chunk: str, index: int) -> Outcome:
    """Every third row failed, every sixth for another reason."""
    key = row_key(chunk, index)
    row = Row(index, key, f"caption {index}", f"http://a.test/{key}")
    if index % 3:
        data = f"{key} {'x' * (index * 37 % 1500)}".encode()
        image = Image(data, 4, 3, 8, 6, hashlib.sha256(data).hexdigest())
        return Outcome(row, Answer(200, 1, 9), image)
    reason = Reason.DNS if index % 6 else Reason.NOT_FOUND
    return Outcome(row, Answer(None, 3, 0), Failure(reason))


def write(folder: Path, chunks: Sequence[str], rows: int) -> Path:
    for chunk in chunks:
        write_image_shard(folder, chunk, (outcome(chunk, index) for index in range(rows)), {})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 200 rows and one of long names."""
    return write(tmp_path_factory.mktemp("shards"), [*CHUNKS, LONG], 200)


@pytest.mark.parametrize("wanted", [{}, {"status": "failed"}, {"reason": "dns"}], ids=str)
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_are_the_whole_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, str], limit: int
) -> None:
    monkeypatch.setattr(outcomes, "BATCH", 16)
    expected = [
        row["key"]
        for chunk in CHUNKS
        for row in read_outcomes(folder / f"{chunk}.parquet").to_pylist()
        if all(row[name] == value for name, value in wanted.items())
    ]
    expected = expected[: 40 * limit]
    found: list[str] = []
    after = None
    while len(found) < len(expected):
        page, more = read_page(folder, CHUNKS, wanted, after, limit)
        found += [row["key"] for row in page]
        if more is None:
            break
        after = split_key(more)
    assert found == expected


def test_a_page_names_all_columns_of_the_contract(folder: Path) -> None:
    (row,), more = read_page(folder, CHUNKS, {"status": "success"}, None, 1)
    assert row["key"] == more == "web_tsv-0000000000000000-000001"
    assert (row["caption"], row["http_status"], row["width"]) == ("caption 1", 200, 4)


def test_what_cannot_be_is_not_read(folder: Path) -> None:
    assert read_page(folder, CHUNKS, {"reason": "tls"}, None, 9) == ([], None)
    assert read_page(folder, CHUNKS, {"reason": "dns", "status": "success"}, None, 9) == ([], None)


@given(st.text(max_size=60) | st.from_regex(r"[a-z_-]{1,9}-[0-9]{6,12}", fullmatch=True))
def test_keys_are_parted_or_refused(text: str) -> None:
    parted = split_key(text)
    if parted is not None:
        assert text == f"{parted[0]}-{text.rpartition('-')[2]}"
        assert int(text.rpartition("-")[2]) == parted[1]


def test_one_parquet_is_all_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "BATCH", 64)
    pieces = list(one_parquet(folder, CHUNKS))
    assert len(pieces) > 12  # it comes while it is made
    table = pq.read_table(io.BytesIO(b"".join(pieces)))
    expected = [
        row for chunk in CHUNKS for row in read_outcomes(folder / f"{chunk}.parquet").to_pylist()
    ]
    assert table.to_pylist() == expected


def test_one_parquet_of_nothing(tmp_path: Path) -> None:
    assert pq.read_table(io.BytesIO(b"".join(one_parquet(tmp_path, [])))).num_rows == 0


@pytest.mark.parametrize("chunk", [CHUNKS[1], LONG])
@pytest.mark.parametrize("stride", [1, 5, 64])
def test_every_picture_by_its_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, chunk: str, stride: int
) -> None:
    monkeypatch.setattr(pictures, "STRIDE", stride)
    pictures._index.cache_clear()
    tar = folder / f"{chunk}.tar"
    stored = {image.key: image.data for image in read_images(tar)}
    keys = [row_key(chunk, index) for index in range(203)]
    assert {key: data for key in keys if (data := read_picture(tar, key)) is not None} == stored
    assert read_picture(tar, "no key") is None


def test_a_tar_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    chunk, key = CHUNKS[0], row_key(CHUNKS[0], 5)
    tar = write(tmp_path, [chunk], 6) / f"{chunk}.tar"
    assert read_picture(tar, key) is not None
    write(tmp_path, [chunk], 3)
    assert read_picture(tar, key) is None


def test_what_is_no_tar_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"no tar" * 512)
    with pytest.raises(DataError, match=r"a\.tar: not a tar at byte 0"):
        read_picture(path, "a-000000")


def test_an_empty_shard_has_no_pictures(tmp_path: Path) -> None:
    write(tmp_path, CHUNKS[:1], 1)
    assert read_picture(tmp_path / f"{CHUNKS[0]}.tar", row_key(CHUNKS[0], 0)) is None
    assert newest_pictures(tmp_path, CHUNKS[:1], 5) == []


def test_the_newest_pictures_are_the_last_of_the_last_shards(tmp_path: Path) -> None:
    write(tmp_path, CHUNKS, 6)

    for age, chunk in enumerate([CHUNKS[1], CHUNKS[2], CHUNKS[0]]):
        os.utime(tmp_path / f"{chunk}_stats.json", (1000 - age, 1000 - age))
    found = newest_pictures(tmp_path, CHUNKS, 6)
    assert [each["key"] for each in found] == [
        row_key(chunk, index)
        for chunk, indices in ((CHUNKS[1], (5, 4, 2, 1)), (CHUNKS[2], (5, 4)))
        for index in indices
    ]
    assert set(found[0]) == {"key", "caption"}


def test_offsets_agree_with_tarfile(folder: Path) -> None:
    path = folder / f"{LONG}.tar"
    with tarfile.open(path) as tar, path.open("rb") as file:
        there = [(each.name, each.offset_data, each.size) for each in tar]
        assert list(pictures._members(file, 0)) == there
