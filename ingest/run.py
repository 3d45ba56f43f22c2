"""A whole run: what is to do, the processes that do it, and what came of it."""

import logging
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capstan.chunks import Chunk, find_chunks, has_tab
from capstan.errors import DataError, SettingError
from capstan.files import input_directory, output_directory
from capstan.ingest.config import IngestSettings
from capstan.ingest.decode.images import check_decoders
from capstan.ingest.job import SPOOLS
from capstan.ingest.journal import remove_journals
from capstan.ingest.sink import IMAGE_SHARDS, Sink
from capstan.ingest.statistics import RunStatistics
from capstan.ingest.supervise import supervise

logger = logging.getLogger(__name__)


@dataclass
class Summary:
    """What the shards of a run hold."""

    rows: int = 0
    images: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, stats: dict[str, Any]) -> None:
        """Add a shard by its stats."""
        self.rows += stats["rows"]
        self.images += stats["images"]
        self.failures.update(stats["failures"])

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.failures.most_common())
        failed = f"{self.failures.total():,} failures" + (f" ({reasons})" if reasons else "")
        return f"{self.rows:,} rows = {self.images:,} images + {failed}"


def ingest(settings: IngestSettings, sink: Sink = IMAGE_SHARDS) -> Summary:
    """Make the shards of all chunks that changed; log and return what all shards hold.

    Raises SettingError for directories or a Pillow that cannot be used, DataError for input that
    is no TSV of captions and URLs.
    """
    check_directories(settings.input, settings.output)
    chunks = find_chunks(settings.input)
    check_input(settings.input, chunks)
    check_decoders()
    if settings.statistics:
        output_directory(settings.statistics)
    summary, statistics, done = Summary(), RunStatistics(), 0
    with ended_by_sigterm():
        for shard in supervise(chunks, settings, sink, statistics):
            summary.add(shard.stats)
            if shard.is_new:
                done += 1
                statistics.add(shard.stats["chunk"], shard.statistics)
    if settings.statistics:
        statistics.write(settings.statistics)
    remove_journals(settings.output / SPOOLS)
    logger.info("%d chunks: %d unchanged, %d done", len(chunks), len(chunks) - done, done)
    event = {"rows": summary.rows, "images": summary.images, "failures": dict(summary.failures)}
    logger.info("%s", summary, extra={"event": {"ingested": event}})
    return summary


def check_directories(source: Path, output: Path) -> None:
    """Refuse directories that cannot be used; shards among the chunks would be taken for chunks."""
    input_directory(source)
    if output.resolve().is_relative_to(source.resolve()):
        raise SettingError(f"{output}: lies in {source}; give a directory outside with --output")
    output_directory(output)


def check_input(directory: Path, chunks: Sequence[Chunk]) -> None:
    """Refuse input without a single row of two columns; reads no further than the first."""
    if not chunks:
        raise DataError(f"{directory}: no chunks in it; make them with `capstan split`")
    if not any(map(has_tab, chunks)):
        raise DataError(
            f"{chunks[0].path}: no line of it"
            + (f" or of {len(chunks) - 1} more chunks" if len(chunks) > 1 else "")
            + " has a tab; expected caption<TAB>url"
        )


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exit with a shell's status for it."""

    def end(*_: object) -> None:
        logger.info("stopping; run the same command again to go on")
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
