"""One attempt at one URL: the seam to the network, and the one place that names its failures."""

import errno
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version

import aiohttp
from aiohttp.http_exceptions import PayloadEncodingError
from yarl import URL

from ingest.addresses import ForbiddenAddressError, PublicResolver, open_public_socket
from ingest.config import Web
from pipeline.records import Answer, Failure, Reason

ACCEPT = "image/jpeg, image/png, image/webp, image/gif, image/*;q=0.5, */*;q=0.1"
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


@dataclass(frozen=True, slots=True)
class Fetched:
    """How one attempt ended: with a body, or why not."""

    answer: Answer  # attempts: 1
    result: bytes | Failure
    retry_after: str | None = None  # the header as the host wrote it


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
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent(web), "Accept": ACCEPT, "Accept-Encoding": "identity"},
    )


def user_agent(web: Web) -> str:
    """What hosts read about us."""
    contact = f"; +{web.contact}" if web.contact else ""
    return web.user_agent or f"{AGENT}/{version(AGENT)} (fetches pictures for data sets{contact})"


async def fetch(session: aiohttp.ClientSession, url: str, web: Web, seconds: float) -> Fetched:
    """Ask for a URL once, following redirects; `seconds` bound the whole attempt.

    What the web does ends in a Reason. Raises OSError for faults of our own machine, such as too
    many open files.
    """
    status: int | None = None
    final_url: str | None = None
    try:
        async with session.get(
            URL(url.strip()),
            max_redirects=web.max_redirects + 1,  # aiohttp counts the first answer too
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=web.connect_timeout),
        ) as response:
            status, final_url = response.status, str(response.url)
            result = await _read(response, web)
            size = len(result) if isinstance(result, bytes) else 0
            retry_after = response.headers.get("Retry-After")
            return Fetched(Answer(status, 1, size, final_url), result, retry_after)
    except RuntimeError:
        # uvloop's, in place of OSError, when a cancelled connection's file number is used again
        if session.closed:
            raise
        reason = Reason.CONNECT
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        reason = reason_of(error)
    return Fetched(Answer(status, 1, 0, final_url), Failure(reason))


async def _read(response: aiohttp.ClientResponse, web: Web) -> bytes | Failure:
    reason = status_reason(response.status)
    if reason is None and not web.ignore_opt_out:
        tags = response.headers.getall("X-Robots-Tag", [])
        reason = Reason.OPTED_OUT if any(map(opts_out, tags)) else None
    if reason is not None:
        return Failure(reason)
    if (response.content_length or 0) > web.max_bytes:
        return Failure(Reason.TOO_LARGE)
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > web.max_bytes:
            return Failure(Reason.TOO_LARGE)
    return bytes(body) or Failure(Reason.EMPTY_BODY)


def status_reason(status: int) -> Reason | None:
    """Why an HTTP status, after redirects, brings no picture; None when it may."""
    if 200 <= status < 300:
        return None
    if status in STATUS_REASONS:
        return STATUS_REASONS[status]
    if status in (301, 302, 303, 307, 308):
        return Reason.REDIRECTS  # without a Location
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
