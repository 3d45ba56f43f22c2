from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from capstan.ingest.service import upload
from capstan.ingest.service.jobs import BadSubmissionError, FullError
from capstan.ingest.service.upload import ChunkedList, Upload
from tests.examples import examples


def contents(cuts: ChunkedList) -> list[bytes]:
    """Of all chunks, in order."""
    if cuts.data is not None:
        return cuts.data
    assert cuts.folder
    return [path.read_bytes() for path in sorted((cuts.folder / "chunks" / "a.tsv").iterdir())]


def left(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.fixture
def pieces_are_small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that few bytes are many pieces."""
    monkeypatch.setattr(upload, "PIECE", 16)
    monkeypatch.setattr(upload, "SMALL", 64)
    yield


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    ends=st.booleans(),
    rows=st.integers(1, 7),
    cut=st.integers(1, 40),
)
async def test_chunks_put_together_are_the_tsv(
    lines: list[bytes],
    ends: bool,
    rows: int,
    cut: int,
    pieces_are_small: None,
    tmp_path: Path,
) -> None:
    tsv = b"\n".join([b"a\tb", *lines]) + (b"\n" if ends else b"")
    taken = Upload(tmp_path, "a.tsv", rows, 1 << 20, lambda: None)
    for start in range(0, len(tsv), cut):
        await taken.write(tsv[start : start + cut])
    cuts = await taken.finish()
    chunks = contents(cuts)
    assert b"".join(chunks) == tsv
    assert cuts.rows == [upload.lines(chunk) for chunk in chunks]
    assert all(count == rows for count in cuts.rows[:-1]) and 1 <= cuts.rows[-1] <= rows
    await taken.drop()
    assert left(tmp_path) == []


async def test_the_number_of_chunks_is_bounded(
    monkeypatch: pytest.MonkeyPatch, pieces_are_small: None, tmp_path: Path
) -> None:
    monkeypatch.setattr(upload, "MOST_CHUNKS", 10)
    taken = Upload(tmp_path, "a.tsv", 1, 1 << 20, lambda: None)
    with pytest.raises(BadSubmissionError, match="10 chunks"):
        for _ in range(30):
            await taken.write(b"a\tb\n")
    await taken.drop()


async def test_no_room_is_noticed_while_it_comes(pieces_are_small: None, tmp_path: Path) -> None:
    def full() -> None:
        raise FullError("full")

    taken = Upload(tmp_path, "a.tsv", 1, 1 << 20, full)
    with pytest.raises(FullError):
        await taken.write(b"a\tb\n" * 10)
    await taken.drop()
    assert left(tmp_path) == []
