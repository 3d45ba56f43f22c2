"""A TSV on its way in: cut into chunks as it comes, whole on the disk or not there at all.

Bytes are gathered in memory and cut into chunk files in a temporary folder of `incoming`, which is
renamed when all is there. What is small never becomes files: it goes into the database, where one
commit is shared by all who wait. What a submission that broke off has left is removed, by the
service's next start at the latest.
"""

import asyncio
import errno
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from capstan.chunks import PIECE, Divider
from capstan.ingest.service.jobs import BadSubmissionError, FullError, TooLargeError

SMALL = 1 << 16  # bytes up to which a TSV is kept in the database
MOST_CHUNKS = 100_000
MOST_ROWS = 1_000_000  # of a chunk, which one worker holds in memory
LONGEST_NAME = 200  # bytes; a file's name may have 255


@dataclass(slots=True)
class ChunkedList:
    """What a TSV was cut into: lines of each chunk, and its contents where they are no files."""

    rows: list[int]
    folder: Path | None  # of `chunks/NAME/NUMBER`, still in `incoming`
    data: list[bytes] | None


@dataclass(eq=False)
class Upload:
    """Takes the bytes of one TSV."""

    incoming: Path
    name: str
    rows_per_chunk: int
    most: int  # bytes
    check_room: Callable[[], None]  # raises FullError
    _held: list[bytes] = field(default_factory=list)
    _size: int = 0  # of all
    _held_size: int = 0
    _has_tab: bool = False
    _rows: list[int] = field(default_factory=list)
    _file: BinaryIO | None = None
    _folder: Path | None = None
    _writing: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 1 <= self.rows_per_chunk <= MOST_ROWS:
            raise BadSubmissionError(
                f"rows_per_chunk {self.rows_per_chunk}: give from 1 to {MOST_ROWS:,}"
            )
        self._divider = Divider(self.rows_per_chunk)

    async def write(self, data: bytes) -> None:
        """Take the next bytes; raises TooLargeError and FullError."""
        self._size += len(data)
        if self._size > self.most:
            raise TooLargeError(f"a TSV of more than {self.most:,} bytes; divide it")
        self._has_tab = self._has_tab or b"\t" in data
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size >= PIECE:
            await self._flush()

    async def finish(self) -> ChunkedList:
        """Make sure that all is on the disk, or small; BadSubmissionError for what is no TSV."""
        if not self._size:
            raise BadSubmissionError("empty; give lines of caption<TAB>url")
        if not self._has_tab:
            raise BadSubmissionError("no line has a tab; give lines of caption<TAB>url")
        if self._folder is None and self._size <= SMALL:
            return self._in_memory()
        await self._flush()
        await self._in_thread(self._end)
        return ChunkedList(self._rows, self._folder, None)

    async def drop(self) -> None:
        """Remove what is there."""
        if self._writing:  # in a thread, whoever has lost interest in it
            await asyncio.wait([self._writing])
        if self._file:
            self._file.close()
        if self._folder:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _in_thread(self, function: Callable[..., None], *arguments: object) -> None:
        self._writing = asyncio.create_task(asyncio.to_thread(function, *arguments))
        try:
            await asyncio.shield(self._writing)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise FullError("the disk has no room for it; try again later") from error

    def _in_memory(self) -> ChunkedList:
        chunks: list[bytes] = []
        begun = bytearray()
        for part, is_last in self._divider.divide(b"".join(self._held)):
            begun += part
            if is_last:
                chunks.append(bytes(begun))
                begun.clear()
        if begun:
            chunks.append(bytes(begun))
        return ChunkedList([lines(chunk) for chunk in chunks], None, chunks)

    async def _flush(self) -> None:
        self.check_room()
        data, self._held, self._held_size = b"".join(self._held), [], 0
        await self._in_thread(self._cut, data)

    def _cut(self, data: bytes) -> None:
        for part, is_last in self._divider.divide(data):
            if self._file is None:
                self._begin()
            assert self._file
            self._file.write(part)
            self._rows[-1] += part.count(b"\n")
            self._ends_open = not part.endswith(b"\n")
            if is_last:
                self._end_chunk()

    def _begin(self) -> None:
        if len(self._rows) == MOST_CHUNKS:
            raise BadSubmissionError(
                f"more than {MOST_CHUNKS:,} chunks; give more than "
                f"{self.rows_per_chunk:,} rows_per_chunk"
            )
        if self._folder is None:
            self._folder = self.incoming / uuid.uuid4().hex
            (self._folder / "chunks" / self.name).mkdir(parents=True)
        path = self._folder / "chunks" / self.name / f"{len(self._rows):016x}"
        self._file = path.open("wb")
        self._rows.append(0)

    def _end_chunk(self) -> None:
        assert self._file
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None

    def _end(self) -> None:
        if self._file:
            self._rows[-1] += self._ends_open  # a last line without its line feed
            self._end_chunk()
        assert self._folder
        for folder in (self._folder / "chunks" / self.name, self._folder / "chunks", self._folder):
            sync_folder(folder)


def lines(data: bytes) -> int:
    """Lines, the last of which may have no line feed."""
    return data.count(b"\n") + (not data.endswith(b"\n"))


def check_name(name: str) -> None:
    """Refuse, with BadSubmissionError, what cannot be a folder's name."""
    if not name.isprintable() or "/" in name or name.startswith(".") or not name.strip():
        raise BadSubmissionError(
            f"name {name!r}: give printable characters without slashes, not beginning with a dot"
        )
    if len(name.encode()) > LONGEST_NAME:
        raise BadSubmissionError(f"name {name[:20]}...: give at most {LONGEST_NAME} bytes")


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
