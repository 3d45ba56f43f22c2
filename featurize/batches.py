"""Pictures of a shard as decoded batches: decoding runs in threads, ahead of the network."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from featurize.pictures import decode
from pipeline.records import Failure, StoredImage

Pixels = NDArray[np.uint8]
Decoded = tuple[StoredImage, Pixels | Failure]


def decoded_batches(
    images: Iterable[StoredImage], image_size: int, batch_size: int, threads: int
) -> Iterator[list[Decoded]]:
    """Yield lists of up to `batch_size` pictures with their pixels, or why they have none.

    At most two batches are decoded ahead, which bounds memory.
    """
    decoded = _decoded(images, image_size, 2 * batch_size, threads)
    while batch := list(islice(decoded, batch_size)):
        yield batch


def _decoded(
    images: Iterable[StoredImage], image_size: int, ahead: int, threads: int
) -> Iterator[Decoded]:
    waiting: deque[tuple[StoredImage, Future[Pixels | Failure]]] = deque()
    with ThreadPoolExecutor(threads, "decode") as pool:
        for image in images:
            waiting.append((image, pool.submit(decode, image.data, image_size)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for image, future in waiting:
            yield image, future.result()
