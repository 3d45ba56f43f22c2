"""The web application: all routes, and what is done around each of them."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web

from capstan.errors import DataError
from capstan.http import page
from capstan.http.errors import RequestError, error_response, http_error_response
from capstan.http.limiter import ConcurrencyLimiter
from capstan.http.metrics import CLIENT_IS_GONE, endpoint
from capstan.ingest.service import control, events, jobs
from capstan.ingest.service.auth import COOKIE, Auth
from capstan.ingest.service.bodies import read_object
from capstan.ingest.service.metrics import ServiceMetrics
from capstan.ingest.service.results import Results
from capstan.ingest.service.service import IngestService
from capstan.ingest.service.submit import ROOM, submit
from capstan.ingest.service.validation import DOCUMENT, shown

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAGE, TITLE = Path(__file__).parent / "page", "Capstan · ingest"
SCRIPTS = tuple(  # one after another they are its script
    f"{part}.js"
    for part in (
        "state", "words", "pieces", "asking", "link", "overview", "charts", "jobs", "lists", "job",
        "submit", "main",
    )
)  # fmt: skip
MAX_SIGN_IN = 1 << 14  # bytes
DRAIN = 5.0  # seconds for requests in hand
RETRY_AFTER = 5  # seconds, while stopping
ENDLESS = ("events", ".parquet", "{name}")  # how routes end whose time tells of the client
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    hdrs.CACHE_CONTROL: "no-store",
}
STATUS: dict[type[jobs.ServiceError], int] = {
    jobs.NoSuchJobError: 404,
    jobs.WrongStateError: 409,
    jobs.BadSubmissionError: 400,
    jobs.ForbiddenPathError: 403,
    jobs.TooLargeError: 413,
    jobs.FullError: 507,
    jobs.UnavailableError: 503,
    jobs.BusyError: 429,
}


class App:
    """The service behind HTTP."""

    def __init__(self, service: IngestService) -> None:
        self.service, self.auth = service, Auth(service.settings.token)
        self.metrics = ServiceMetrics(service)
        self.streams, self.results = events.Streams(), Results(service)
        self.submissions = ConcurrencyLimiter(ROOM, 1, "submissions at once")
        self.changes = ConcurrencyLimiter(1 << 30)  # everything that is not just read
        self.metrics.watch("ingest_streams", "Open streams", lambda: self.streams.gate.held)
        self.metrics.watch("ingest_submissions", "Arriving", lambda: self.submissions.held)

    def application(self) -> web.Application:
        """All of it."""
        app = web.Application(middlewares=[self._answer])
        app.on_response_prepare.append(_add_headers)
        app.cleanup_ctx.append(self._closing)
        service, streams = self.service, self.streams
        app.add_routes(
            [
                web.get("/", page.handler(PAGE, TITLE, SCRIPTS)),
                web.get("/openapi.json", openapi),
                web.get("/healthz", health),
                web.get("/readyz", self.readiness),
                web.get("/metrics", self.show_metrics),
                web.post("/api/session", self.sign_in),
                web.delete("/api/session", sign_out),
                web.post("/api/jobs", partial(submit, service, self.submissions)),
                web.get("/api/jobs/{id}/events", partial(events.follow_job, service, streams)),
                web.get("/api/events", partial(events.follow_all, service, streams)),
                *control.routes(service),
                *self.results.routes(),
            ]
        )
        return app

    async def drain(self) -> None:
        """End the streams, take nothing new, and wait for what is in hand."""
        logger.info("stopping: %d requests in hand", self.changes.held)
        self.service.stop_soon()
        self.streams.end_all()
        await self.changes.drain(DRAIN)

    async def readiness(self, request: web.Request) -> web.Response:
        """Whether it takes jobs."""
        why = "stopping" if self.changes.draining else self.service.why_not_ready()
        if why:
            return web.json_response({"error": why}, status=503)
        return web.json_response({"status": "ready"})

    async def show_metrics(self, request: web.Request) -> web.Response:
        """All numbers, for Prometheus."""
        return self.metrics.answer()

    async def sign_in(self, request: web.Request) -> web.Response:
        """Trade the token for a cookie."""
        content = await read_object(request, MAX_SIGN_IN, frozenset({"token"}))
        token = content.get("token")
        if not isinstance(token, str):
            raise RequestError(400, f"token {shown(token)}: give text")
        if not self.auth.is_token(token):
            raise RequestError(401, "this is not the service's token")
        response = web.Response(status=204)
        self.auth.sign_in(request, response)
        return response

    async def _closing(self, app: web.Application) -> AsyncIterator[None]:
        yield
        self.results.close()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let the request in, answer errors as JSON, and count it however it ends."""
        start, status = time.monotonic(), 500
        try:
            response = await self._respond(request, handler)
            status = response.status
            return response
        except asyncio.CancelledError:
            status = CLIENT_IS_GONE
            raise
        finally:
            route = endpoint(request)
            seconds = None if route.endswith(ENDLESS) else time.monotonic() - start
            self.metrics.request(route, status, seconds)

    async def _respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self.auth.check(request)
            if request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
                return await handler(request)
            if self.changes.draining:
                raise RequestError(503, "the service is stopping", retry_after=RETRY_AFTER)
            with self.changes.enter():
                return await handler(request)
        except RequestError as error:
            return _refusal(error)
        except jobs.ServiceError as error:
            return _refusal(_refused(error))
        except web.HTTPException as error:
            return http_error_response(request, error)
        except (DataError, FileNotFoundError):
            logger.exception("%s %s failed", request.method, request.path)
            message = "a file of the job is missing or damaged; the service's log tells"
            return web.json_response({"error": message}, status=500)


def _refused(error: jobs.ServiceError) -> RequestError:
    wait = None
    if isinstance(error, jobs.BusyError):
        wait = max(1, math.ceil(error.retry_after))
    elif isinstance(error, jobs.UnavailableError):
        wait = RETRY_AFTER
    return RequestError(STATUS[type(error)], str(error), retry_after=wait)


def _refusal(error: RequestError) -> web.Response:
    response = error_response(error)
    if error.status == web.HTTPUnauthorized.status_code:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return response


async def health(request: web.Request) -> web.Response:
    """That it lives."""
    return web.json_response({"status": "ok"})


async def openapi(request: web.Request) -> web.Response:
    """The document that describes all this."""
    return web.Response(body=DOCUMENT, content_type="application/json")


async def sign_out(request: web.Request) -> web.Response:
    """End the cookie."""
    response = web.Response(status=204)
    response.del_cookie(COOKIE, httponly=True, samesite="Strict")
    return response


async def _add_headers(request: web.Request, response: Any) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
