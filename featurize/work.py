"""Image shards through the network into feature shards: what one process does."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capstan.cli import import_tensorflow
from capstan.feature_shards import write_feature_shard
from capstan.featurize.batches import Batch, Feed, OpenShard
from capstan.featurize.config import DIMENSIONS, Config
from capstan.featurize.tasks import ShardTask
from capstan.records import Extractor, Failure, Feature

if TYPE_CHECKING:  # it imports TensorFlow, which takes seconds
    from capstan.featurize.extractor import ResNetExtractor

logger = logging.getLogger(__name__)

BEING_WRITTEN = 2  # shards; bounds memory where the disk is slower than the network

Tell = Callable[[Counter[str | None]], None]


@dataclass
class Totals:
    """What came of some shards."""

    pictures: int = 0  # in the network
    repeated: int = 0  # pictures that had been seen before
    seconds: float = 0.0
    waited: float = 0.0  # seconds in which the network had no input
    damaged: tuple[str, ...] = ()  # a line for each shard that was left out

    def add(self, other: "Totals") -> None:
        """Add what another process did beside this one."""
        self.pictures += other.pictures
        self.repeated += other.repeated
        self.seconds += other.seconds
        self.waited += other.waited
        self.damaged += other.damaged

    @property
    def waiting(self) -> float:
        """Share of the time in which the network had no input."""
        return self.waited / self.seconds if self.seconds else 0.0


def load_extractor(config: Config) -> "ResNetExtractor":
    """Load the network; takes seconds."""
    import_tensorflow()
    from capstan.featurize.extractor import ResNetExtractor

    extractor = ResNetExtractor(
        config.weights, config.image_size, config.batch_size, config.precision, config.runtime
    )
    logger.info("extractor: %r", extractor)
    return extractor


def make_shards(
    tasks: Iterable[ShardTask], extractor: "ResNetExtractor", config: Config, tell: Tell
) -> Totals:
    """Write the feature shards of the tasks; `tell` hears of rows done, by reason of failure."""
    began = time.perf_counter()
    feed, pictures = Feed(tasks, config), 0
    with ThreadPoolExecutor(1, "write") as writer:
        writing: deque[Future[None]] = deque()
        for batch in feed:
            _compute(batch, extractor)
            pictures += len(batch.pictures)
            tell(batch.tally)
            for shard in batch.ended:
                writing.append(writer.submit(_write, shard, extractor.identity, config))
            while len(writing) > BEING_WRITTEN:
                writing.popleft().result()
        for future in writing:
            future.result()
    damaged = tuple(str(error) for error in feed.damaged)
    return Totals(pictures, feed.repeated, time.perf_counter() - began, feed.waited, damaged)


def _compute(batch: Batch, extractor: "ResNetExtractor") -> None:
    vectors = extractor.extract(batch.pixels[: len(batch.pictures)])
    for picture, vector in zip(batch.pictures, vectors, strict=True):
        picture.result = vector


def _write(shard: OpenShard, identity: Extractor, config: Config) -> None:
    rows: list[Feature] = []
    vectors: list[NDArray[np.float16]] = []
    for key, picture in shard.pictures:
        if isinstance(picture.result, Failure):
            rows.append(Feature(key, picture.sha256, None, picture.result.reason))
        else:
            assert picture.result is not None
            rows.append(Feature(key, picture.sha256, len(vectors)))
            vectors.append(picture.result)
    array = np.stack(vectors) if vectors else np.empty((0, DIMENSIONS), np.float16)
    task = shard.task
    write_feature_shard(config.output, task.chunk, rows, array, identity, task.provenance)
