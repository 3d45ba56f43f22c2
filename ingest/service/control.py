"""Jobs over HTTP: listed, shown, paused, resumed, cancelled, retried, removed."""

from functools import partial
from typing import Any

from aiohttp import web

from capstan.http.errors import RequestError
from capstan.ingest.service.bodies import read_object
from capstan.ingest.service.jobs import Job, State
from capstan.ingest.service.json_views import HISTORY, job_view, statistics_view
from capstan.ingest.service.service import IngestService
from capstan.ingest.service.validation import check, default, document, read_query, shown

MAX_RETRY = 1 << 16  # bytes
REASON: dict[str, Any] = document()["components"]["schemas"]["Reason"]


def routes(service: IngestService) -> list[web.RouteDef]:
    """The routes."""
    job = "/api/jobs/{id}"
    return [
        web.get("/api/jobs", partial(list_jobs, service)),
        web.get(job, partial(show, service)),
        web.delete(job, partial(remove, service)),
        web.post(f"{job}/pause", partial(pause, service)),
        web.post(f"{job}/resume", partial(resume, service)),
        web.post(f"{job}/cancel", partial(cancel, service)),
        web.post(f"{job}/retry", partial(retry, service)),
        web.get("/api/statistics", partial(statistics, service)),
    ]


async def list_jobs(service: IngestService, request: web.Request) -> web.Response:
    """A page of jobs, newest first."""
    query = read_query(request, "listJobs")
    state = State(query["state"]) if "state" in query else None
    limit = query.get("limit", default("listJobs", "limit"))
    jobs, more = service.jobs(state, limit, query.get("after"))
    return web.json_response({"jobs": [job_view(job) for job in jobs], "next": more})


async def show(service: IngestService, request: web.Request) -> web.Response:
    """A job."""
    read_query(request, "showJob")
    return _answer(service.job(request.match_info["id"]))


async def remove(service: IngestService, request: web.Request) -> web.Response:
    """Remove an ended job."""
    read_query(request, "deleteJob")
    await service.remove(request.match_info["id"])
    return web.Response(status=204)


async def pause(service: IngestService, request: web.Request) -> web.Response:
    """Pause a job."""
    read_query(request, "pauseJob")
    return _answer(await service.pause(request.match_info["id"]))


async def resume(service: IngestService, request: web.Request) -> web.Response:
    """Resume a job."""
    read_query(request, "resumeJob")
    return _answer(await service.resume(request.match_info["id"]))


async def cancel(service: IngestService, request: web.Request) -> web.Response:
    """Cancel a job."""
    read_query(request, "cancelJob")
    return _answer(await service.cancel(request.match_info["id"]))


async def retry(service: IngestService, request: web.Request) -> web.Response:
    """Try failed rows of a job again: those that failed for reasons in the body, if it has one."""
    read_query(request, "retryJob")
    reasons = None
    if request.can_read_body:
        content = await read_object(request, MAX_RETRY, frozenset({"reasons"}))
        if "reasons" in content:
            reasons = _reasons(content["reasons"])
    return _answer(await service.retry(request.match_info["id"], reasons))


async def statistics(service: IngestService, request: web.Request) -> web.Response:
    """What the service did of late."""
    read_query(request, "getStatistics")
    return web.json_response(statistics_view(service.statistics(HISTORY)))


def _reasons(names: Any) -> frozenset[str]:
    if not isinstance(names, list) or not names:
        raise RequestError(400, f"reasons {shown(names)}: give a list of one or more")
    return frozenset(check(REASON, name, "reasons") for name in names)


def _answer(job: Job) -> web.Response:
    return web.json_response(job_view(job))
