"""A stand-in for the ingestion service: its API as the page sees it, moved on by a test's hand.

What takes a real service minutes or a full disk is one call here: `service.tell(job, done=...)`.
"""

import asyncio
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from PIL import Image

from capstan.http import page
from capstan.ingest.service.app import PAGE, SCRIPTS, TITLE

Job = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ENDED = ("done", "failed", "cancelled")
ALLOWED = {
    "pause": ("queued", "running"),
    "resume": ("paused",),
    "cancel": ("queued", "running", "paused"),
    "retry": ENDED,
}
LINKS = ("events", "shards", "outcomes", "pictures")
BECOMES = {"pause": "paused", "resume": "running", "cancel": "cancelled", "retry": "queued"}


@dataclass
class Service:
    """Jobs, what they brought, and who listens."""

    token: str | None = None
    started: float = 1_790_000_000.0  # seconds since 1970
    jobs: dict[str, Job] = field(default_factory=dict)
    outcomes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    shards: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pictures: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    seconds: list[dict[str, float]] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    refusals: dict[str, web.Response] = field(default_factory=dict)  # by path, once each
    asked: Counter[str] = field(default_factory=Counter)  # by method and path
    bodies: dict[str, bytes] = field(default_factory=dict)  # what was submitted, by job
    queries: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  # Idempotency-Key -> job
    retries: list[Any] = field(default_factory=list)  # bodies of them
    listeners: set[asyncio.Queue[str | None]] = field(default_factory=set)

    def add(self, name: str = "cc.tsv", rows: int = 100, **more: Any) -> Job:
        """A new job, queued, and told to all."""
        job_id = f"j{len(self.jobs) + 1:05d}"
        now = datetime.fromtimestamp(self.started + len(self.jobs), UTC).isoformat()
        links = {name: f"/api/jobs/{job_id}/{name}" for name in LINKS} | {"self": "/"}
        job = {
            "id": job_id, "name": name, "state": "queued", "why": None, "created": now,
            "started": None, "finished": None, "options": {}, "rows": rows, "done": 0,
            "images": 0, "failures": {}, "bytes": 0, "chunks": -(-rows // 10), "shards": 0,
            "delivered": None, "rate": 0, "eta": None, "links": links,
        } | more  # fmt: skip
        self.jobs[job_id] = job
        self.tell(job)
        return job

    def tell(self, job: Job, **changes: Any) -> None:
        """Change a job and say so."""
        job |= changes
        self.send("job", job)

    def remove(self, job: Job) -> None:
        """Somebody else removes it."""
        del self.jobs[job["id"]]
        self.send("removed", {"id": job["id"]})

    def fail(self, job: Job, reason: str, count: int, **more: Any) -> None:
        """So many rows of it failed."""
        have = self.outcomes.setdefault(job["id"], [])
        for number in range(len(have), len(have) + count):
            have.append(
                {
                    "key": f"cc_tsv-0-{number:06d}",
                    "url": f"http://a.test/{number}.jpg",
                    "caption": f"caption {number}",
                    "status": "failed",
                    "reason": reason,
                    "http_status": 404,
                    "attempts": 1,
                    "bytes": 0,
                    "width": None,
                    "height": None,
                    "final_url": None,
                }
                | more
            )
        failures = Counter[str](job["failures"])
        failures[reason] += count
        self.tell(job, failures=dict(failures), done=job["done"] + count)

    def finish(self, job: Job, pictures: dict[str, tuple[str, bytes]]) -> None:
        """All its other rows are pictures, and it is done; key -> (caption, JPEG)."""
        self.pictures[job["id"]] = pictures
        chunk = f"{job['name']}/0000000000000000"
        files = [
            {"name": f"{chunk}{end}", "bytes": 12_345, "sha256": "0" * 64, "url": f"/files{end}"}
            for end in (".tar", ".parquet", "_stats.json")
        ]
        images = job["rows"] - sum(job["failures"].values())
        shard = {"chunk": chunk, "rows": job["rows"], "images": images, "files": files}
        self.shards.setdefault(job["id"], []).append(shard | {"failures": job["failures"]})
        done = {"state": "done", "done": job["rows"], "images": images, "shards": job["chunks"]}
        self.tell(job, **done, finished=job["created"], eta=None)

    def second(self, rows: int, failures: int, size: int) -> None:
        """One more second of work."""
        self.seconds.append(
            {
                "t": int(self.started) + len(self.seconds),
                "rows": rows,
                "images": rows - failures,
                "failures": failures,
                "bytes": size,
            }
        )
        self.send("statistics", self.statistics(self.seconds[-1:]))

    def statistics(self, seconds: list[dict[str, float]]) -> dict[str, Any]:
        """What `/api/statistics` says."""
        reasons: Counter[str] = Counter()
        for job in self.jobs.values():
            reasons.update(job["failures"])
        return {
            "since": datetime.fromtimestamp(self.started, UTC).isoformat(), "seconds": seconds,
            "reasons": reasons, "hosts": self.hosts, "in_flight": 0, "queued_rows": 0,
            "disk_free": 212_000_000_000, "processes": 2,
        }  # fmt: skip

    def send(self, event: str, data: Any) -> None:
        """Tell all that listen."""
        for listener in self.listeners:
            listener.put_nowait(f"event: {event}\ndata: {json.dumps(data)}\n\n")

    def hang_up(self) -> None:
        """End all streams, as a service that stops does."""
        for listener in self.listeners:
            listener.put_nowait(None)

    # The API

    def app(self) -> web.Application:
        """All of it."""
        app = web.Application(middlewares=[self._auth], client_max_size=1 << 30)
        app.cleanup_ctx.append(self._ends)
        app.add_routes(
            [
                web.get("/", page.handler(PAGE, TITLE, SCRIPTS)),
                web.post("/api/session", self._sign_in),
                web.delete("/api/session", self._sign_out),
                web.get("/api/events", self._events),
                web.get("/api/statistics", self._statistics),
                web.get("/api/jobs", self._list),
                web.post("/api/jobs", self._submit),
                web.get("/api/jobs/{id}", self._show),
                web.delete("/api/jobs/{id}", self._delete),
                web.get("/api/jobs/{id}/{what:outcomes|shards}", self._paged),
                web.get("/api/jobs/{id}/pictures", self._pictures),
                web.get("/api/jobs/{id}/pictures/{key}", self._picture),
                web.post("/api/jobs/{id}/{action:pause|resume|cancel|retry}", self._act),
            ]
        )
        return app

    async def _ends(self, _: web.Application) -> AsyncIterator[None]:
        yield
        self.hang_up()

    @web.middleware
    async def _auth(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.asked[f"{request.method} {request.path}"] += 1
        is_open = request.path in ("/", "/api/session")
        if self.token and not is_open and request.cookies.get("session") != self.token:
            return _error(401, "give the token")
        if request.path in self.refusals:
            return self.refusals.pop(request.path)
        if (job_id := request.match_info.get("id")) and job_id not in self.jobs:
            return _error(404, f"no job {job_id}")
        return await handler(request)

    async def _sign_in(self, request: web.Request) -> web.Response:
        if (await request.json())["token"] != self.token:
            return _error(401, "not the token")
        response = web.Response(status=204)
        response.set_cookie("session", str(self.token), httponly=True, samesite="Strict")
        return response

    async def _sign_out(self, _: web.Request) -> web.Response:
        response = web.Response(status=204)
        response.del_cookie("session")
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        listener: asyncio.Queue[str | None] = asyncio.Queue()
        self.listeners.add(listener)
        try:
            while (text := await listener.get()) is not None:
                await response.write(text.encode())
        except ConnectionResetError:
            pass  # the page has gone
        finally:
            self.listeners.discard(listener)
        return response

    async def _statistics(self, _: web.Request) -> web.Response:
        return web.json_response(self.statistics(self.seconds[-600:]))

    async def _list(self, request: web.Request) -> web.Response:
        state, after = request.query.get("state"), request.query.get("after")
        wanted = [job for job in reversed(self.jobs.values()) if state in (None, job["state"])]
        return _page_of("jobs", wanted, "id", after, int(request.query["limit"]))

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.read()
        key = request.headers["Idempotency-Key"]
        if key in self.keys:
            return web.json_response(self.jobs[self.keys[key]])
        job = self.add(request.query["name"], body.count(b"\n") + (not body.endswith(b"\n")))
        self.keys[key], self.bodies[job["id"]] = job["id"], body
        self.queries[job["id"]] = dict(request.query)
        return web.json_response(job, status=201)

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self.jobs[request.match_info["id"]])

    async def _delete(self, request: web.Request) -> web.Response:
        del self.jobs[request.match_info["id"]]
        return web.Response(status=204)

    async def _act(self, request: web.Request) -> web.Response:
        job, action = self.jobs[request.match_info["id"]], request.match_info["action"]
        if job["state"] not in ALLOWED[action]:
            return _error(409, f"cannot {action} a job that is {job['state']}")
        if action == "retry":
            self.retries.append(json.loads(await request.text() or "null"))
        self.tell(job, state=BECOMES[action])
        return web.json_response(job)

    async def _paged(self, request: web.Request) -> web.Response:
        what, job_id = request.match_info["what"], request.match_info["id"]
        have = self.outcomes if what == "outcomes" else self.shards
        reason, after = request.query.get("reason"), request.query.get("after")
        wanted = [each for each in have.get(job_id, []) if reason in (None, each.get("reason"))]
        name = "key" if what == "outcomes" else "chunk"
        return _page_of(what, wanted, name, after, int(request.query["limit"]))

    async def _pictures(self, request: web.Request) -> web.Response:
        here = self.pictures.get(request.match_info["id"], {})
        pictures = [
            {"key": key, "caption": caption, "url": f"{request.path}/{key}"}
            for key, (caption, _) in here.items()
        ]
        return web.json_response({"pictures": pictures[: int(request.query["limit"])]})

    async def _picture(self, request: web.Request) -> web.Response:
        job_id, key = request.match_info["id"], request.match_info["key"]
        return web.Response(body=self.pictures[job_id][key][1], content_type="image/jpeg")


def _page_of(name: str, items: list[Any], key: str, after: str | None, limit: int) -> web.Response:
    first = 0 if after is None else [item[key] for item in items].index(after) + 1
    page = items[first : first + limit]
    more = page[-1][key] if first + limit < len(items) else None
    return web.json_response({name: page, "next": more})


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def jpeg(colour: str) -> bytes:
    """A small picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(file, "JPEG")
    return file.getvalue()
