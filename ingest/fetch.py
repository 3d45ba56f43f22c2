"""One request: the seam to the network, and the one place that names its failures."""

import errno
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version

import aiohttp
from aiohttp.http_exceptions import PayloadEncodingError
from yarl import URL

from ingest.addresses import ForbiddenAddressError, PublicResolver, open_public_socket
from ingest.config import Web
from ingest.retry import parse_retry_after
from pipeline.records import Failure, Reason

ACCEPT = "image/jpeg, image/png, image/webp, image/gif, image/*;q=0.5, */*;q=0.1"
READ_BUFFER = 1 << 18  # bytes of a body before its socket is left alone: most pictures whole
OPT_OUTS = {"noai", "noimageai"}
ERROR_REASONS: tuple[tuple[type[Exception], Reason], ...] = (  # the first that fits
    (TimeoutError, Reason.TIMEOUT),
    (aiohttp.TooManyRedirects, Reason.REDIRECTS),
    (aiohttp.RedirectClientError, Reason.REDIRECTS),
    (aiohttp.InvalidURL, Reason.BAD_URL),
    (aiohttp.NonHttpUrlClientError, Reason.BAD_URL),
    (aiohttp.ClientPayloadError, Reason.DISCONNECTED),
    (aiohttp.ClientConnectionError, Reason.DISCONNECTED),
    (aiohttp.ClientError, Reason.PROTOCOL),
    (OSError, Reason.DISCONNECTED),
    (ValueError, Reason.BAD_URL),  # hosts and credentials that no codec takes
)
AGENT = "capstan"  # the name that an X-Robots-Tag may address
VALUED_DIRECTIVES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
OUR_OWN_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
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


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where else a picture is said to be."""

    url: str


@dataclass(frozen=True, slots=True)
class Fetched:
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


def open_session(web: Web) -> aiohttp.ClientSession:
    """A session as `fetch` needs it: no cookies, an honest name, public addresses only."""
    connector = aiohttp.TCPConnector(
        limit=0,  # the engine has limits of its own
        ttl_dns_cache=300,
        resolver=None if web.allow_private else PublicResolver(),
        socket_factory=None if web.allow_private else open_public_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        read_bufsize=READ_BUFFER,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent(web), "Accept": ACCEPT, "Accept-Encoding": "identity"},
    )


def user_agent(web: Web) -> str:
    """What hosts read about us."""
    contact = f"; +{web.contact}" if web.contact else ""
    return web.user_agent or f"{AGENT}/{version(AGENT)} (fetches pictures for data sets{contact})"


async def fetch(session: aiohttp.ClientSession, url: str, web: Web, seconds: float) -> Fetched:
    """Ask for a URL once, for at most so many seconds; redirects are not followed.

    What the web does ends in a Reason. Raises OSError for faults of our own machine, such as too
    many open files.
    """
    status: int | None = None
    answered: str | None = None
    try:
        async with session.get(
            URL(url),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=web.connect_timeout),
        ) as response:
            status, answered = response.status, str(response.url)
            result = await _read(response, web)
            return Fetched(status, answered, result, response.headers.get("Retry-After"))
    except RuntimeError:
        # uvloop's, in place of OSError, when a cancelled connection's file number is used again
        if session.closed:
            raise
        reason = Reason.CONNECT
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        reason = reason_of(error)
    return Fetched(status, answered, Failure(reason))


async def follow(session: aiohttp.ClientSession, url: str, web: Web) -> Fetched:
    """As `fetch`, and on to where it is sent; each request has its own time-out."""
    for _ in range(web.max_redirects + 1):
        fetched = await fetch(session, url, web, web.timeout)
        if not isinstance(fetched.result, Redirect):
            break
        url = fetched.result.url
    return fetched


async def _read(response: aiohttp.ClientResponse, web: Web) -> bytes | Redirect | Failure:
    if response.status in REDIRECTS:
        return redirect(response.url, response.headers.get("Location", ""))
    reason = status_reason(response.status) or _opt_out(response, web)
    if reason is not None:
        return Failure(reason)
    if (response.content_length or 0) > web.max_bytes:
        return Failure(Reason.TOO_LARGE)
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > web.max_bytes:
            return Failure(Reason.TOO_LARGE)
    return b"".join(pieces) or Failure(Reason.EMPTY_BODY)


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


def _opt_out(response: aiohttp.ClientResponse, web: Web) -> Reason | None:
    if not web.ignore_opt_out and any(map(opts_out, response.headers.getall("X-Robots-Tag", []))):
        return Reason.OPTED_OUT
    if web.content_usage and any(
        map(forbids_training, response.headers.getall("Content-Usage", []))
    ):
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


def reason_of(error: Exception) -> Reason:
    """The Reason for what aiohttp, the resolver or the system raised; raises what is our fault."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connector_reason(error)
    if isinstance(error, OSError) and error.errno in OUR_OWN_FAULTS:
        raise error
    if isinstance(error, aiohttp.ClientPayloadError) and _is_garbled(error):
        return Reason.PROTOCOL
    return next(reason for kind, reason in ERROR_REASONS if isinstance(error, kind))


def _is_garbled(error: aiohttp.ClientPayloadError) -> bool:
    # aiohttp has one class for a chunked body that is cut off and for one that is no such body
    cause = error.__cause__
    return isinstance(cause, PayloadEncodingError) and "Not enough data" not in str(cause)


def _connector_reason(error: aiohttp.ClientConnectorError) -> Reason:
    if isinstance(error.os_error, ForbiddenAddressError):
        return Reason.FORBIDDEN_ADDRESS
    if error.os_error.errno in OUR_OWN_FAULTS:
        raise error.os_error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Reason.DNS
    return Reason.TLS if isinstance(error, aiohttp.ClientSSLError) else Reason.CONNECT
