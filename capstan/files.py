"""Files that are either whole or absent, and tables that say what they are.

Every file is written to a temporary name, fsynced and renamed. Parquet tables carry a manifest
(format, version, whatever else a reader needs) in their schema metadata.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from capstan.errors import DataError, SettingError

MANIFEST = b"capstan"
IOV_MAX = os.sysconf("SC_IOV_MAX")
CANNOT_COPY = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP}  # some file systems


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Name a temporary neighbour of `path` to write; rename it to `path` when the block ends.

    For writers that want a name; it keeps the suffix. After an exception nothing is left; after a
    crash at most a hidden `.partial-` file, which no reader looks at and the next write replaces.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        temporary.rename(path)
    finally:
        with suppress(OSError):  # it is not there any more, unless something failed
            temporary.unlink()
    _sync(path.parent)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open what is to become `path` for writing; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


def write_pieces(file: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
    """Write pieces into a file one behind the other, from an offset on; return where they end.

    They are not joined before, which would copy every picture once more.
    """
    for at in range(0, len(pieces), IOV_MAX):
        some = pieces[at : at + IOV_MAX]
        size, written = sum(map(len, some)), os.pwritev(file, some, offset)
        while written < size:  # the system may take less than all, as when the disk is full
            written += os.pwrite(file, b"".join(some)[written:], offset + written)
        offset += size
    return offset


class FileRange(NamedTuple):
    """Bytes that lie in a file already."""

    file: int  # its descriptor
    offset: int
    size: int


def copy_range(stretch: FileRange, file: int, offset: int) -> int:
    """Copy bytes of another file into a file, from an offset on; return where they end.

    The system does that in little more than half of the time of reading and writing them. Raises
    DataError when the other file ends before.
    """
    source, at, left = stretch
    while left:
        copied = _copy(source, at, left, file, offset)
        if not copied:
            raise DataError(f"a file that was being copied has ended {left} bytes too early")
        at, offset, left = at + copied, offset + copied, left - copied
    return offset


def _copy(source: int, at: int, size: int, file: int, offset: int) -> int:
    try:
        return os.copy_file_range(source, file, size, at, offset)
    except OSError as error:
        if error.errno not in CANNOT_COPY:
            raise
    return os.pwrite(file, os.pread(source, size, at), offset)


def _sync(path: Path) -> None:
    """Make a file's contents, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, for people to read too."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def read_json(path: Path, format: str, version: int) -> dict[str, Any]:
    """Read a JSON object that says its own format and version, and check both."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; make it again with the stage that writes it") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); delete it and make it again") from error
    check_manifest(path, value, format, version)
    return dict(value)


def write_table(path: Path, table: pa.Table, manifest: Mapping[str, Any]) -> None:
    """Write a parquet table with its manifest, atomically; equal tables give equal bytes."""
    metadata = {MANIFEST: json.dumps(manifest, sort_keys=True).encode()}
    with atomic_write(path) as file:
        pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")


def read_table(
    path: Path, format: str, version: int, columns: Sequence[str] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Read a parquet table, or some of its columns, and its manifest; check format and version."""
    try:
        with pq.ParquetFile(path) as file:
            manifest = json.loads((file.schema_arrow.metadata or {}).get(MANIFEST, b"null"))
            check_manifest(path, manifest, format, version)
            table = file.read(columns)
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; make it again with the stage that writes it") from error
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        raise DataError(
            f"{path}: not a whole parquet file ({message}); delete it and make it again"
        ) from error
    return table, manifest


def check_manifest(path: Path, manifest: Any, format: str, version: int) -> None:
    """Refuse what another program, another stage or another version wrote."""
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != format:
        raise DataError(f"{path}: not a {format} ({found or 'no format named'}); check the folder")
    if manifest.get("version") != version:
        raise DataError(
            f"{path}: {format} version {manifest.get('version')}, but this capstan reads version "
            f"{version}; make it again with this capstan, or use the one that wrote it"
        )


def input_directory(path: Path, flag: str = "--input") -> Path:
    """Check that a directory is there to read, or say which flag to mend."""
    if not path.is_dir():
        raise SettingError(f"{path}: no such directory; give an existing one with {flag}")
    return path


def output_directory(path: Path, flag: str = "--output") -> Path:
    """Make a directory and check that it can be written to, or say which flag to mend."""
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingError(
            f"{path}: cannot write there ({error.strerror}); give another directory with {flag}"
        ) from error
    return path


def data_files(directory: Path, suffix: str = "") -> list[Path]:
    """Visible files below a directory that end in `suffix`, sorted by path."""
    return sorted(
        path
        for path in directory.rglob(f"*{suffix}")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
