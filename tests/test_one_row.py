"""A line means the same to the stage that fetches its picture and to the one that joins it."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.ingest.rows import read_rows
from capstan.records import Outcome, Row, row_key
from capstan.train.consolidate import read_captions

CHUNK = "cc.tsv/0000000000000000"
pieces = st.sampled_from([b"a dog", b"\t", b"\n", b"\r", b"\r\n", b'"', b"http://x.test/", b"\xff"])


@given(st.lists(pieces | st.binary(max_size=3), max_size=30).map(b"".join))
def test_both_stages_read_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, chunk: bytes
) -> None:
    path = tmp_path_factory.mktemp("chunk") / "chunk"
    path.write_bytes(chunk)
    captions = read_captions(path)
    rows = list(read_rows(io.BytesIO(chunk), CHUNK))
    assert len(captions) == len(rows)
    for index, (caption, read) in enumerate(zip(captions, rows, strict=True)):
        row = read.row if isinstance(read, Outcome) else read
        assert row.key == row_key(CHUNK, index)
        if isinstance(read, Row):  # only such a line can have a picture, and so be joined
            assert row.caption == caption
