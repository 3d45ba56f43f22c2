"""What the process of a run tells its parent."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from capstan.ingest.statistics import RowStatistics
from capstan.records import Failure, Image


@dataclass(slots=True)
class Tally:
    """Rows finished since the last message."""

    reasons: Counter[str | None] = field(default_factory=Counter)  # None: a picture
    kept: int = 0  # of them found in the journal of a stopped run
    kept_images: int = 0
    bytes: int = 0  # of bodies

    def count(self, result: Image | Failure) -> None:
        """Add a row."""
        self.reasons[result.reason.value if isinstance(result, Failure) else None] += 1


@dataclass(frozen=True, slots=True)
class ChunkBegun:
    """A chunk that was read."""

    rows: int
    bytes: int
    todo: bool  # its shard is not there yet


@dataclass(frozen=True, slots=True)
class ShardDone:
    """A shard that is whole, by its stats."""

    stats: dict[str, Any]
    is_new: bool
    statistics: RowStatistics = field(default_factory=RowStatistics)


Told = ChunkBegun | Tally | ShardDone
Tell = Callable[[Told], None]
