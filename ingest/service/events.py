"""Server-sent events: a job, or all of them and the statistics, for as long as somebody listens.

A listener who is slow is told less often, never late: what changed meanwhile is one set of jobs,
told as they then are. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import hdrs, web

from capstan.http.limiter import ConcurrencyLimiter
from capstan.ingest.service.change_feed import Subscription
from capstan.ingest.service.jobs import ENDED, Changes, NoSuchJobError
from capstan.ingest.service.json_views import job_view, statistics_view
from capstan.ingest.service.service import IngestService
from capstan.ingest.service.validation import read_query

RECONNECT = 1_000  # ms until a listener asks again
HEARTBEAT = 10.0  # seconds of silence until a line of comment
PACE = 0.2  # seconds between events of a job, at least
STALLED = 60.0  # seconds that a listener may take to read what it was sent
ROOM = 500  # streams at a time


class Streams:
    """The streams that are open: so many at most, and all can be ended at once."""

    def __init__(self, room: int = ROOM, things: str = "streams of events") -> None:
        self.gate = ConcurrencyLimiter(room, 5, things)
        self._open: set[asyncio.Timeout] = set()
        self._ended = False

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Be a stream within the block, which is left early when all are ended.

        Raises RefusedError, 429, where there are too many.
        """
        with self.gate.enter():
            scope = asyncio.timeout(0 if self._ended else None)
            try:
                async with scope:
                    self._open.add(scope)
                    yield
            except TimeoutError:
                if not scope.expired():
                    raise
            finally:
                self._open.discard(scope)

    def end_all(self) -> None:
        """End all streams, those that come later too."""
        self._ended = True
        for scope in self._open:
            scope.reschedule(asyncio.get_running_loop().time())


async def follow_job(
    service: IngestService, streams: Streams, request: web.Request
) -> web.StreamResponse:
    """`job` at once and on each change; `end` when it is ended."""
    id = request.match_info["id"]
    read_query(request, "followJob")
    service.job(id)
    stream = _Stream(request)
    async with streams.enter():
        with service.watch(id) as watch, suppress(NoSuchJobError):  # removed meanwhile: 404 next
            if await stream.begin():
                await _tell_job(service, id, watch, stream)
    return stream.response


async def _tell_job(
    service: IngestService, id: str, watch: Subscription, stream: "_Stream"
) -> None:
    while (job := service.job(id)).state not in ENDED:
        await stream.send("job", job_view(job))
        await _changes(watch, stream)
    await stream.send("job", job_view(job))
    await stream.send("end", job_view(job))


async def follow_all(
    service: IngestService, streams: Streams, request: web.Request
) -> web.StreamResponse:
    """`job` for each that changes, `removed` for each that goes, `statistics` each second."""
    read_query(request, "followAll")
    stream = _Stream(request)
    async with streams.enter():
        with service.watch() as watch:
            if await stream.begin():
                await _tell_all(service, watch, stream)
    return stream.response


async def _tell_all(service: IngestService, watch: Subscription, stream: "_Stream") -> None:
    changes = Changes(second=True)
    while True:
        if changes.second:
            await stream.send("statistics", statistics_view(service.statistics(1)))
        for id in sorted(changes.jobs):
            try:
                job = service.job(id)
            except NoSuchJobError:
                await stream.send("removed", {"id": id})
            else:
                await stream.send("job", job_view(job))
        changes = await _changes(watch, stream)


async def _changes(watch: Subscription, stream: "_Stream") -> Changes:
    """The next changes, not too soon after the last; meanwhile the connection is kept alive."""
    await asyncio.sleep(PACE)
    while True:
        changes = await watch.next_changes(HEARTBEAT)
        if changes.jobs or changes.second:
            return changes
        await stream.keep_alive()


class _Stream:
    """A response that goes on."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "text/event-stream",
                hdrs.CACHE_CONTROL: "no-store",
                "X-Accel-Buffering": "no",  # else nginx keeps events back
            }
        )
        last = request.headers.get("Last-Event-ID", "")
        self._id = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0

    async def begin(self) -> bool:
        """Send what comes first; False if that is all, to HEAD."""
        await self.response.prepare(self._request)
        if self._request.method == hdrs.METH_HEAD:
            return False
        await self._write(f"retry: {RECONNECT}\n\n")
        return True

    async def send(self, event: str, data: Any) -> None:
        """Send an event."""
        self._id += 1
        await self._write(f"event: {event}\nid: {self._id}\ndata: {json.dumps(data)}\n\n")

    async def keep_alive(self) -> None:
        """Send a line of comment."""
        await self._write(": alive\n\n")

    async def _write(self, text: str) -> None:
        try:
            async with asyncio.timeout(STALLED):
                await self.response.write(text.encode())
        except TimeoutError:
            if self._request.transport:
                self._request.transport.abort()
            raise ConnectionResetError("a listener that does not read") from None
