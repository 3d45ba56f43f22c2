"""One request for a row: what its host answers, and the picture in that."""

import time

from capstan.ingest.config import IngestSettings
from capstan.ingest.fetch_task import FetchTask
from capstan.ingest.http.fetch import Fetched, Redirect, fetch
from capstan.ingest.resources import EngineResources
from capstan.ingest.scheduling.registry import HostFeedback
from capstan.ingest.scheduling.slots import Slot
from capstan.ingest.sink import Sink
from capstan.records import Answer, Failure, Image, Reason


async def fetch_row(
    place: EngineResources, settings: IngestSettings, sink: Sink, fetch_task: FetchTask, slot: Slot
) -> tuple[Image | Redirect | Failure, float | None]:
    """Return what a request brought, and the seconds that its host asks to be left alone.

    Its host is told how it went; `fetch_task` has the answer.
    """
    feedback = None
    try:
        fetched = await _fetch(place, settings, fetch_task)
        if fetched is None:
            return Failure(Reason.TIMEOUT), None
        slot.fetched()
        fetch_task.took = time.monotonic() - fetch_task.asked
        pause = fetched.pause(time.time())
        feedback = HostFeedback(fetch_task.asked, fetched.reason, pause)
    finally:
        place.hosts.leave(fetch_task.host, feedback)
    result = fetched.result
    size = len(result) if isinstance(result, bytes) else 0
    fetch_task.answer = Answer(fetched.status, fetch_task.answer.attempts, size, fetched.url)
    if isinstance(result, Redirect) and fetch_task.hops == settings.web.max_redirects:
        return Failure(Reason.REDIRECTS), None
    if not isinstance(result, bytes):
        return result, pause
    decoded = await place.decoders.prepare(result, settings.pictures)
    if isinstance(decoded, Image):
        await sink.room()
    return decoded, None


async def _fetch(
    place: EngineResources, settings: IngestSettings, fetch_task: FetchTask
) -> Fetched | None:
    """None if the row's time was over before its turn came."""
    web, left = settings.web, fetch_task.left(settings.patience.deadline)
    if left <= 0:
        return None
    if place.robots and (refusal := await place.robots.refusal(fetch_task.url)):
        return Fetched(None, None, Failure(refusal))
    return await fetch(place.connections, fetch_task.url, web, min(left, web.timeout))
