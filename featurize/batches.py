"""Full batches of decoded pictures, made ahead of the network in threads of their own.

A thread reads the tars and fills batches, others decode. Batches run on over the ends of shards,
so that only the last one of all is short, and each distinct picture is in one batch only.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from capstan.errors import DataError
from capstan.featurize.config import Config
from capstan.featurize.pictures import decode
from capstan.featurize.tasks import ShardTask
from capstan.records import Failure, StoredImage
from capstan.shards import read_images

Item = TypeVar("Item")
Pixels = NDArray[np.uint8]

READY = 2  # batches filled and not yet asked for
REMEMBERED = 20_000  # pictures whose repetition is noticed; their features are 4 KB each


@dataclass(eq=False, slots=True)
class Picture:
    """A distinct picture, and its features (2048,) or why it has none, once that is known."""

    sha256: str
    result: NDArray[np.float16] | Failure | None = None


@dataclass(eq=False)
class OpenShard:
    """A shard's pictures in its order, each with its key."""

    task: ShardTask
    pictures: list[tuple[str, Picture]] = field(default_factory=list)


@dataclass(eq=False)
class Batch:
    """Pixels (N, S, S, 3), whose they are, and the shards that need no later batch.

    Repeated and broken pictures take no place, but count in `tally`: how many rows, by reason.
    """

    pixels: Pixels
    pictures: list[Picture] = field(default_factory=list)
    ended: list[OpenShard] = field(default_factory=list)
    tally: Counter[str | None] = field(default_factory=Counter)

    def add(self, picture: Picture, pixels: Pixels) -> None:
        """Take a picture in."""
        self.pixels[len(self.pictures)] = pixels
        self.pictures.append(picture)

    @property
    def is_full(self) -> bool:
        """Whether there is no place left."""
        return len(self.pictures) == len(self.pixels)


Decoding = Future[Pixels | Failure]
# What follows each other in a tar: a picture to decode or decoded before, or the shard's end.
Entry = tuple[OpenShard, Picture | None, Decoding | None]


class Feed:
    """All batches of the tasks; afterwards, how long they were waited for and what was damaged."""

    def __init__(self, tasks: Iterable[ShardTask], config: Config) -> None:
        self._tasks, self._config = tasks, config
        self._recent: dict[str, Picture] = {}
        self.waited = 0.0  # seconds in which no batch was ready
        self.repeated = 0  # pictures that had been seen before
        self.damaged: list[DataError] = []  # shards left out

    def __iter__(self) -> Iterator[Batch]:
        batches = self._batches()
        with ThreadPoolExecutor(1, "feed") as thread:
            ready = deque(thread.submit(next, batches, None) for _ in range(READY))
            try:
                while batch := self._wait_for(ready.popleft()):
                    ready.append(thread.submit(next, batches, None))
                    yield batch
            finally:
                thread.shutdown(cancel_futures=True)

    def _wait_for(self, future: Future[Item]) -> Item:
        began = time.perf_counter()
        item = future.result()
        self.waited += time.perf_counter() - began
        return item

    def _batches(self) -> Iterator[Batch]:
        batch = self._new_batch()
        for shard, picture, decoding in self._decoded():
            if picture is None:
                batch.ended.append(shard)
                continue
            pixels = decoding.result() if decoding else None
            if isinstance(pixels, Failure):
                picture.result = pixels
            elif pixels is not None:
                batch.add(picture, pixels)
            result = picture.result
            batch.tally[result.reason if isinstance(result, Failure) else None] += 1
            if batch.is_full:
                yield batch
                batch = self._new_batch()
        yield batch

    def _new_batch(self) -> Batch:
        side = self._config.image_size
        return Batch(np.empty((self._config.batch_size, side, side, 3), np.uint8))

    def _decoded(self) -> Iterator[Entry]:
        """Entries in order, with up to a batch of them being decoded."""
        window: deque[Entry] = deque()
        with ThreadPoolExecutor(self._config.decoding_threads, "decode") as pool:
            for task in self._tasks:
                for entry in self._entries(OpenShard(task), pool):
                    window.append(entry)
                    if len(window) > self._config.batch_size:
                        yield window.popleft()
            yield from window

    def _entries(self, shard: OpenShard, pool: ThreadPoolExecutor) -> Iterator[Entry]:
        try:
            for image in read_images(shard.task.tar):
                picture, decoding = self._look_at(image, pool)
                shard.pictures.append((image.key, picture))
                yield shard, picture, decoding
        except DataError as error:
            self.damaged.append(error)
        else:
            yield shard, None, None

    def _look_at(
        self, image: StoredImage, pool: ThreadPoolExecutor
    ) -> tuple[Picture, Decoding | None]:
        if picture := self._recent.get(image.sha256):
            self.repeated += 1
            return picture, None
        self._recent[image.sha256] = picture = Picture(image.sha256)
        if len(self._recent) > REMEMBERED:
            del self._recent[next(iter(self._recent))]
        return picture, pool.submit(decode, image.data, self._config.image_size)
