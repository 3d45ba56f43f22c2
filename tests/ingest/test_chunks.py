from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capstan.chunks import cut, find_chunks
from capstan.errors import DataError

ODD_LINES = st.lists(
    st.sampled_from(
        [
            b"a\tu",
            b'"quoted\tu',
            b"\r",
            b"\tu\r",
            b"two\ttabs\tu",
            b"\x00\xff\t\xfe",
            b"\x0b\x0c\xc2\x85",
            b"",
        ]
    )
    | st.binary(max_size=40),
    min_size=1,
    max_size=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=ODD_LINES, rows=st.integers(1, 12), final=st.sampled_from([b"", b"\n"]))
def test_chunks_put_together_are_the_tsv(
    tmp_path: Path, lines: list[bytes], rows: int, final: bytes
) -> None:
    contents = b"first\tu\n" + b"\n".join(lines) + final
    tsv, directory = tmp_path / "a.tsv", tmp_path / "chunks"
    directory.mkdir(exist_ok=True)
    tsv.write_bytes(contents)

    cut(tsv, rows, directory)

    chunks = sorted(directory.iterdir())
    assert [path.name for path in chunks] == [f"{n:016x}" for n in range(len(chunks))]
    assert b"".join(path.read_bytes() for path in chunks) == contents
    assert all(path.read_bytes().count(b"\n") == rows for path in chunks[:-1])
    described = find_chunks(directory)
    lines = contents.removesuffix(b"\n").split(b"\n")
    assert sum(chunk.contents.rows for chunk in described) == len(lines)
    assert str(cut(tsv, rows, directory)) == f"{len(chunks)} chunks: {len(chunks)} unchanged"


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    tsv, directory = tmp_path / "cc.tsv", tmp_path / "cc"
    lines = [f"caption {n}\thttp://h/{n}\n" for n in range(100)]
    tsv.write_text("".join(lines))
    directory.mkdir()
    (directory / "0123").write_text("not ours")
    assert str(cut(tsv, 5, directory)) == "20 chunks: 20 written"
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}

    lines[7] = "changed\thttp://h/7\n"
    tsv.write_text("".join(lines[:52]))
    assert str(cut(tsv, 5, directory)) == "11 chunks: 2 written, 9 unchanged, 9 stale removed"

    after = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {f"{1:016x}", f"{10:016x}"}
    assert (directory / "0123").read_text() == "not ours"


def test_a_line_longer_than_memory_pieces_stays_whole(tmp_path: Path) -> None:
    tsv = tmp_path / "long.tsv"
    contents = b"a\tu\n" + b"x" * (3 << 20) + b"\tu\nlast\tu"
    tsv.write_bytes(contents)
    (tmp_path / "chunks").mkdir()
    cut(tsv, 1, tmp_path / "chunks")
    sizes = [path.stat().st_size for path in sorted((tmp_path / "chunks").iterdir())]
    assert sizes == [4, (3 << 20) + 3, 6]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "empty"),
        (b"one column\n" * 1500, r"no tab in line 1 \('one column'\) nor in the next 999"),
        (b"\xff\xfe\n", "no tab in line 1"),
    ],
)
def test_what_is_no_tsv_is_refused(tmp_path: Path, contents: bytes, message: str) -> None:
    tsv = tmp_path / "bad.tsv"
    tsv.write_bytes(contents)
    with pytest.raises(DataError, match=message):
        cut(tsv, 5, tmp_path / "chunks")


@pytest.mark.shared
def test_the_tutorials_rows_make_the_tutorials_chunks(tmp_path: Path, captions: Path) -> None:
    assert str(cut(captions / "test.tsv", 5, tmp_path)) == "20 chunks: 20 written"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[0] == "0000000000000000"
    assert names[-1] == "0000000000000013"
    assert len(names) == 20
