"""From the bytes of a request's pictures to their captions; what all protocols share."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from capstan.http.errors import RequestError
from capstan.http.limiter import RETRY_AFTER, ConcurrencyLimiter
from capstan.predict.captions import Captions, Pixels, View
from capstan.predict.server.batcher import Batcher
from capstan.predict.server.config import ServerLimits
from capstan.predict.server.explain import Explanation, explanation, views
from capstan.predict.server.metrics import OK, ServerMetrics
from capstan.predict.server.refusals import no_picture
from capstan.records import Failure

if TYPE_CHECKING:
    from capstan.train.captioner import Caption

T = TypeVar("T")
PIECE = 8  # between two batches so small a part of one is computed for explanations
EXPLAIN_RETRY_AFTER = 3  # seconds
Places = Sequence[str]  # what each picture of a request is called there


class Model(Protocol):
    """What is needed of `capstan.predict.captions.Predictor`."""

    description: dict[str, Any]

    def pixels(self, data: bytes) -> Pixels | Failure:
        """A picture as the model sees it, or why not; called in several threads."""

    def look(self, data: bytes) -> View | Failure:
        """The same, with what part of the picture that is."""

    def captions(self, pixels: Sequence[Pixels]) -> Sequence[Captions]:
        """The captions of each picture; called in one thread."""

    def word_log_probabilities(self, pixels: Sequence[Pixels], caption: str) -> NDArray[np.float32]:
        """How probable one caption's words are for each picture; called in the same thread."""


class CaptionService:
    """A model behind a gate, fed in batches. Pictures are decoded in threads of their own."""

    def __init__(self, model: Model, limits: ServerLimits) -> None:
        self.description, self.limits = model.description, limits
        self.metrics, self.gate = ServerMetrics(), ConcurrencyLimiter(limits.queue)
        self.explain_gate = ConcurrencyLimiter(limits.explanations, EXPLAIN_RETRY_AFTER)
        self._model, self._explaining = model, asyncio.Lock()
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")
        self._batcher = Batcher(
            model.captions, limits.max_batch, limits.max_wait, self.metrics.batch
        )
        self.metrics.watch("queue_pictures", "Waiting for a batch", lambda: self._batcher.waiting)
        self.metrics.watch(
            "held_explanations", "Of those, to explain", lambda: self.explain_gate.held
        )
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
            raise RequestError(
                413, f"{len(pictures)} pictures; send at most {self.limits.max_pictures} at once"
            )
        with self.gate.enter(max(0, len(pictures) - 1)):
            async with self._in_time():
                return await self._caption(pictures, places)

    async def explain(self, picture: bytes, place: str) -> Explanation:
        """What the words of a picture's best caption leaned on; the same of places and refusals.

        They take a small share: one at a time is computed, a few pictures of it between batches.
        """
        async with self._in_time():
            (view,) = await self._decoded(self._model.look, [picture], [place])
            captions = await self._batcher.submit(view.pixels)
            if not captions:
                raise RequestError(422, f"{place}: the model says nothing of it; send another")
            async with self._explaining:
                return await self._explain(captions[0], view)

    async def _explain(self, caption: "Caption", view: View) -> Explanation:
        judge, some = self._model.word_log_probabilities, max(1, self.limits.max_batch // PIECE)
        pictures: list[Pixels] = await self.in_thread(list, views(view.pixels))
        found = [
            await self._batcher.between(judge, pictures[start : start + some], caption.text)
            for start in range(0, len(pictures), some)
        ]
        return explanation(caption, view, np.concatenate(found))

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.limits.timeout):
                yield
        except TimeoutError:
            raise RequestError(
                503,
                f"no answer within {self.limits.timeout:g} s; try again later",
                retry_after=RETRY_AFTER,
            ) from None

    async def _caption(self, pictures: Sequence[bytes], places: Places) -> list[Captions]:
        pixels = await self._decoded(self._model.pixels, pictures, places)
        return await asyncio.gather(*map(self._batcher.submit, pixels))

    async def _decoded(
        self, decode: Callable[[bytes], T | Failure], pictures: Sequence[bytes], places: Places
    ) -> list[T]:
        decoded = await asyncio.gather(*(self.in_thread(decode, picture) for picture in pictures))
        for each in decoded:
            self.metrics.picture(each.reason if isinstance(each, Failure) else OK)
        whole = []
        for place, each in zip(places, decoded, strict=True):
            if isinstance(each, Failure):
                raise no_picture(place, each.reason)
            whole.append(each)
        return whole
