"""A chunk's journal of finished rows: what a killed run had fetched, the next one need not.

Rows finish in any order and are appended whole, with lengths and checksums; what a kill tore off
at the end is cut away on opening. The first record says what the spool was made from and with;
a spool of other contents or settings is thrown away.
"""

import fcntl
import hashlib
import json
import os
import struct
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from pipeline.errors import DataError, SettingError
from pipeline.records import Answer, Failure, Image, Outcome, Reason, Row

VERSION = 2
HEAD = struct.Struct("<III")  # bytes of the description, bytes of the picture, CRC-32
LOCK_PATIENCE = 10.0  # seconds: time for the processes of a killed run to notice and end


class Spool:
    """The journal of one chunk; `index in spool` tells whether a row is finished.

    The CRC of a record is of its description, which holds the hash of the picture. If what is kept
    of pictures is not what was hashed, as `hashed` says, the CRC is of that too.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], hashed: bool = True) -> None:
        self.path = path
        self.reasons: Counter[str | None] = Counter()  # of the rows found on opening
        self._hashed = hashed
        self._offsets: dict[int, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with ExitStack() as on_error:
            on_error.callback(self.close)
            _lock(self._file, path)
            self._end = self._recover({"spool": VERSION, **identity})
            on_error.pop_all()

    def _recover(self, identity: Mapping[str, Any]) -> int:
        description, _ = self._record(0) or (b"", b"")
        if not description or json.loads(description) != identity:
            os.ftruncate(self._file, 0)
            return self._write(0, json.dumps(identity).encode(), b"")
        at = HEAD.size + len(description)
        while (record := self._record(at)) and self._is_whole(*record):
            description, picture = record
            index, reason = json.loads(description)[:2]
            self._offsets[index] = at
            self.reasons[reason] += 1
            at += HEAD.size + len(description) + len(picture)
        os.ftruncate(self._file, at)
        return at

    def _record(self, offset: int) -> tuple[bytes, bytes] | None:
        """Description and picture; None past the end and for what is torn."""
        head = os.pread(self._file, HEAD.size, offset)
        if len(head) < HEAD.size:
            return None
        length, size, checksum = HEAD.unpack(head)
        if length == 0 or length + size > os.fstat(self._file).st_size - offset - HEAD.size:
            return None  # torn, or zeros: a disk that lost power
        description = os.pread(self._file, length, offset + HEAD.size)
        picture = os.pread(self._file, size, offset + HEAD.size + length) if size else b""
        return (description, picture) if self._crc(description, picture) == checksum else None

    def _crc(self, description: bytes, picture: bytes) -> int:
        return zlib.crc32(b"" if self._hashed else picture, zlib.crc32(description))

    def _is_whole(self, description: bytes, picture: bytes) -> bool:
        if not picture or not self._hashed:
            return True
        return bool(json.loads(description)[-1] == hashlib.sha256(picture).hexdigest())

    def _write(self, offset: int, description: bytes, picture: bytes) -> int:
        head = HEAD.pack(len(description), len(picture), self._crc(description, picture))
        size = len(head) + len(description) + len(picture)
        try:
            written = os.pwritev(self._file, (head, description, picture), offset)
            while written < size:  # the system may take less than all, as when the disk is full
                rest = b"".join((head, description, picture))[written:]
                written += os.pwrite(self._file, rest, offset + written)
        except OSError as error:
            error.filename = str(self.path)
            raise
        return offset + size

    def append(self, index: int, answer: Answer, result: Image | Failure) -> None:
        """Add a finished row; when this returns, a kill of the process cannot lose it."""
        picture = result.data if isinstance(result, Image) else b""
        description = json.dumps([index, *_describe(answer, result)]).encode()
        offset, self._end = self._end, self._write(self._end, description, picture)
        self._offsets[index] = offset

    def read(self, row: Row) -> Outcome:
        """How a finished row ended."""
        record = self._record(self._offsets[row.index]) if row.index in self else None
        if record is None:
            raise DataError(
                f"{self.path}: does not hold row {row.index}; it or its chunk was altered while in "
                "use, so run the same command again"
            )
        _, *fields = json.loads(record[0])
        return Outcome(row, *_read(fields, record[1]))

    def __contains__(self, index: int) -> bool:
        return index in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

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
    """Everything but the picture; its hash comes last."""
    asked = (answer.http_status, answer.attempts, answer.bytes, answer.final_url)
    if isinstance(result, Failure):
        return [result.reason.value, *asked]
    sizes = (result.width, result.height, result.original_width, result.original_height)
    return [None, *asked, *sizes, result.sha256]


def _read(fields: list[Any], picture: bytes) -> tuple[Answer, Image | Failure]:
    reason, answer = fields[0], Answer(*fields[1:5])
    return answer, Failure(Reason(reason)) if reason else Image(picture, *fields[5:])


def _lock(file: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise SettingError(f"{path}: another run works on this; wait for it or stop it")
        time.sleep(0.05)


def remove_spools(directory: Path) -> None:
    """Remove an empty tree of spools."""
    for parent, _, _ in os.walk(directory, topdown=False):
        with suppress(OSError):
            Path(parent).rmdir()
