"""One request for a row: what its host answers, and the picture in that."""

import time

from capstan.ingest.config import Settings
from capstan.ingest.http.fetch import Fetched, Redirect, fetch
from capstan.ingest.scheduling.registry import Verdict
from capstan.ingest.scheduling.slots import Slot
from capstan.ingest.sink import Sink
from capstan.ingest.visit import Visit
from capstan.ingest.workplace import Workplace
from capstan.records import Answer, Failure, Image, Reason


async def ask(
    place: Workplace, settings: Settings, sink: Sink, visit: Visit, slot: Slot
) -> tuple[Image | Redirect | Failure, float | None]:
    """What a request brought, and the seconds that the host wants to be left alone.

    Its host learns how it went, and the visit has the answer.
    """
    verdict = None
    try:
        fetched = await _fetch(place, settings, visit)
        if fetched is None:
            return Failure(Reason.TIMEOUT), None
        slot.fetched()
        visit.took = time.monotonic() - visit.asked
        pause = fetched.pause(time.time())
        verdict = Verdict(visit.asked, fetched.reason, pause)
    finally:
        place.hosts.leave(visit.host, verdict)
    result = fetched.result
    size = len(result) if isinstance(result, bytes) else 0
    visit.answer = Answer(fetched.status, visit.answer.attempts, size, fetched.url)
    if isinstance(result, Redirect) and visit.hops == settings.web.max_redirects:
        return Failure(Reason.REDIRECTS), None
    if not isinstance(result, bytes):
        return result, pause
    decoded = await place.decoders.prepare(result, settings.pictures)
    if isinstance(decoded, Image):
        await sink.room()
    return decoded, None


async def _fetch(place: Workplace, settings: Settings, visit: Visit) -> Fetched | None:
    """None if the row's time was over before its turn came."""
    web, left = settings.web, visit.left(settings.patience.deadline)
    if left <= 0:
        return None
    if place.robots and (refusal := await place.robots.refusal(visit.url)):
        return Fetched(None, None, Failure(refusal))
    return await fetch(place.connections, visit.url, web, min(left, web.timeout))
