"""The dashboard and the metrics agree: all that it asks for is there, in so few series."""

import json
import re

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from capstan.testing.web import Web
from tests.ingest.service.running import done, lines, session, web
from tests.paths import ROOT

__all__ = ["session", "web"]  # fixtures

DASHBOARD = ROOT / "deploy" / "grafana" / "ingest.json"


async def samples(session: ClientSession) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and labels."""
    async with session.get("/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_the_dashboard_asks_for_what_there_is(session: ClientSession) -> None:
    there = await samples(session)
    text = DASHBOARD.read_text()
    panels = json.loads(text)["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = set(re.findall(r"\b(?:capstan|process)_\w+", " ".join(expressions)))
    assert len(panels) == 14
    assert asked - there.keys() == set()
    ours = {name for name in there if name.startswith("capstan_ingest_")}
    assert ours - asked == {"capstan_ingest_start_time_seconds"}


async def test_rows_and_jobs_are_counted_by_few_labels(session: ClientSession, web: Web) -> None:
    before = await samples(session)
    await done(session, lines(web, 8, 200_000))
    while True:
        now = await samples(session)
        rows = {
            reason: value - before["capstan_ingest_rows_total"][reason]
            for reason, value in now["capstan_ingest_rows_total"].items()
        }
        jobs = now["capstan_ingest_jobs"][("done",)] - before["capstan_ingest_jobs"][("done",)]
        if rows[("ok",)] == 6 and jobs:  # of ended jobs it tells as of the last second
            break
    assert rows[("not_found",)] == 2
    assert jobs == 1
    assert now["capstan_ingest_received_bytes_total"][()] > 0
    assert sum(len(labels) for labels in now.values()) < 1_000


async def test_requests_are_counted_by_their_route(session: ClientSession) -> None:
    for path in ("/api/jobs/some", "/api/jobs/other", "/made/up"):
        async with session.get(path) as response:
            assert response.status == 404
    requests = (await samples(session))["capstan_requests_total"]
    assert requests[("/api/jobs/{id}", "4xx")] >= 2
    assert requests[("other", "4xx")] >= 1
    assert not any("some" in label for labels in requests for label in labels)
