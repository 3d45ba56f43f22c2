"""Jobs and statistics as JSON, as openapi.json has them."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from capstan.ingest.service.jobs import Job, Statistics

LINKS = ("events", "shards", "outcomes", "pictures")
HISTORY = 600  # seconds of statistics


def job_view(job: Job) -> dict[str, Any]:
    """A job."""
    place = f"/api/jobs/{job.id}"
    times = {name: moment(getattr(job, name)) for name in ("created", "started", "finished")}
    links = {"self": place} | {name: f"{place}/{name}" for name in LINKS}
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "why": job.why,
        **times,
        "options": dict(job.options),
        "rows": job.rows,
        "done": job.done,
        "images": job.images,
        "failures": {reason: count for reason, count in job.failures.items() if count},
        "bytes": job.bytes,
        "chunks": job.chunks,
        "shards": job.shards,
        "delivered": job.delivered,
        "rate": round(job.rate, 3),
        "eta": None if job.eta is None else round(job.eta, 1),
        "links": links,
    }


def statistics_view(statistics: Statistics) -> dict[str, Any]:
    """What the service did of late."""
    return {
        "since": moment(statistics.since),
        "seconds": [asdict(second) for second in statistics.seconds],
        "reasons": {reason: count for reason, count in statistics.reasons.items() if count},
        "hosts": [asdict(host) for host in statistics.hosts],
        "in_flight": statistics.in_flight,
        "queued_rows": statistics.queued_rows,
        "disk_free": statistics.disk_free,
        "processes": statistics.processes,
    }


def moment(seconds: float | None) -> str | None:
    """RFC 3339 of seconds since 1970."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
