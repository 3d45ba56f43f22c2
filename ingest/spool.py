"""A chunk's journal of finished rows: what a killed run had fetched, the next one need not.

Rows finish in any order and are appended whole, with length and checksum; what a kill tore off at
the end is cut away on opening. The first record says what the spool was made from and with;
a spool of other contents or settings is thrown away.
"""

import fcntl
import json
import os
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pipeline.errors import DataError, SettingError
from pipeline.records import Answer, Failure, Image, Outcome, Reason, Row

VERSION = 1
HEAD = struct.Struct("<III")  # bytes of the description, bytes of the picture, CRC-32 of both
LOCK_PATIENCE = 10.0  # seconds: time for the processes of a killed run to notice and end


class Spool:
    """The journal of one chunk; `index in spool` tells whether a row is finished."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.reasons: Counter[str | None] = Counter()  # of the rows found on opening
        self._offsets: dict[int, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with ExitStack() as on_error:
            on_error.callback(self.close)
            _lock(self._file, path)
            self._end = self._recover({"spool": VERSION, **identity})
            on_error.pop_all()

    def _recover(self, identity: Mapping[str, Any]) -> int:
        end = 0
        for offset, description, data in self._records():
            if offset == 0 and description != identity:
                break
            if offset > 0:
                self._offsets[description["row"]] = offset
                self.reasons[description.get("reason")] += 1
            end = offset + HEAD.size + len(data)
        os.ftruncate(self._file, end)
        return end or self._write(0, identity, b"")

    def _records(self) -> Iterator[tuple[int, dict[str, Any], bytes]]:
        """Whole records from the start: offset, description, description and picture as bytes."""
        offset = 0
        while record := self._record(offset):
            description, data = record
            yield offset, json.loads(description), data
            offset += HEAD.size + len(data)

    def _record(self, offset: int) -> tuple[bytes, bytes] | None:
        head = os.pread(self._file, HEAD.size, offset)
        if len(head) < HEAD.size:
            return None
        length, picture, checksum = HEAD.unpack(head)
        end = offset + HEAD.size + length + picture
        if length == 0 or end > os.fstat(self._file).st_size:  # zeros: a disk that lost power
            return None
        data = os.pread(self._file, length + picture, offset + HEAD.size)
        if zlib.crc32(data) != checksum:
            return None
        return data[:length], data

    def _write(self, offset: int, description: Mapping[str, Any], picture: bytes) -> int:
        text = json.dumps(description).encode()
        data = text + picture
        record = memoryview(HEAD.pack(len(text), len(picture), zlib.crc32(data)) + data)
        while record:  # the system may take less than all, as when the disk becomes full
            try:
                written = os.pwrite(self._file, record, offset)
            except OSError as error:
                error.filename = str(self.path)
                raise
            record, offset = record[written:], offset + written
        return offset

    def append(self, index: int, answer: Answer, result: Image | Failure) -> None:
        """Add a finished row; when this returns, a kill of the process cannot lose it."""
        description: dict[str, Any] = {"row": index, "answer": asdict(answer)}
        picture = b""
        if isinstance(result, Image):
            picture = result.data
            description["image"] = {k: v for k, v in asdict(result).items() if k != "data"}
        else:
            description["reason"] = result.reason.value
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
        description, picture = json.loads(record[0]), record[1][len(record[0]) :]
        result: Image | Failure
        if "image" in description:
            result = Image(data=picture, **description["image"])
        else:
            result = Failure(Reason(description["reason"]))
        return Outcome(row, Answer(**description["answer"]), result)

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
