"""A chunk's journal of finished rows: what a killed run had fetched, the next one need not.

Rows finish in any order and are appended whole, with lengths and checksums; what a kill tore off
at the end is cut away on opening. Pictures lie in the frame that they have in a shard, so that
there they need only be copied. The first record says what the journal was made from and with;
a journal of other contents or settings is thrown away.
"""

import fcntl
import hashlib
import os
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from capstan.errors import DataError, SettingError
from capstan.files import FileRange, write_pieces
from capstan.records import Answer, Failure, Image, Outcome, Reason, Row
from capstan.shards import Line

VERSION = 3
# CRC-32; bytes of the description, of what comes before the picture, of the picture, of the rest
HEAD = struct.Struct("<IIIII")
USUAL_START = 2_048  # bytes of a record: more than most have before their picture
COLUMNS = (  # of a description, after the row's index; a failure has no more than the first five
    "reason",
    "http_status",
    "attempts",
    "bytes",
    "final_url",
    "width",
    "height",
    "original_width",
    "original_height",
    "sha256",
)
Part = bytes | memoryview
Parts = tuple[Part, Part, Part]  # before the picture, the picture, after it
NOTHING: Parts = (b"", b"", b"")
SIZE_BITS = 36
SIZE_MASK = (1 << SIZE_BITS) - 1
Frame = Callable[[Row, Image], tuple[bytes, bytes]]
LOCK_PATIENCE = 10.0  # seconds: time for the processes of a killed run to notice and end


def place_of(offset: int, size: int) -> int:
    """Where a record lies, in one number: there are millions."""
    return offset << SIZE_BITS | size


def end_of(place: int) -> int:
    """Where the next record begins."""
    return (place >> SIZE_BITS) + (place & SIZE_MASK)


def no_envelope(row: Row, image: Image) -> tuple[bytes, bytes]:
    """No frame: nothing but what is kept of pictures."""
    return b"", b""


@dataclass(frozen=True, slots=True)
class _Record:
    """Of a row, as the journal holds it. Raises no error when it is damaged: see `is_whole`."""

    description: bytes
    body: memoryview
    picture: slice  # of the body

    @property
    def fields(self) -> list[Any]:
        found: list[Any] = orjson.loads(self.description)
        return found

    @property
    def data(self) -> memoryview:
        return self.body[self.picture]


