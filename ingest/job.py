"""A chunk on its way to a shard: its journal, its rows that are out, its equal addresses."""

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field, replace
from typing import Any

from capstan.chunks import Chunk
from capstan.errors import DataError
from capstan.files import output_directory
from capstan.ingest.config import IngestSettings
from capstan.ingest.journal import Journal
from capstan.ingest.rows import read_rows
from capstan.ingest.sink import Sink
from capstan.ingest.statistics import RowStatistics
from capstan.records import Answer, Failure, Image, Outcome, Reason, Row
from capstan.shards import STATS_SUFFIX, read_image_stats

OF_THE_LINE = {Reason.BAD_ROW, Reason.BAD_URL}  # found anew whenever the chunk is read
SPOOLS = ".spool"  # in the output directory


@dataclass(slots=True, eq=False)
class ChunkJob:
    """A chunk being worked on."""

    chunk: Chunk
    journal: Journal
    count: Callable[[Image | Failure], None]  # told of each row that ends
    open: int = 1  # rows that are out, and one more while the chunk is being read
    first: dict[str, Row] = field(default_factory=dict)  # of the rows of an address
    same: dict[str, list[Row]] = field(default_factory=dict)  # the others, while that one is out
    statistics: RowStatistics = field(default_factory=RowStatistics)  # of the rows fetched

    def must_fetch(self, row: Row) -> bool:
        """Whether a row is to be fetched, and is out from now on; an address is fetched once."""
        first = self.first.setdefault(row.url, row)
        if row.index in self.journal:
            return False
        if first is row:
            self.open += 1
            return True
        if first.index in self.journal:
            self._repeat(row, self.journal.read(first))
        else:
            self.same.setdefault(row.url, []).append(row)
        return False

    def finish(self, row: Row, answer: Answer, result: Image | Failure) -> None:
        """Keep how a fetched row ended, for its equals too."""
        self._keep(row, answer, result)
        for other in self.same.pop(row.url, ()):
            self._repeat(other, Outcome(row, answer, result))
        self.open -= 1

    def _repeat(self, row: Row, outcome: Outcome) -> None:
        self._keep(row, replace(outcome.answer, attempts=0), outcome.result)

    def _keep(self, row: Row, answer: Answer, result: Image | Failure) -> None:
        self.journal.append(row, answer, result)
        self.count(result)


def open_job(
    chunk: Chunk, settings: IngestSettings, sink: Sink, count: Callable[[Image | Failure], None]
) -> ChunkJob | dict[str, Any]:
    """Begin a chunk, or go on with what a stopped run had of it.

    Returns the stats of its shard instead if that is whole and nothing in it is to be retried.
    """
    path = settings.output / SPOOLS / chunk.name
    stats = unchanged(chunk, settings, sink)
    retried = settings.retry_failed & set(stats["failures"]) if stats else frozenset()
    if stats and not retried:
        path.unlink(missing_ok=True)
        return stats
    for directory in (path.parent, (settings.output / chunk.name).parent):
        output_directory(directory)
    journal = Journal(path, identity(chunk, settings, sink), sink.frame, sink.hashed)
    if stats:
        take_over(journal, sink.read(settings.output, chunk.name), retried)
    return ChunkJob(chunk, journal, count)


def take_over(journal: Journal, outcomes: Iterable[Outcome], retried: Set[str]) -> None:
    """Fill a journal with the rows of a shard, but for those that failed so."""
    for outcome in outcomes:
        reason = outcome.result.reason if isinstance(outcome.result, Failure) else None
        if outcome.row.index not in journal and reason not in retried | OF_THE_LINE:
            journal.append(outcome.row, outcome.answer, outcome.result)
            journal.reasons[reason] += 1  # as of those that a stopped run had


def unchanged(chunk: Chunk, settings: IngestSettings, sink: Sink) -> dict[str, Any] | None:
    """The stats of a chunk's shard if it is whole and would come out the same, else None."""
    try:
        stats = read_image_stats(settings.output / f"{chunk.name}{STATS_SUFFIX}", sink.format)
    except DataError:  # missing, or of another version or kind: made again
        return None
    if any(stats.get(name) != value for name, value in identity(chunk, settings, sink).items()):
        return None
    for suffix, description in stats["files"].items():
        path = settings.output / f"{chunk.name}{suffix}"
        if not path.is_file() or path.stat().st_size != description["bytes"]:
            return None
    return stats


def identity(chunk: Chunk, settings: IngestSettings, sink: Sink) -> dict[str, Any]:
    """What a chunk's shard and journal depend on, besides the web."""
    return {**settings.identity(chunk.sha256), **sink.identity}


def write_shard(
    chunk: Chunk, journal: Journal, settings: IngestSettings, sink: Sink
) -> dict[str, Any]:
    """Write a finished chunk's shard in row order from its journal; return the shard's stats."""
    # First, so that a shard made of old and new files never counts as whole.
    (settings.output / f"{chunk.name}{STATS_SUFFIX}").unlink(missing_ok=True)
    with journal, chunk.path.open("rb") as file:
        rows = read_rows(file, chunk.name)
        provenance = identity(chunk, settings, sink)
        stats = sink.write(settings.output, chunk.name, rows, journal, provenance)
        journal.remove()
    return stats
