"""TSV lines to rows: line-exact, no quoting; what is not a row is an outcome, never a stop."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO
from urllib.parse import urlsplit

from capstan.records import Answer, Failure, Outcome, Reason, Row, divide_line, row_key

MAX_LINE = 1 << 20  # bytes; a longer line is no caption and URL
PLAIN_URL = re.compile(r"https?://([A-Za-z0-9.-]+)(?::[1-5]?[0-9]{1,4})?(?:[/?#]|\Z)")
KEPT_OF_LONG_LINE = 1_000  # bytes of it that the record keeps


def read_rows(file: BinaryIO, chunk: str) -> Iterator[Row | Outcome]:
    """One row, or the outcome that a line cannot be one, for each line of a chunk, in order."""
    for index, line in enumerate(read_lines(file)):
        yield parse_line(line, chunk, index)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines without their line feed; of those over MAX_LINE only a little more than that."""
    while line := file.readline(MAX_LINE + 1):
        end = line
        while end and not end.endswith(b"\n"):
            end = file.readline(MAX_LINE)
        yield line.removesuffix(b"\n")


def parse_line(line: bytes, chunk: str, index: int) -> Row | Outcome:
    """Read `caption<TAB>url`.

    Caption and URL are kept as written, but for one carriage return at the end.
    """
    if len(line) > MAX_LINE:
        caption, url, is_text = line[:KEPT_OF_LONG_LINE], b"", False
    else:
        caption, url = divide_line(line.removesuffix(b"\r"))
        is_text = b"\0" not in line
    try:
        texts = caption.decode(), url.decode()
    except UnicodeDecodeError:
        is_text = False
        texts = caption.decode(errors="backslashreplace"), url.decode(errors="backslashreplace")
    row = Row(index, row_key(chunk, index), *texts)
    if not is_text or not row.url.strip():
        return Outcome(row, Answer(), Failure(Reason.BAD_ROW))
    if host_of(row.url) is None:
        return Outcome(row, Answer(), Failure(Reason.BAD_URL))
    return row


@lru_cache(1024)  # asked again when a row that was just read is fetched
def host_of(url: str) -> str | None:
    """Host of an http(s) URL in lower case, None for anything else."""
    plain = PLAIN_URL.match(url)
    return plain[1].lower() if plain else split_host(url)


def split_host(url: str) -> str | None:
    """The same by the standard library, for any URL, ten times as slow."""
    try:
        parts = urlsplit(url.strip())
        _ = parts.port  # raises ValueError when it is no port
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None
