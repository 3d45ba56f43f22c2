"""The format of image shards: tar, parquet and stats.

A shard is named by its chunk, the path of the TSV piece it came from (`cc.tsv/0000000000000000`).
Bytes depend on content only, so equal inputs give equal files and unchanged work is skipped.
They are WebDataset tars in img2dataset's layout; `feature_shards.py` has the others.
`docs/decisions/0003-shard-formats.md` says why.
"""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from capstan.errors import DataError
from capstan.files import (
    FileRange,
    atomic_write,
    copy_range,
    read_json,
    read_table,
    sha256_file,
    write_json,
    write_pieces,
    write_table,
)
from capstan.records import Image, Outcome, Row, StoredImage
from capstan.schemas import OUTCOME_SCHEMA

Piece = bytes | memoryview | FileRange
Line = tuple[Mapping[str, Any], Sequence[Piece]]  # columns of a row; its files, as in a tar

HELD = 1 << 20  # bytes of a tar that are written at once: fewer waits for a turn of our thread
VERSION = 1
IMAGES = "capstan-image-shard"
FUSED = "capstan-fused-shard"  # features and outcomes: of pictures that were never stored
HEADER = tarfile.TarInfo().tobuf(tarfile.PAX_FORMAT)
FIXED = HEADER[100:124], HEADER[136:148], HEADER[156:]  # all but name, size and checksum
FIXED_SUM = sum(b"".join(FIXED)) + 8 * ord(" ")  # the checksum counts itself as spaces
STATS_SUFFIX = "_stats.json"
OUTCOMES_SUFFIX = "_outcomes.parquet"  # in a fused shard, whose `.parquet` is of its features


# Image shards


