"""The seam to what comes of the pictures: what is kept of each, and what a chunk's shard holds.

Here pictures are kept as they are and become image shards; `fused` keeps their features instead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

from capstan.ingest.journal import Frame, Journal
from capstan.records import Answer, Failure, Image, Outcome, Reason, Row
from capstan.shards import (
    IMAGES,
    outcome_row,
    read_images,
    read_outcomes,
    tar_envelope,
    write_image_lines,
)

IMAGE_COLUMNS = ("width", "height", "original_width", "original_height", "sha256")
ROWS_AT_ONCE = 1_000
Start = Callable[..., None]  # name, function, its arguments after the connection to the parent


class Sink(Protocol):
    """Goes to every process of a run, so it can be pickled; the parent has one too."""

    @property
    def format(self) -> str:
        """Format of the shards, as their stats name it."""

    @property
    def hashed(self) -> bool:
        """Whether what is kept of a picture is what its SHA-256 is of."""

    @property
    def frame(self) -> Frame:
        """What is spooled before and after what is kept of a picture."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What shards and journals depend on besides the chunk and the settings of ingest."""

    def shares(self, count: int, start: Start) -> Iterator["Sink"]:
        """A sink for each of `count` processes, to be sent there before the next is asked for.

        Whatever they need besides is started with `start`, a process of the run like the others.
        """

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Entered in its process before any row is fetched."""

    async def room(self) -> None:
        """Wait until one more picture may be kept; the picture's slot is held meanwhile."""

    async def keep(self, image: Image) -> Image | Failure:
        """What is spooled for a picture that `room` was made for; its slot is free by now."""

    def write(
        self,
        directory: Path,
        chunk: str,
        rows: Iterable[Row | Outcome],
        journal: Journal,
        provenance: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write a chunk's shard, its rows being in the journal; return its stats, written last.

        What is no row comes as the outcome that it is.
        """

    def read(self, directory: Path, chunk: str) -> Iterator[Outcome]:
        """What was kept for a shard, in row order."""


@dataclass(frozen=True)
class ImageSink:
    """Image shards."""

    format: str = IMAGES
    hashed: bool = True
    frame: Frame = tar_envelope
    identity: Mapping[str, Any] = field(default_factory=dict)

    def shares(self, count: int, start: Start) -> Iterator[Sink]:
        """The same for all: nothing is shared."""
        return repeat(self, count)

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Nothing to open."""
        return nullcontext()

    async def room(self) -> None:
        """Always: pictures go to disk at once."""

    async def keep(self, image: Image) -> Image:
        """The picture itself."""
        return image

    def write(
        self,
        directory: Path,
        chunk: str,
        rows: Iterable[Row | Outcome],
        journal: Journal,
        provenance: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write an image shard."""
        lines = (
            (outcome_row(row), ()) if isinstance(row, Outcome) else journal.line(row)
            for row in rows
        )
        return write_image_lines(directory, chunk, lines, provenance)

    def read(self, directory: Path, chunk: str) -> Iterator[Outcome]:
        """Read an image shard back."""
        pictures = (image.data for image in read_images(directory / f"{chunk}.tar"))
        return read_kept(directory / f"{chunk}.parquet", pictures)


def read_kept(path: Path, kept: Iterator[bytes]) -> Iterator[Outcome]:
    """How the rows in a table of outcomes ended, with what was kept of each picture, in order."""
    for batch in read_outcomes(path).to_batches(ROWS_AT_ONCE):
        for line in batch.to_pylist():
            index = int(line["key"].rpartition("-")[2])
            row = Row(index, line["key"], line["caption"], line["url"])
            result: Image | Failure
            if line["reason"] is None:
                columns = {name: line[name] for name in IMAGE_COLUMNS}
                result = Image(data=next(kept), **columns)
            else:
                result = Failure(Reason(line["reason"]))
            answer = Answer(line["http_status"], line["attempts"], line["bytes"], line["final_url"])
            yield Outcome(row, answer, result)


IMAGE_SHARDS = ImageSink()
