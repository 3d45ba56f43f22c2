"""One picture of an image shard, by its key, without reading the tar before it.

A tar has no table of contents. Once read through, header by header, the place of every `STRIDE`th
picture is remembered: from there on it is a few headers to any other. Rows lie in order, so a
bisection finds the place.
"""

import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from capstan.errors import DataError
from capstan.ingest.service.outcomes import split_key

STRIDE = 64  # pictures
BLOCK = tarfile.BLOCKSIZE
SHARDS = 64  # whose places are remembered
Member = tuple[str, int, int]  # name, where its bytes are, how many


def read_picture(path: Path, key: str) -> bytes | None:
    """The JPEG of a row in a tar; None if there is none. Raises DataError for what is no tar."""
    parted = split_key(key)
    if parted is None:
        return None
    with path.open("rb") as file:
        status = path.stat()
        rows, places = _index(path, status.st_ino, status.st_mtime_ns)
        near = bisect_right(rows, parted[1]) - 1
        if near < 0:
            return None
        for name, start, size in _members(file, places[near]):
            if name == f"{key}.jpg":
                file.seek(start)
                return file.read(size)
            if name.endswith(".jpg") and _row(name) > parted[1]:
                return None
    return None


@lru_cache(SHARDS)
def _index(path: Path, _inode: int, _changed: int) -> tuple["array[int]", "array[int]"]:
    """Rows and places of every `STRIDE`th picture; a file that was replaced is another one."""
    rows, places = array("q"), array("q")
    with path.open("rb") as file:
        count, place = 0, 0
        for name, start, size in _members(file, 0):
            if name.endswith(".jpg"):
                if count % STRIDE == 0:
                    rows.append(_row(name))
                    places.append(place)
                count += 1
            place = start + _padded(size)
    return rows, places


def _row(name: str) -> int:
    parted = split_key(name.partition(".")[0])
    return parted[1] if parted else -1


def _members(file: BinaryIO, place: int) -> Iterator[Member]:
    """The files of a tar from a place on, which is one's header; pax headers name long ones."""
    long_name = ""
    while True:
        file.seek(place)
        header = file.read(BLOCK)
        if not header.strip(b"\0"):
            return
        try:
            name, size = header[:100].rstrip(b"\0").decode(), int(header[124:136].strip(b"\0 "), 8)
        except ValueError as error:
            raise DataError(f"{file.name}: not a tar at byte {place}; make it again") from error
        start, kind = place + BLOCK, header[156:157]
        place = start + _padded(size)
        if kind == b"x":
            long_name = _long_name(file.read(size))
        elif kind != b"g":
            yield long_name or name, start, size
            long_name = ""


def _long_name(records: bytes) -> str:
    """The path among pax records, `LENGTH path=NAME` and a line feed each."""
    for record in records.split(b"\n"):
        name, _, value = record.partition(b" ")[2].partition(b"=")
        if name == b"path":
            return value.decode()
    return ""


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