def write_image_shard(
    directory: Path, chunk: str, outcomes: Iterable[Outcome], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Write `<chunk>.tar`, `<chunk>.parquet` and, last, `<chunk>_stats.json`; return the stats.

    `outcomes` come in row order and may be a stream: pictures are not held in memory.
    `provenance` (hash of the chunk, settings) is kept in the stats, to tell what is unchanged.
    """
    return write_image_lines(directory, chunk, map(_line, outcomes), provenance)


def _line(outcome: Outcome) -> Line:
    columns, image = outcome_row(outcome), outcome.result
    if not isinstance(image, Image):
        return columns, ()
    head, tail = tar_envelope(outcome.row, image)
    return columns, (head, image.data, tail)


def write_image_lines(
    directory: Path, chunk: str, lines: Iterable[Line], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """The same from what was prepared of each outcome."""
    rows: list[Mapping[str, Any]] = []
    with atomic_write(directory / f"{chunk}.tar") as file:
        tar = _Tar(file)
        for columns, parts in lines:
            rows.append(columns)
            tar.add(parts)
        tar.end()
    return write_outcomes(directory, chunk, IMAGES, rows, (".tar", ".parquet"), provenance)


class _Tar:
    """The tar of an image shard while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file.fileno()
        self._size = self._written = 0
        self._held: list[bytes | memoryview] = []

    def add(self, pieces: Sequence[Piece]) -> None:
        """Add files as they lie in a tar."""
        if pieces and self._size == 0:  # not in an empty tar: `tarfile` refuses it
            says = {"CAPSTAN.format": IMAGES, "CAPSTAN.version": str(VERSION)}
            self._append(tarfile.TarInfo.create_pax_global_header(says))
        for piece in pieces:
            if isinstance(piece, FileRange):
                self._flush()
                self._size = self._written = copy_range(piece, self._file, self._written)
            else:
                self._append(piece)

    def end(self) -> None:
        """Write the rest, and the zeros that end a tar."""
        self._append(bytes(2 * tarfile.BLOCKSIZE))
        self._append(bytes(-self._size % tarfile.RECORDSIZE))
        self._flush()

    def _append(self, piece: bytes | memoryview) -> None:
        self._held.append(piece)
        self._size += len(piece)
        if self._size - self._written > HELD:
            self._flush()

    def _flush(self) -> None:
        self._written = write_pieces(self._file, self._held, self._written)
        self._held = []


def write_outcomes(
    directory: Path,
    chunk: str,
    format: str,
    rows: Sequence[Mapping[str, Any]],
    suffixes: Sequence[str],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Write rows of `outcome_row` as the last of a shard's files, then its stats; return these.

    Of a tar the stats have no hash, which would take as long as all else that is done to write it:
    each picture in it has its own, in the table, which has one here.
    """
    paths = {suffix: directory / f"{chunk}{suffix}" for suffix in suffixes}
    table = pa.Table.from_pylist(rows, schema=OUTCOME_SCHEMA)
    write_table(paths[suffixes[-1]], table, {"format": format, "version": VERSION, "chunk": chunk})
    failures = Counter(row["reason"] for row in rows if row["reason"] is not None)
    stats = {
        "format": format,
        "version": VERSION,
        "chunk": chunk,
        "rows": len(rows),
        "images": len(rows) - failures.total(),
        "failures": dict(sorted(failures.items())),
        "files": {
            suffix: {"bytes": path.stat().st_size}
            | ({} if suffix == ".tar" else {"sha256": sha256_file(path)})
            for suffix, path in paths.items()
        },
        **provenance,
    }
    write_json(directory / f"{chunk}{STATS_SUFFIX}", stats)
    return stats


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """A line of `OUTCOME_SCHEMA`."""
    image = outcome.result if isinstance(outcome.result, Image) else None
    columns = asdict(outcome.answer) | {
        "key": outcome.row.key,
        "url": outcome.row.url,
        "caption": outcome.row.caption,
        "status": "failed" if image is None else "success",
        "reason": None if isinstance(outcome.result, Image) else outcome.result.reason.value,
    }
    return columns | _columns(image)


def _columns(image: Image | None) -> dict[str, Any]:
    names = ("width", "height", "original_width", "original_height", "sha256")
    return {name: getattr(image, name, None) for name in names}


def tar_envelope(row: Row, image: Image) -> tuple[bytes, bytes]:
    """What comes before a picture's bytes in a tar, and after them: its caption, its record."""
    description = {"key": row.key, "url": row.url, "caption": row.caption, **_columns(image)}
    caption = row.caption.encode()
    record = orjson.dumps(description)
    tail = (
        _padding(image.data),
        tar_header(f"{row.key}.txt", len(caption)),
        caption,
        _padding(caption),
        tar_header(f"{row.key}.json", len(record)),
        record,
        _padding(record),
    )
    return tar_header(f"{row.key}.jpg", len(image.data)), b"".join(tail)


def _padding(data: bytes) -> bytes:
    return bytes(-len(data) % tarfile.BLOCKSIZE)


def tar_header(name: str, size: int) -> bytes:
    """The header of a file, as `tarfile` makes it, five times as fast where all fits in ustar."""
    head = name.encode()
    if len(head) > 100 or not name.isascii() or size >= 8**11:
        member = tarfile.TarInfo(name)
        member.size = size
        return member.tobuf(tarfile.PAX_FORMAT)
    digits = b"%011o\0" % size
    checksum = b"%06o\0 " % (FIXED_SUM + sum(head) + sum(digits))
    return b"".join((head.ljust(100, b"\0"), FIXED[0], digits, FIXED[1], checksum, FIXED[2]))


def read_image_stats(path: Path, format: str = IMAGES) -> dict[str, Any]:
    """Read a `_stats.json`; its presence says that the shard is whole."""
    return read_json(path, format, VERSION)


def read_outcomes(path: Path) -> pa.Table:
    """Read how the rows of a shard ended: one line each, failures too (`OUTCOME_SCHEMA`)."""
    return read_table(path, FUSED if path.name.endswith(OUTCOMES_SUFFIX) else IMAGES, VERSION)[0]


def read_images(path: Path) -> Iterator[StoredImage]:
    """Stream the pictures of an image shard's tar, each checked against its hash."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; make it again with `capstan ingest`") from error
    with file:
        _check_tar_end(path, file)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                if tar.next() is not None:
                    _check_tar_version(path, tar)
                yield from _tar_images(path, tar)
        except (tarfile.TarError, EOFError) as error:
            header = max(0, file.tell() - tarfile.BLOCKSIZE)
            raise damaged(path, f"{error} at byte {header}") from error


def _tar_images(path: Path, tar: tarfile.TarFile) -> Iterator[StoredImage]:
    members: dict[str, bytes] = {}
    start = 0  # of the picture
    for member in tar:
        key, _, extension = member.name.partition(".")
        if extension == "jpg":
            start = member.offset
        stream = tar.extractfile(member)
        members[extension] = b"" if stream is None else stream.read()
        if extension == "json":
            try:
                image = StoredImage(
                    key,
                    members["txt"].decode(),
                    members["jpg"],
                    orjson.loads(members["json"])["sha256"],
                )
            except (KeyError, ValueError) as error:
                raise damaged(path, f"{member.name} at byte {member.offset}") from error
            if hashlib.sha256(image.data).hexdigest() != image.sha256:
                raise damaged(path, f"{key}.jpg at byte {start} does not match its sha256")
            members.clear()
            yield image
    if members:
        raise damaged(path, f"{key} has no .json")


def _check_tar_end(path: Path, file: BinaryIO) -> None:
    """A whole tar fills its records and ends in two zero blocks; `tarfile` lets it pass without."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
    end = file.read()
    file.seek(0)
    if size == 0 or size % tarfile.RECORDSIZE or end.strip(b"\0"):
        raise damaged(path, f"truncated at byte {size}")


def _check_tar_version(path: Path, tar: tarfile.TarFile) -> None:
    if tar.pax_headers.get("CAPSTAN.format") != IMAGES:
        raise DataError(f"{path}: not a {IMAGES}; make it with `capstan ingest`")
    if (version := tar.pax_headers.get("CAPSTAN.version")) != str(VERSION):
        raise DataError(
            f"{path}: {IMAGES} version {version}, but this capstan reads version {VERSION}; "
            "make it again with this capstan, or use the one that wrote it"
        )


def damaged(path: Path, what: str) -> DataError:
    """What to say of a shard that is not as it was written."""
    return DataError(f"{path}: damaged ({what}); delete the shard and make it again")
