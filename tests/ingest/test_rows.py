import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.chunks import cut
from capstan.ingest.rows import MAX_LINE, PLAIN_URL, host_of, parse_line, read_rows, split_host
from capstan.records import Failure, Outcome, Reason, Row, row_key

TEXT = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=40)


def reason(found: Row | Outcome) -> Reason | None:
    if isinstance(found, Row):
        return None
    assert isinstance(found.result, Failure)
    assert found.answer.attempts == 0
    return found.result.reason


@given(
    contents=st.binary() | st.lists(st.sampled_from(list(b"\t\n\r\0a:/.h")), max_size=80).map(bytes)
)
def test_every_line_becomes_exactly_one_row_or_outcome(contents: bytes) -> None:
    found = list(read_rows(io.BytesIO(contents), "c/0"))
    lines = contents.split(b"\n")
    expected = len(lines) - (not lines[-1])
    rows = [item if isinstance(item, Row) else item.row for item in found]
    assert [row.index for row in rows] == list(range(expected))
    assert len({row.key for row in rows}) == expected


@given(caption=TEXT, path=TEXT.filter(lambda text: "\t" not in text and not text.endswith("\r")))
def test_what_is_written_is_kept_as_written(caption: str, path: str) -> None:
    url = f"http://example.com/{path}"
    found = parse_line(f"{caption}\t{url}\r".encode(), "cc.tsv/0000", 3)
    assert found == Row(3, row_key("cc.tsv/0000", 3), caption, url)


@pytest.mark.parametrize(
    ("line", "caption", "url", "expected"),
    [
        (b'"a quote\thttp://h/', '"a quote', "http://h/", None),
        (b"a\tb\thttp://h/", "a\tb", "http://h/", None),
        (b"\thttp://h/", "", "http://h/", None),
        (b"a\t http://h/a b \r", "a", " http://h/a b ", None),
        ("é\thttp://bücher.example/ü".encode(), "é", "http://bücher.example/ü", None),
        (b"a\tHTTP://H/%zz", "a", "HTTP://H/%zz", None),
        (b"a\thttp://h/\r\r", "a", "http://h/\r", None),
        (b"", "", "", Reason.BAD_ROW),
        (b"no tab", "no tab", "", Reason.BAD_ROW),
        (b"empty url\t", "empty url", "", Reason.BAD_ROW),
        (b"blank url\t  ", "blank url", "  ", Reason.BAD_ROW),
        (b"\xff\thttp://h/", "\\xff", "http://h/", Reason.BAD_ROW),
        (b"a\thttp://h/\xc3", "a", "http://h/\\xc3", Reason.BAD_ROW),
        (b"n\0l\thttp://h/", "n\0l", "http://h/", Reason.BAD_ROW),
        (b"a\tftp://h/", "a", "ftp://h/", Reason.BAD_URL),
        (b"a\tfile:///etc/passwd", "a", "file:///etc/passwd", Reason.BAD_URL),
        (b"a\tdata:image/png;base64,AA", "a", "data:image/png;base64,AA", Reason.BAD_URL),
        (b"a\thttp:///path", "a", "http:///path", Reason.BAD_URL),
        (b"a\thttp://[::1/", "a", "http://[::1/", Reason.BAD_URL),
        (b"a\thttp://h:99999/", "a", "http://h:99999/", Reason.BAD_URL),
        (b"a\twww.example.com/a.jpg", "a", "www.example.com/a.jpg", Reason.BAD_URL),
    ],
)
def test_odd_lines(line: bytes, caption: str, url: str, expected: Reason | None) -> None:
    found = parse_line(line, "c", 0)
    row = found if isinstance(found, Row) else found.row
    assert (row.caption, row.url, reason(found)) == (caption, url, expected)


def test_a_huge_line_is_an_outcome_of_which_little_is_kept() -> None:
    contents = b"a\thttp://h/1\n" + b"x" * (10 << 20) + b"\thttp://h/2\nb\thttp://h/3"
    first, huge, last = read_rows(io.BytesIO(contents), "c")
    assert (reason(first), reason(huge), reason(last)) == (None, Reason.BAD_ROW, None)
    assert isinstance(huge, Outcome)
    assert len(huge.row.caption) == 1_000


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_lines_about_the_limit(extra: int) -> None:
    line = b"a\thttp://h/".ljust(MAX_LINE + extra, b"x")
    found = list(read_rows(io.BytesIO(line + b"\nb\thttp://h/"), "c"))
    assert [reason(item) for item in found] == [Reason.BAD_ROW if extra > 0 else None, None]


def test_hosts() -> None:
    assert host_of(" HTTPS://Example.COM:443/a") == "example.com"
    assert host_of("http://user:word@h/") == "h"
    assert host_of("mailto:a@b") is None


@pytest.mark.shared
def test_conceptual_captions_parse_with_nothing_lost(tmp_path: Path, captions: Path) -> None:
    tsv = captions / "Validation_GCC-1.1.0-Validation.tsv"
    cut(tsv, 1_000, tmp_path)
    chunks = sorted(tmp_path.iterdir())
    rows: list[Row] = []
    for path in chunks:
        with path.open("rb") as file:
            for found in read_rows(file, f"cc/{path.name}"):
                assert isinstance(found, Row)
                rows.append(found)
    assert b"".join(path.read_bytes() for path in chunks) == tsv.read_bytes()
    assert "".join(f"{row.caption}\t{row.url}\n" for row in rows).encode() == tsv.read_bytes()
    assert len({row.key for row in rows}) == len(rows) == 15_833


@given(
    url=st.from_regex(PLAIN_URL)
    | st.from_regex(r"\A(https?|HTTP|ftp)://[a-zA-Z0-9.:@\[\]%_-]{0,20}[/?#\t ]?.{0,5}\Z")
    | st.text()
)
def test_the_short_way_to_a_host_is_the_standard_librarys(url: str) -> None:
    host_of.cache_clear()
    assert host_of(url) == split_host(url)
