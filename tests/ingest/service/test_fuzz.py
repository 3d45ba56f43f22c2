"""The served document is true: what schemathesis makes of it, and of its contraries, conforms."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from aiohttp import ClientSession
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS

from benchmarks.clients import be_clients
from benchmarks.ingestd_service import ServiceProcess
from capstan.ingest.service.validation import DOCUMENT
from capstan.testing.web import Web
from tests.ingest.service.running import FLAGS, done, lines, web

__all__ = ["web"]  # fixtures

TOKEN = "open sesame"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
# Right by the schema and refused all the same: a path of no file, a name that is no file's.
ACCEPTANCE = "positive_data_acceptance"
# A submission with a key that is known is answered whatever it holds.
REJECTION = "negative_data_rejection"
# Without the streams, which do not end.
schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT)).exclude(path_regex="events$")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service that asks for a token: that it does is part of the document."""
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "token").write_text(TOKEN)
    flags = (*FLAGS, "--token-file", str(folder / "token"), "--tsv-root", str(folder))
    with ServiceProcess(folder / "data", flags) as running:
        yield running


@pytest.fixture(scope="module")
def job(service: ServiceProcess, web: Web) -> str:
    """The id of a job that is done."""

    async def work(session: ClientSession) -> str:
        session.headers.update(HEADERS)
        return str((await done(session, lines(web, 30, 100_000)))["id"])

    return be_clients(service.url, work)


@schema.parametrize()
@settings(max_examples=10, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_conform(case: Any, service: ServiceProcess, job: str) -> None:
    excluded = [ACCEPTANCE] + [REJECTION] * (case.operation.label == "POST /api/jobs")
    excluded_checks = CHECKS.get_by_names(excluded)
    case.call_and_validate(service.url, headers=HEADERS, excluded_checks=excluded_checks)
    if "id" in case.path_parameters and case.method != "DELETE":
        case.path_parameters["id"] = job  # which may have been all that was wrong
        excluded_checks = CHECKS.get_by_names([*excluded, REJECTION])
        case.call_and_validate(service.url, headers=HEADERS, excluded_checks=excluded_checks)


def test_the_document_is_the_one_that_is_served(service: ServiceProcess) -> None:
    with urllib.request.urlopen(f"{service.url}/openapi.json") as response:
        assert response.read() == DOCUMENT
