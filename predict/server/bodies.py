"""What comes in a request's body: JSON, base64, and pictures as they are or in a form."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from capstan.http.errors import RequestError
from capstan.predict.server.service import CaptionService

# What aiohttp's reader raises for a form that is none: it has no error of its own for that.
FORM_ERRORS = (ValueError, RuntimeError, AssertionError, HttpProcessingError)


@asynccontextmanager
async def _arriving(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RequestError(408, f"the request did not arrive within {seconds:g} s") from None
    except web.RequestPayloadError as error:
        raise RequestError(400, f"the body is not encoded as it says ({error})") from None


async def read_json(request: web.Request, service: CaptionService) -> dict[str, Any]:
    """A body that is a JSON object, whatever its content type; raises RefusedError."""
    async with _arriving(service.limits.timeout):
        body = await request.read()
    try:
        content = await service.in_thread(json.loads, body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"not JSON ({error}); send a JSON object") from None
    if not isinstance(content, dict):
        raise RequestError(400, "not a JSON object; send one")
    return content


async def read_picture(request: web.Request, service: CaptionService) -> bytes:
    """A body that is a picture, or a form with one in its first file; raises RefusedError."""
    async with _arriving(service.limits.timeout):
        if not request.content_type.startswith("multipart/"):
            return await request.read()
        try:
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader) and part.filename is not None:
                    return bytes(await part.read())
        except FORM_ERRORS as error:
            raise RequestError(400, f"not a form ({error}); send multipart/form-data") from None
    raise RequestError(400, "the form holds no file; send a picture in one")


def decode_base64(value: Any, place: str) -> bytes:
    """The bytes of a base64 string, white space let alone; raises RefusedError naming the place."""
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (AttributeError, ValueError):
        raise RequestError(400, f"{place}: not a base64 string; send the picture so") from None
