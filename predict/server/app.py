"""The web application: all routes, and what is done around each of them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

from aiohttp import hdrs, web

from capstan.http import page
from capstan.http.errors import RequestError, error_response, http_error_response
from capstan.http.metrics import CLIENT_IS_GONE, endpoint
from capstan.predict.captions import said
from capstan.predict.server import explain as explanations
from capstan.predict.server import kserve, tensorflow_serving
from capstan.predict.server.batcher import ComputeError
from capstan.predict.server.bodies import read_picture
from capstan.predict.server.service import CaptionService

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HERE = Path(__file__).parent


def make_app(service: CaptionService) -> web.Application:
    """The application that serves one model."""

    async def running(app: web.Application) -> AsyncIterator[None]:
        async with service.running():
            yield

    limits = service.limits
    told = {"max-bytes": limits.max_bytes, "can-explain": limits.explanations > 0}
    around = web.middleware(partial(_answer, service))
    app = web.Application(middlewares=[around], client_max_size=limits.max_bytes)
    app.cleanup_ctx.append(running)
    app.add_routes(
        [
            web.get("/healthz", kserve.live),
            web.get("/metrics", partial(metrics, service)),
            web.get("/", page.handler(HERE, "Capstan · captions", data=told)),
            web.post("/caption", partial(caption, service)),
            web.post("/explain", partial(explain, service)),
            *tensorflow_serving.routes(service),
            *kserve.routes(service),
        ]
    )
    return app


async def caption(service: CaptionService, request: web.Request) -> web.Response:
    """The captions of one picture, sent as it is or in a form."""
    picture = await read_picture(request, service)
    (captions,) = await service.caption([picture], ["the picture"])
    words = explanations.words_said(captions[0]) if captions else {}
    return web.json_response({**said(captions), **words, **service.description})


async def explain(service: CaptionService, request: web.Request) -> web.Response:
    """The best caption of one picture, and which part of it each word leaned on."""
    with service.explain_gate.enter():
        picture = await read_picture(request, service)
        found = await service.explain(picture, "the picture")
    return web.json_response({**explanations.said(found), **service.description})


async def metrics(service: CaptionService, request: web.Request) -> web.Response:
    """All numbers, for Prometheus."""
    return service.metrics.answer()


async def _answer(
    service: CaptionService, request: web.Request, handler: Handler
) -> web.StreamResponse:
    """Let the request in, answer errors as JSON, and count it however it ends."""
    start, status = time.monotonic(), 500
    try:
        response = await _respond(service, request, handler)
        status = response.status
        return response
    except asyncio.CancelledError:
        status = CLIENT_IS_GONE
        raise
    finally:
        service.metrics.request(endpoint(request), status, time.monotonic() - start)


async def _respond(
    service: CaptionService, request: web.Request, handler: Handler
) -> web.StreamResponse:
    try:
        if request.method != hdrs.METH_POST:
            return await handler(request)
        service.gate.check_open()
        with service.gate.enter():
            return await handler(request)
    except RequestError as error:
        return error_response(error)
    except web.HTTPRequestEntityTooLarge:
        return error_response(RequestError(413, f"send at most {service.limits.max_bytes:,} bytes"))
    except web.HTTPException as error:
        return http_error_response(request, error)
    except ComputeError:
        logger.exception("%s %s failed", request.method, request.path)
        return web.json_response({"error": "a fault of the server; its log tells"}, status=500)
