"""One request: the seam to the network, and the one place that names its failures."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

from yarl import URL

from capstan import __version__
from capstan.ingest.config import HttpOptions
from capstan.ingest.http.connection import ExchangeError, HttpResponse
from capstan.ingest.http.pool import Connections, Timeouts, parse
from capstan.records import Failure, Reason

ACCEPT = "image/jpeg, image/png, image/webp, image/gif, image/*;q=0.5, */*;q=0.1"
OPT_OUTS = {"noai", "noimageai"}
AGENT = "capstan"  # the name that an X-Robots-Tag may address
VALUED_DIRECTIVES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
STATUS_REASONS: dict[int, Reason] = {
    HTTPStatus.UNAUTHORIZED: Reason.DENIED,
    HTTPStatus.PAYMENT_REQUIRED: Reason.DENIED,
    HTTPStatus.FORBIDDEN: Reason.DENIED,
    HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS: Reason.DENIED,
    HTTPStatus.NOT_FOUND: Reason.NOT_FOUND,
    HTTPStatus.GONE: Reason.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT: Reason.TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS: Reason.RATE_LIMITED,
}
REDIRECTS = {301, 302, 303, 307, 308}
SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where else a picture is said to be."""

    url: str


class Fetched(NamedTuple):
    """How one request ended: with a body, with another address, or why with neither."""

    status: int | None
    url: str | None  # that answered
    result: bytes | Redirect | Failure
    retry_after: str | None = None  # the header as the host wrote it

    @property
    def reason(self) -> Reason | None:
        """Why it brought nothing, if so."""
        return self.result.reason if isinstance(self.result, Failure) else None

    @property
    def body(self) -> bytes | Failure:
        """What it brought, to those who follow no redirect from here."""
        return Failure(Reason.REDIRECTS) if isinstance(self.result, Redirect) else self.result

    def pause(self, now: float) -> float | None:
        """Seconds that the host wants to be left alone, `now` being a time since the epoch."""
        if self.reason not in (Reason.RATE_LIMITED, Reason.SERVER_ERROR):
            return None
        return parse_retry_after(self.retry_after, now)


@asynccontextmanager
async def open_connections(web: HttpOptions) -> AsyncIterator[Connections]:
    """Connections as `fetch` needs them: an honest name, public addresses only."""
    headers = (
        f"User-Agent: {user_agent(web)}\r\nAccept: {ACCEPT}\r\nAccept-Encoding: identity\r\n\r\n"
    )
    connections = Connections(headers.encode(), public=not web.allow_private)
    try:
        yield connections
    finally:
        await connections.close()


def user_agent(web: HttpOptions) -> str:
    """What hosts read about us."""
    contact = f"; +{web.contact}" if web.contact else ""
    return web.user_agent or f"{AGENT}/{__version__} (fetches pictures for data sets{contact})"


async def fetch(connections: Connections, url: str, web: HttpOptions, seconds: float) -> Fetched:
    """Ask for a URL once, for at most so many seconds; redirects are not followed.

    What the web does ends in a Reason. Raises OSError for faults of our own machine, such as too
    many open files.
    """
    try:
        target = parse(url)
    except ValueError:  # hosts, ports and credentials that nobody can have
        return Fetched(None, None, Failure(Reason.BAD_URL))
    try:
        answer = await connections.get(
            target, web.max_bytes, Timeouts(seconds, web.connect_timeout)
        )
    except ExchangeError as error:
        answered = None if error.status is None else target.url
        return Fetched(error.status, answered, Failure(error.reason))
    except RuntimeError:
        # uvloop's, in place of OSError, when a cancelled connection's file number is used again
        if connections.closed:
            raise
        return Fetched(None, None, Failure(Reason.CONNECT))
    retry_after = answer.first(b"retry-after")
    return Fetched(answer.status, target.url, _judge(answer, target.url, web), retry_after)


async def follow(connections: Connections, url: str, web: HttpOptions) -> Fetched:
    """As `fetch`, and on to where it is sent; each request has its own time-out."""
    for _ in range(web.max_redirects + 1):
        fetched = await fetch(connections, url, web, web.timeout)
        if not isinstance(fetched.result, Redirect):
            break
        url = fetched.result.url
    return fetched


def _judge(answer: HttpResponse, url: str, web: HttpOptions) -> bytes | Redirect | Failure:
    if answer.status in REDIRECTS:
        return redirect(URL(url), answer.first(b"location") or "")
    reason = status_reason(answer.status) or _opt_out(answer, web)
    if reason is not None:
        return Failure(reason)
    return answer.body or Failure(Reason.EMPTY_BODY)


def redirect(base: URL, location: str) -> Redirect | Failure:
    """Where a `Location` leads from `base`; only http(s) is followed."""
    try:
        where = URL(location.strip())
        target = base.join(where)
    except ValueError:
        return Failure(Reason.REDIRECTS)
    nowhere = not location or (where.scheme and not where.host)
    if nowhere or target.scheme not in ("http", "https") or not target.host:
        return Failure(Reason.REDIRECTS)
    return Redirect(str(target))


def _opt_out(answer: HttpResponse, web: HttpOptions) -> Reason | None:
    if not web.ignore_opt_out and any(map(opts_out, answer.all(b"x-robots-tag"))):
        return Reason.OPTED_OUT
    if web.content_usage and any(map(forbids_training, answer.all(b"content-usage"))):
        return Reason.OPTED_OUT
    return None


def status_reason(status: int) -> Reason | None:
    """Why an HTTP status brings no picture; None when it may."""
    if 200 <= status < 300:
        return None
    if status in STATUS_REASONS:
        return STATUS_REASONS[status]
    if status in REDIRECTS:
        return Reason.REDIRECTS
    if 400 <= status < 500:
        return Reason.CLIENT_ERROR
    return Reason.SERVER_ERROR if 500 <= status < 600 else Reason.UNEXPECTED_STATUS


def opts_out(tag: str) -> bool:
    """Whether an X-Robots-Tag keeps its picture from machine learning.

    Directives may be addressed (`otherbot: noai`); those for others do not concern us.
    """
    for_us = True
    for part in tag.lower().split(","):
        name, colon, rest = (word.strip() for word in part.partition(":"))
        if colon and name not in VALUED_DIRECTIVES:
            for_us, name = name in (AGENT, "*"), rest
        if for_us and name in OPT_OUTS:
            return True
    return False


def forbids_training(preferences: str) -> bool:
    """Whether a Content-Usage header says `train-ai=n` (IETF AIPREF, a structured dictionary)."""
    members = (member.partition(";")[0] for member in preferences.lower().split(","))
    return any(member.replace(" ", "") == "train-ai=n" for member in members)


def parse_retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a Retry-After asks for, as a number or a date; None when it says neither."""
    text = (header or "").strip()
    if SECONDS.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None  # the standard library's parser lets several kinds out
