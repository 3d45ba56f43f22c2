"""Cutting a TSV into chunks, line-exactly, and finding chunks again.

A line ends at a line feed and nowhere else: no quoting, no carriage returns, no decoding. The
chunks put together are the TSV, byte for byte, and no more than a piece is ever held in memory.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from capstan.errors import DataError, SettingError
from capstan.files import atomic_write, data_files

PIECE = 1 << 20  # bytes held in memory at a time
LINE = 1 << 16  # bytes of a line looked at for a tab
TAB_LINES = 1_000  # lines looked at before a TSV is said to have no columns
CHUNK_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Cut:
    """What cutting a TSV did."""

    written: int
    unchanged: int
    removed: int

    def __str__(self) -> str:
        counts = {
            "written": self.written,
            "unchanged": self.unchanged,
            "stale removed": self.removed,
        }
        done = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"{self.written + self.unchanged} chunks: {done}"


@dataclass(frozen=True)
class Contents:
    """What a chunk's file holds."""

    sha256: str
    rows: int


@dataclass(frozen=True)
class Chunk:
    """A chunk file as found in the input directory; it is read when it is asked about."""

    name: str  # POSIX path relative to the input directory; names the shard
    path: Path

    @cached_property
    def contents(self) -> Contents:
        """Hash and number of rows."""
        digest, rows, last = hashlib.sha256(), 0, b"\n"
        with self.path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                rows += piece.count(b"\n")
                last = piece[-1:]
        return Contents(digest.hexdigest(), rows + (last != b"\n"))

    @property
    def sha256(self) -> str:
        """Of the file."""
        return self.contents.sha256


def check_cut(tsv: Path, rows: int) -> None:
    """Refuse, with SettingError, to cut what is no file or into chunks of no lines."""
    if rows < 1:
        raise SettingError(f"--rows {rows}: give at least 1 line per chunk")
    if not tsv.is_file():
        raise SettingError(f"{tsv}: no such file; give the path of a TSV of caption<TAB>url lines")


def cut(tsv: Path, rows: int, directory: Path) -> Cut:
    """Cut `tsv` into files of `rows` lines, `directory/0000000000000000` and on (hexadecimal).

    Chunks that are there with the same bytes are left alone; those of an earlier, longer cut are
    removed. Raises DataError for a TSV that is empty or has no tab in its first lines.
    """
    check_columns(tsv)
    written = unchanged = 0
    with tsv.open("rb") as scanned, tsv.open("rb") as source:
        for number, (start, end) in enumerate(boundaries(scanned, rows)):
            path = directory / f"{number:016x}"
            if _is_same(source, start, end, path):
                unchanged += 1
            else:
                _copy(source, start, end, path)
                written += 1
    return Cut(written, unchanged, _remove_stale(directory, written + unchanged))


def check_columns(tsv: Path) -> None:
    """Refuse a TSV that is empty, or none of whose first lines has a tab."""
    with tsv.open("rb") as file:
        lines = list(islice(iter(lambda: file.readline(LINE), b""), TAB_LINES))
    if not lines:
        raise DataError(f"{tsv}: empty; give a TSV of caption<TAB>url lines")
    if not any(b"\t" in line for line in lines):
        shown = lines[0][:60].decode(errors="backslashreplace").strip()
        raise DataError(
            f"{tsv}: no tab in line 1 ({shown!r}) nor in the next {len(lines) - 1}; "
            "expected caption<TAB>url, so divide the two columns by a tab"
        )


def boundaries(file: BinaryIO, rows: int) -> Iterator[tuple[int, int]]:
    """Byte ranges of `rows` lines each; the last may have fewer, and no final line feed."""
    start, end, divider = 0, 0, Divider(rows)
    while piece := file.read(PIECE):
        for part, is_last in divider.divide(piece):
            end += len(part)
            if is_last:
                yield start, end
                start = end
    if end > start:
        yield start, end


class Divider:
    """Where chunks of `rows` lines end in bytes that come piece by piece."""

    def __init__(self, rows: int) -> None:
        self._rows, self._lines = rows, 0  # of the present chunk

    def divide(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """The piece in parts that are each of one chunk, and whether it ends with the part."""
        start = end = 0
        while end := piece.find(b"\n", end) + 1:
            self._lines += 1
            if self._lines == self._rows:
                yield piece[start:end], True
                start, self._lines = end, 0
        if start < len(piece):
            yield piece[start:], False


def pieces(source: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a range; DataError if the file has become too short."""
    source.seek(start)
    while start < end:
        piece = source.read(min(PIECE, end - start))
        if not piece:
            raise DataError(f"{source.name}: became shorter while it was read; split it again")
        start += len(piece)
        yield piece


def _is_same(source: BinaryIO, start: int, end: int, path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != end - start:
        return False
    with path.open("rb") as chunk:
        return all(chunk.read(len(piece)) == piece for piece in pieces(source, start, end))


def _copy(source: BinaryIO, start: int, end: int, path: Path) -> None:
    with atomic_write(path) as chunk:
        chunk.writelines(pieces(source, start, end))


def _remove_stale(directory: Path, count: int) -> int:
    stale = [
        path
        for path in directory.iterdir()
        if CHUNK_NAME.fullmatch(path.name) and int(path.name, 16) >= count
    ]
    for path in stale:
        path.unlink()
    return len(stale)


def find_chunks(directory: Path) -> list[Chunk]:
    """All chunks below a directory, by name; none is read."""
    return [Chunk(path.relative_to(directory).as_posix(), path) for path in data_files(directory)]


def has_tab(chunk: Chunk) -> bool:
    """Whether any line has two columns; reads as far as the first."""
    with chunk.path.open("rb") as file:
        return any(b"\t" in piece for piece in iter(lambda: file.read(PIECE), b""))
