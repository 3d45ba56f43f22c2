"""How rows of whole shards ended, read from their parquets a batch at a time."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from capstan.errors import DataError
from capstan.files import MANIFEST
from capstan.records import row_key
from capstan.schemas import OUTCOME_SCHEMA
from capstan.shards import IMAGES, VERSION, read_image_stats

BATCH = 8_192  # rows
KEY = re.compile(r"[A-Za-z0-9_-]{1,400}-(\d{6,12})", re.ASCII)
COLUMNS = (
    "key", "url", "caption", "status", "reason", "http_status", "attempts", "bytes", "width",
    "height", "final_url",
)  # fmt: skip
Page = tuple[list[dict[str, Any]], str | None]  # outcomes, and the key after which more follow


def split_key(key: str) -> tuple[str, int] | None:
    """What a row's key has of its chunk, and its line number; None for what is no key."""
    match = KEY.fullmatch(key)
    return (key[: match.start(1) - 1], int(match[1])) if match else None


def chunk_key(chunk: str) -> str:
    """What keys of a chunk's rows begin with."""
    return row_key(chunk, 0).rpartition("-")[0]


def read_page(
    folder: Path,
    chunks: Sequence[str],
    wanted: dict[str, str],
    after: tuple[str, int] | None,
    limit: int,
) -> Page:
    """Outcomes whose columns are as `wanted`, in order, from after a row on.

    `chunks` are those of one job, in order; shards that cannot hold any are not read.
    """
    found: list[dict[str, Any]] = []
    for chunk in chunks:
        name = chunk_key(chunk)
        if (after and name < after[0]) or not _may_hold(folder, chunk, wanted):
            continue
        first = after[1] + 1 if after and name == after[0] else 0
        for batch in _batches(folder, chunk, COLUMNS, first):
            found += _filtered(batch, wanted).slice(0, limit + 1 - len(found)).to_pylist()
            if len(found) > limit:
                return found[:limit], found[limit - 1]["key"]
    return found, None


def _may_hold(folder: Path, chunk: str, wanted: dict[str, str]) -> bool:
    stats = read_image_stats(folder / f"{chunk}_stats.json")
    failures = stats["failures"]
    if "reason" in wanted:
        return wanted["reason"] in failures and wanted.get("status") != "success"
    counts = {"failed": sum(failures.values()), "success": stats["images"]}
    return bool(counts.get(wanted.get("status", ""), 1))


def _filtered(batch: pa.RecordBatch, wanted: dict[str, str]) -> pa.RecordBatch:
    for name, value in wanted.items():
        batch = batch.filter(pc.equal(batch.column(name), value))
    return batch


def _batches(
    folder: Path, chunk: str, columns: Sequence[str], first: int = 0
) -> Iterator[pa.RecordBatch]:
    """Batches of a shard's outcomes from a row on; raises DataError for what is no parquet."""
    path = folder / f"{chunk}.parquet"
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                if first < batch.num_rows:
                    yield batch.slice(first)
                first = max(0, first - batch.num_rows)
    except pa.ArrowException as error:
        message = str(error).splitlines()[0]
        raise DataError(f"{path}: not a whole parquet file ({message})") from error


def newest_pictures(folder: Path, chunks: Sequence[str], limit: int) -> list[dict[str, str]]:
    """Keys and captions of the last pictures of the shards that became whole last."""
    by_age = sorted(
        chunks, key=lambda chunk: (folder / f"{chunk}_stats.json").stat().st_mtime, reverse=True
    )
    found: list[dict[str, str]] = []
    for chunk in by_age:
        last: list[dict[str, str]] = []
        for batch in _batches(folder, chunk, ("key", "caption", "status")):
            last += _filtered(batch, {"status": "success"}).select(["key", "caption"]).to_pylist()
            last = last[-limit:]
        found += reversed(last)
        if len(found) >= limit:
            break
    return found[:limit]


class _Pieces(io.RawIOBase):
    """A file whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def one_parquet(folder: Path, chunks: Sequence[str]) -> Iterator[bytes]:
    """The pieces of one parquet with the outcomes of all these shards, in order.

    Memory is bounded by a batch: a row group of the file for each.
    """
    manifest = {"format": IMAGES, "version": VERSION, "chunks": list(chunks)}
    metadata = {MANIFEST: json.dumps(manifest, sort_keys=True).encode()}
    schema, pieces = OUTCOME_SCHEMA.with_metadata(metadata), _Pieces()
    with pq.ParquetWriter(pieces, schema, compression="zstd") as writer:
        yield pieces.take()
        for chunk in chunks:
            for batch in _batches(folder, chunk, OUTCOME_SCHEMA.names):
                writer.write_batch(batch.replace_schema_metadata(metadata))
                yield pieces.take()
    yield pieces.take()
