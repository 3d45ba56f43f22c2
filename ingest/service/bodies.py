"""Bodies of requests: of any size piece by piece, or JSON; none may take for ever to arrive."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from capstan.http.errors import RequestError

JSON = "application/json"
TSV = "text/tab-separated-values"
PATIENCE = 30.0  # seconds of waiting; what arrives earns more, up to this
SLOWEST = 1_000  # bytes a second


async def arriving(request: web.Request) -> AsyncIterator[bytes]:
    """The pieces of a body; raises RefusedError, 408, for one slower than `SLOWEST`.

    Only waiting counts: while the consumer is busy with a piece, nothing more is read.
    """
    clock, left = asyncio.get_running_loop().time, PATIENCE
    while True:
        begin = clock()
        try:
            async with asyncio.timeout(left):
                piece = await request.content.readany()
        except TimeoutError:
            raise RequestError(408, "the body does not arrive; send it faster") from None
        except web.RequestPayloadError as error:
            raise RequestError(400, f"the body is not encoded as it says ({error})") from None
        if not piece:
            return
        yield piece
        left = min(PATIENCE, left - (clock() - begin) + len(piece) / SLOWEST)


def check_type(request: web.Request, *types: str) -> None:
    """Raise RefusedError, 415, for a body of another type, or of another encoding than UTF-8."""
    if request.content_type not in types:
        raise RequestError(
            415, f"Content-Type {request.content_type}: give {' or '.join(sorted(types))}"
        )
    if (charset := request.charset) and charset.lower() not in ("utf-8", "us-ascii"):
        raise RequestError(415, f"charset {charset}: send UTF-8")


async def read_json(request: web.Request, limit: int) -> Any:
    """A body that is JSON of so many bytes at most; raises RefusedError."""
    check_type(request, JSON)
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for piece in arriving(request):
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    try:
        return await asyncio.to_thread(json.loads, body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"not JSON ({error})") from None


async def read_object(request: web.Request, limit: int, names: frozenset[str]) -> dict[str, Any]:
    """A body that is a JSON object with no other names than these; raises RefusedError."""
    content = await read_json(request, limit)
    if not isinstance(content, dict):
        raise RequestError(400, "not a JSON object; send one")
    check_names(content, names, "")
    return content


def check_names(content: dict[str, Any], names: frozenset[str], place: str) -> None:
    """Raise RefusedError, 400, for a name that an object may not have."""
    for name in content.keys() - names:
        raise RequestError(
            400, f"{place}no {name[:80]!r} here; choose from {', '.join(sorted(names))}"
        )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"JSON of more than {limit:,} bytes; send less at once")
