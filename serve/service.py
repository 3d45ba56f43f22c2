"""From the bytes of a request's pictures to their captions; what all protocols share."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from pipeline.records import Failure
from predict.captions import Captions, Pixels
from serve.batcher import Batcher
from serve.config import Limits
from serve.gate import RETRY_AFTER, Gate
from serve.metrics import OK, Metrics
from serve.refusals import RefusedError, no_picture

T = TypeVar("T")
Places = Sequence[str]  # what each picture of a request is called there


class Model(Protocol):
    """What is needed of `predict.captions.Predictor`."""

    description: dict[str, Any]

    def pixels(self, data: bytes) -> Pixels | Failure:
        """A picture as the model sees it, or why not; called in several threads."""

    def captions(self, pixels: Sequence[Pixels]) -> Sequence[Captions]:
        """The captions of each picture; called in one thread."""


class Service:
    """A model behind a gate, fed in batches. Pictures are decoded in threads of their own."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self.description, self.limits = model.description, limits
        self.metrics, self.gate = Metrics(), Gate(limits.queue)
        self._pixels = model.pixels
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")
        self._batcher = Batcher(
            model.captions, limits.max_batch, limits.max_wait, self.metrics.batch
        )
        self.metrics.watch("queue_pictures", "Waiting for a batch", lambda: self._batcher.waiting)
        self.metrics.watch("held_pictures", "Arrived, not answered", lambda: self.gate.held)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute batches within the block."""
        try:
            async with self._batcher.running():
                yield
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def caption(self, pictures: Sequence[bytes], places: Places) -> list[Captions]:
        """The captions of each picture of a request, which has one place at the gate already.

        Raises RefusedError for too many pictures, for the first that is none, and where it takes
        too long.
        """
        if len(pictures) > self.limits.max_pictures:
            raise RefusedError(
                413, f"{len(pictures)} pictures; send at most {self.limits.max_pictures} at once"
            )
        with self.gate.enter(max(0, len(pictures) - 1)):
            try:
                async with asyncio.timeout(self.limits.timeout):
                    return await self._caption(pictures, places)
            except TimeoutError:
                raise RefusedError(
                    503,
                    f"no answer within {self.limits.timeout:g} s; try again later",
                    retry_after=RETRY_AFTER,
                ) from None

    async def _caption(self, pictures: Sequence[bytes], places: Places) -> list[Captions]:
        decoded = await asyncio.gather(
            *(self.in_thread(self._pixels, picture) for picture in pictures)
        )
        for each in decoded:
            self.metrics.picture(each.reason if isinstance(each, Failure) else OK)
        whole = []
        for place, each in zip(places, decoded, strict=True):
            if isinstance(each, Failure):
                raise no_picture(place, each.reason)
            whole.append(each)
        return await asyncio.gather(*map(self._batcher.submit, whole))