class Journal:
    """The journal of one chunk; `index in journal` tells whether a row is finished.

    `frame` makes of a row and its picture what comes before and after that. The CRC of a record is
    of all but the picture, whose hash the description holds. If what is kept of pictures is not
    what was hashed, as `hashed` says, the CRC is of that too.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        frame: Frame = no_envelope,
        hashed: bool = True,
    ) -> None:
        self.path = path
        self.reasons: Counter[str | None] = Counter()  # of the rows that were there before
        self._frame, self._hashed = frame, hashed
        self._places: dict[int, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with ExitStack() as on_error:
            on_error.callback(self.close)
            _lock(self._file, path)
            made = {"spool": VERSION, "frame": frame.__name__, **identity}
            self._end = self._recover(made)
            on_error.pop_all()

    def _recover(self, identity: Mapping[str, Any]) -> int:
        place = self._place_at(0)
        first = self._record(place)
        if first is None or orjson.loads(first.description) != identity:
            os.ftruncate(self._file, 0)
            return self._write(0, orjson.dumps(identity), NOTHING)
        at = end_of(place)
        while (record := self._record(place := self._place_at(at))) and self._is_whole(record):
            index, reason = record.fields[:2]
            self._places[index] = place
            self.reasons[reason] += 1
            at = end_of(place)
        os.ftruncate(self._file, at)
        return at

    def _place_at(self, offset: int) -> int:
        """Of the record that begins there; 0 past the end and for what is torn."""
        head = os.pread(self._file, HEAD.size, offset)
        _, length, *sizes = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0)
        size = HEAD.size + length + sum(sizes)
        torn = size > os.fstat(self._file).st_size - offset
        return 0 if torn or not length else place_of(offset, size)  # zeros: a disk lost power

    def _record(self, place: int) -> _Record | None:
        """None for what is torn or damaged."""
        offset, size = place >> SIZE_BITS, place & SIZE_MASK
        whole = memoryview(os.pread(self._file, size, offset))
        if not place or len(whole) < size:
            return None
        checksum, length, before, picture, _ = HEAD.unpack_from(whole)
        body = whole[HEAD.size + length :]
        end = before + picture
        parts = (body[:before], body[before:end], body[end:])
        description = bytes(whole[HEAD.size : HEAD.size + length])
        if self._crc(description, parts) != checksum:
            return None
        return _Record(description, body, slice(before, end))

    def _crc(self, description: bytes, parts: Parts) -> int:
        before, picture, after = parts
        crc = zlib.crc32(after, zlib.crc32(before, zlib.crc32(description)))
        return crc if self._hashed else zlib.crc32(picture, crc)

    def _is_whole(self, record: _Record) -> bool:
        if not record.data or not self._hashed:
            return True
        return bool(record.fields[-1] == hashlib.sha256(record.data).hexdigest())

    def _write(self, offset: int, description: bytes, parts: Parts) -> int:
        crc = self._crc(description, parts)
        head = HEAD.pack(crc, len(description), *map(len, parts))
        try:
            return write_pieces(self._file, (head, description, *parts), offset)
        except OSError as error:
            error.filename = str(self.path)
            raise

    def append(self, row: Row, answer: Answer, result: Image | Failure) -> None:
        """Add a finished row; when this returns, a kill of the process cannot lose it."""
        parts = NOTHING
        if isinstance(result, Image):
            before, after = self._frame(row, result)
            parts = (before, result.data, after)
        description = orjson.dumps([row.index, *_describe(answer, result)])
        offset, self._end = self._end, self._write(self._end, description, parts)
        self._places[row.index] = place_of(offset, self._end - offset)

    def read(self, row: Row) -> Outcome:
        """How a finished row ended."""
        record = self._find(row)
        reason, *fields = record.fields[1:]
        answer = Answer(*fields[:4])
        if reason:
            return Outcome(row, answer, Failure(Reason(reason)))
        return Outcome(row, answer, Image(bytes(record.data), *fields[4:]))

    def line(self, row: Row) -> Line:
        """The same as a line of a shard's table, and what a shard's tar has of it."""
        fields, body = self._locate(row)
        columns = dict(zip(COLUMNS, fields, strict=False))
        columns |= {"key": row.key, "url": row.url, "caption": row.caption}
        columns["status"] = "failed" if columns["reason"] else "success"
        return columns, (body,) if body.size else ()

    def _locate(self, row: Row) -> tuple[list[Any], FileRange]:
        """The columns of a row, and where its body lies; of that, what has a hash is not read."""
        with suppress(KeyError, ValueError, struct.error):
            offset = self._places[row.index] >> SIZE_BITS
            start = os.pread(self._file, USUAL_START, offset)
            checksum, length, before, picture, after = HEAD.unpack_from(start)
            body = HEAD.size + length
            if body + before > USUAL_START:
                start = os.pread(self._file, body + before, offset)
            data_at = offset + body + before
            data = b"" if self._hashed else os.pread(self._file, picture, data_at)
            rest = os.pread(self._file, after, data_at + picture)
            description = start[HEAD.size : body]
            if self._crc(description, (start[body : body + before], data, rest)) == checksum:
                fields = orjson.loads(description)[1:]
                return fields, FileRange(self._file, offset + body, before + picture + after)
        raise self._altered(row)

    def _find(self, row: Row) -> _Record:
        record = self._record(self._places[row.index]) if row.index in self else None
        if record is None:
            raise self._altered(row)
        return record

    def _altered(self, row: Row) -> DataError:
        return DataError(
            f"{self.path}: does not hold row {row.index}; it or its chunk was altered while in "
            "use, so run the same command again"
        )

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"<Spool {self.path}: {len(self)} rows, {self._end} bytes>"

    def remove(self) -> None:
        """Delete the file, once its shard is written."""
        self.path.unlink()

    def close(self) -> None:
        """Close the file and let go of its lock."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _describe(answer: Answer, result: Image | Failure) -> list[Any]:
    """Everything but the picture, as COLUMNS names it."""
    asked = (answer.http_status, answer.attempts, answer.bytes, answer.final_url)
    if isinstance(result, Failure):
        return [result.reason.value, *asked]
    sizes = (result.width, result.height, result.original_width, result.original_height)
    return [None, *asked, *sizes, result.sha256]


def _lock(file: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise SettingError(f"{path}: another run works on this; wait for it or stop it")
        time.sleep(0.05)


def remove_journals(directory: Path) -> None:
    """Remove an empty tree of journals."""
    for parent, _, _ in os.walk(directory, topdown=False):
        with suppress(OSError):
            Path(parent).rmdir()
