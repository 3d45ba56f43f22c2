"""The seam to what comes of the pictures: what is kept of each, and what a chunk's shard holds.

Here pictures are kept as they are and become image shards; `fused` keeps their features instead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

from pipeline.records import Failure, Image, Outcome
from pipeline.shards import IMAGES, write_image_shard

Start = Callable[..., None]  # name, function, its arguments after the connection to the parent


class Sink(Protocol):
    """Goes to every process of a run, so it can be pickled; the parent has one too."""

    @property
    def format(self) -> str:
        """Format of the shards, as their stats name it."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What shards and spools depend on besides the chunk and the settings of ingest."""

    def shares(self, count: int, start: Start) -> Iterator["Sink"]:
        """A sink for each of `count` processes, to be sent there before the next is asked for.

        Whatever they need besides is started with `start`, a process of the run like the others.
        """

    def opened(self, decoder: Executor) -> AbstractAsyncContextManager[None]:
        """Entered in its process before any row is fetched; `decoder` is for work on pictures."""

    async def room(self) -> None:
        """Wait until one more picture may be kept; the picture's slots are held meanwhile."""

    async def keep(self, image: Image) -> Image | Failure:
        """What is spooled for a picture that `room` was made for; its slots are free by now."""

    def write(
        self,
        directory: Path,
        chunk: str,
        outcomes: Iterable[Outcome],
        provenance: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write a chunk's shard of what was kept, in row order; return its stats, written last."""


@dataclass(frozen=True)
class ImageSink:
    """Image shards."""

    format: str = IMAGES
    identity: Mapping[str, Any] = field(default_factory=dict)

    def shares(self, count: int, start: Start) -> Iterator[Sink]:
        """The same for all: nothing is shared."""
        return repeat(self, count)

    def opened(self, decoder: Executor) -> AbstractAsyncContextManager[None]:
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
        outcomes: Iterable[Outcome],
        provenance: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write an image shard."""
        return write_image_shard(directory, chunk, outcomes, provenance)


IMAGE_SHARDS = ImageSink()
