"""What hosts' robots.txt allow, as RFC 9309 has it; parsed by Protego.

No file (4xx) allows all; a host that cannot say (5xx, 429, no answer) allows nothing for now, and
the rows that ask meet the same reason. What a host said holds for a day.
"""

import asyncio
import time
from dataclasses import dataclass, replace

from protego import Protego
from yarl import URL

from capstan.ingest.config import HttpOptions
from capstan.ingest.http.fetch import AGENT, follow
from capstan.ingest.http.pool import Connections
from capstan.records import Reason

HOLDS = 86_400.0  # seconds
HOLDS_TROUBLE = 10.0  # seconds until a host that could not say is asked again
MAX_BYTES = 500 << 10  # a longer file is not read and allows nothing
MAX_REDIRECTS = 5
REMEMBERED = 10_000  # hosts; bounds memory

Rules = Protego | Reason  # the reason why there are none


@dataclass(slots=True)
class _Known:
    rules: asyncio.Task[Rules]
    since: float

    def holds(self) -> bool:
        in_trouble = self.rules.done() and isinstance(self.rules.result(), Reason)
        return time.monotonic() - self.since < (HOLDS_TROUBLE if in_trouble else HOLDS)


class Robots:
    """The rules of the hosts asked so far; each is asked once, whoever waits for it."""

    def __init__(self, connections: Connections, web: HttpOptions) -> None:
        self._connections = connections
        self._web = replace(
            web,
            max_bytes=MAX_BYTES,
            max_redirects=MAX_REDIRECTS,
            ignore_opt_out=True,
            content_usage=False,
        )
        self._known: dict[URL, _Known] = {}

    async def refusal(self, url: str) -> Reason | None:
        """Why an http(s) URL may not be asked for, if so."""
        rules = await asyncio.shield(self._rules(URL(url).origin()))
        if isinstance(rules, Reason):
            return rules
        return None if rules.can_fetch(url, AGENT) else Reason.ROBOTS

    def _rules(self, origin: URL) -> asyncio.Task[Rules]:
        known = self._known.get(origin)
        if known is None or not known.holds():
            asking = asyncio.create_task(self._ask(origin / "robots.txt"))
            known = self._known[origin] = _Known(asking, time.monotonic())
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return known.rules

    async def _ask(self, url: URL) -> Rules:
        fetched = await follow(self._connections, str(url), self._web)
        body, status = fetched.body, fetched.status or 0
        if isinstance(body, bytes):
            return Protego.parse(body.decode(errors="replace"))
        if body.reason is Reason.EMPTY_BODY or (400 <= status < 500 and status != 429):
            return Protego.parse("")
        return body.reason
