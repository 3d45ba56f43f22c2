"""Feature vectors read at random from memory-mapped arrays, be they in memory or on disk."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from mmap import MADV_RANDOM, MADV_WILLNEED, PAGESIZE, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capstan.feature_shards import open_features

logger = logging.getLogger(__name__)

WORTH_A_WORD = 1_000_000_000  # bytes whose hashes take a while


def open_arrays(
    paths: Sequence[Path], hashes: Sequence[str | None]
) -> tuple[NDArray[np.float16], ...]:
    """Memory-map arrays (each N x D) after checking the hashes that are given."""
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if any(hashes) and size > WORTH_A_WORD:
        logger.info("checking the hashes of %.1f GB of features", size / 1e9)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(open_features, paths, hashes))


class RowReader:
    """Reads rows of many arrays at random, as fast as the disk can where memory lacks them.

    The system is told to fetch no more than was asked for, and all rows of a batch before the first
    is touched: it then fetches many at a time. Left alone it reads ahead of each row, one by one.
    """

    def __init__(self, arrays: Sequence[NDArray[np.float16]]) -> None:
        self._arrays = [np.asarray(array) for array in arrays]  # np.memmap is slow to index
        self._maps: list[Any] = [array.base for array in arrays]
        self._columns = max(array.shape[1] for array in arrays)
        for mapped in self._maps:
            if isinstance(mapped, mmap):
                mapped.madvise(MADV_RANDOM)

    def __call__(self, arrays: NDArray[np.int32], rows: NDArray[np.int32]) -> NDArray[np.float16]:
        """Vectors (B x D): of each of `arrays` (B numbers) the row of the same place in `rows`."""
        wanted = list(zip(arrays.tolist(), rows.tolist(), strict=True))
        for array, row in wanted:
            self._announce(array, row)
        vectors = np.empty((len(wanted), self._columns), np.float16)
        for i, (array, row) in enumerate(wanted):
            vectors[i] = self._arrays[array][row]
        return vectors

    def _announce(self, array: int, row: int) -> None:
        mapped, vectors = self._maps[array], self._arrays[array]
        if isinstance(mapped, mmap):
            size = vectors.strides[0]
            start = len(mapped) - vectors.nbytes + row * size
            page = start - start % PAGESIZE
            mapped.madvise(MADV_WILLNEED, page, start + size - page)
