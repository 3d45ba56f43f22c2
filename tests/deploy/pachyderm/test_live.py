"""A real Pachyderm: made, updated, loaded, listed, read back, deleted. In a project of its own."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from capstan.chunks import cut
from capstan.deploy.specs.read import leaves, read_file
from capstan.errors import CapstanError
from capstan.pachyderm.commits import writable_head
from capstan.pachyderm.connect import open_server
from capstan.pachyderm.connection import ServerTarget, parse
from capstan.pachyderm.server import Change, Put, Server
from tests.deploy.pachyderm.conftest import Capstan
from tests.deploy.pachyderm.test_pipelines import GPUS, NAMES, edit, specs
from tests.deploy.pachyderm.test_template import ALL
from tests.deploy.specs.seed import SEED
from tests.paths import PIPELINES

__all__ = ["specs"]  # a fixture
ADDRESS = os.environ.get("CAPSTAN_PACHD", "")
pytestmark = pytest.mark.skipif(
    not ADDRESS, reason="no Pachyderm: give its address in CAPSTAN_PACHD"
)
# What specs of the tutorial's time had, and where, beside a good spec's.
RETIRED: dict[str, dict[str, object]] = {
    "enable_stats": {"enable_stats": True},
    "standby": {"standby": True},
    "chunk_spec": {"chunk_spec": {"number": 5}},
    "cache_size": {"cache_size": "5G"},
    "parallelism_spec.coefficient": {"parallelism_spec": {"coefficient": 1}},
    "resource_requests.gpu": {"resource_requests": {"gpu": 1}},
    "input.atom": {"input": {"atom": {"repo": "rawdata", "glob": "/*"}}},
}


@pytest.fixture
def server() -> Iterator[Server]:
    """The Pachyderm, and a new project on it."""
    from pachyderm_sdk import Client
    from pachyderm_sdk.api import pfs

    client, project = Client.from_pachd_address(ADDRESS), pfs.Project(name=f"t{uuid.uuid4().hex}")
    client.pfs.create_project(project=project)
    with open_server(ServerTarget(*parse(ADDRESS), project=project.name)) as server:
        yield server
    client.pps.delete_pipelines(projects=[project])
    client.pfs.delete_repos(projects=[project])
    client.pfs.delete_project(project=project)


@pytest.fixture
def secret(server: Server) -> str:
    """The one that ingest-service names; the server looks for it in Kubernetes."""
    from pachyderm_sdk import Client

    with suppress(grpc.RpcError):  # there already, for it is of no project
        Client.from_pachd_address(ADDRESS).pps.create_secret(
            name="capstan-ingest", data={"token": "a token"}
        )
    return "capstan-ingest"


@pytest.fixture
def live(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Capstan:
    """Commands against it."""
    monkeypatch.setenv("PACHD_ADDRESS", ADDRESS)
    monkeypatch.setenv("CAPSTAN_PROJECT", server.project)
    return Capstan(capsys)


def test_pipelines_are_made_updated_shown_and_deleted(
    server: Server, live: Capstan, specs: Path
) -> None:
    assert live("up", "--pipelines", specs, "--dry-run") == 0
    assert server.repos() == []
    assert live("up", "--pipelines", specs) == 0
    assert live.err.count(": made") == 7
    assert {pipeline.name for pipeline in server.pipelines()} == set(NAMES)
    assert live("up", "--pipelines", specs) == 0
    assert live.err.count("unchanged") == 5
    edit(specs / "images.json", datum_tries=5)
    assert live("up", "--pipelines", specs) == 0
    assert '-  "datum_tries": 3,\n+  "datum_tries": 5,\n' in live.out
    versions = {pipeline.name: pipeline.version for pipeline in server.pipelines()}
    assert versions == {name: 2 if name == "images" else 1 for name in NAMES}
    assert live("status", "--json") == 0
    shown = json.loads(live.out)["pipelines"]
    assert [pipeline["name"] for pipeline in shown] == NAMES
    assert shown[2]["inputs"] == ["rawdata", "features"]
    assert live("logs", "images") == 1  # it has no workers
    assert live("down", "--pipelines", specs, "--yes", "--data") == 0
    assert server.repos() == [] and server.pipelines() == []


@pytest.mark.parametrize("field", RETIRED)
def test_retired_fields_are_refused_here_and_there(
    server: Server, live: Capstan, specs: Path, field: str
) -> None:
    server.create_repo("rawdata")
    file = specs / "images.json"
    edit(file, **RETIRED[field])
    assert live("up", "--pipelines", specs) == 2
    assert f"{field}: " in live.err
    with pytest.raises(grpc.RpcError, match=r"unknown field|invalid value|syntax error"):
        server.put_pipeline(file.read_text(), update=False, reprocess=False, dry_run=False)


def test_a_tsv_is_loaded_once_and_read_back(server: Server, live: Capstan, tmp_path: Path) -> None:
    """Chunks of some MB, so that the server cuts some into blocks."""
    server.create_repo("rawdata")
    tsv = tmp_path / "cc.tsv"
    rows = [
        b"%s %d\thttp://a.test/%d\n" % (os.urandom(200).hex().encode(), n, n) for n in range(20_000)
    ]
    tsv.write_bytes(b"".join(rows))
    assert live("load", tsv, "--rows", 15_000) == 0
    assert live("load", tsv, "--rows", 15_000) == 0
    assert "2 unchanged; nothing to do" in live.err
    assert live("fetch", "rawdata", tmp_path / "back") == 0
    cut(tsv, 15_000, tmp_path / "cut")
    assert contents(tmp_path / "back" / "cc.tsv") == contents(tmp_path / "cut")
    rows[3] = b"another\thttp://a.test/3\n"
    tsv.write_bytes(b"".join(rows[:15_000]))
    assert live("load", tsv, "--rows", 10_000) == 0
    assert live("load", tsv, "--rows", 15_000) == 0
    assert "1 chunks: 1 written, 1 stale removed" in live.err
    head = server.commit("rawdata")
    assert head is not None
    assert [file.path for file in server.files(head)] == ["/cc.tsv/0000000000000000"]
    assert b"".join(server.read(head, "/cc.tsv/0000000000000000")) == tsv.read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_load_that_fails_publishes_nothing(server: Server) -> None:
    server.create_repo("rawdata")
    server.modify("rawdata", [Put("/a", [b"before"])])
    before = server.commit("rawdata")

    def changes() -> Iterator[Change]:
        yield Put("/a", [b"x" * (1 << 20)] * 20)
        raise CapstanError("the disk is gone")

    with pytest.raises(CapstanError, match="the disk is gone"):
        server.modify("rawdata", changes())
    after = server.commit("rawdata")
    assert before is not None and after is not None and after.id == before.id
    assert b"".join(server.read(after, "/a")) == b"before"


def test_the_tutorials_specs_are_refused_by_the_server_too(server: Server) -> None:
    for repo in ("rawdata", "inpredict", "images", "features", "consolidate", "model"):
        server.create_repo(repo)
    for document in SEED.values():
        with pytest.raises(grpc.RpcError, match="unknown field"):
            server.put_pipeline(json.dumps(document), update=False, reprocess=False, dry_run=False)
    assert server.pipelines() == []


def test_shipped_specs_are_what_the_server_keeps(
    server: Server, live: Capstan, secret: str
) -> None:
    assert live("up", *ALL, "--pipelines", PIPELINES) == 0
    kept = {pipeline.name: json.loads(pipeline.spec) for pipeline in server.pipelines()}
    for name in ALL:
        (spec,) = read_file(PIPELINES / f"{name}.json")
        del kept[name]["pipeline"]["project"]
        assert kept[name] == spec.document
    assert live("up", *ALL, "--pipelines", PIPELINES, *GPUS) == 0
    assert live.err.count("updated") == 2
    assert live("up", *ALL, "--pipelines", PIPELINES, "--gpus", 0) == 0
    assert live.err.count("updated") == 2 and '"image": "capstan/featurize:' in live.out


def test_a_service_without_its_secret_says_so(server: Server, live: Capstan, specs: Path) -> None:
    edit(
        specs / "ingest-service.json",
        transform={"image": "x", "cmd": ["x"], "secrets": [{"name": "none-such"}]},
    )
    assert live("up", "ingest-service", "--pipelines", specs) == 1
    assert "missing Kubernetes secret none-such" in live.err


def test_the_services_repo_is_written_to_from_inside_only(
    server: Server, live: Capstan, secret: str
) -> None:
    """Its sidecar, at localhost:1653 in its pod, takes what the server itself refuses."""
    assert live("up", "ingest-service", "--pipelines", PIPELINES) == 0
    head = writable_head(server, "ingest-service")
    assert head and not head.open
    with pytest.raises(grpc.RpcError, match="cannot start a commit on an output branch"):
        server.modify("ingest-service", [Put("/job/0.tar", [b"one"])])


def test_what_is_not_there(server: Server, live: Capstan, tmp_path: Path) -> None:
    assert live("status") == 0
    assert "has no pipelines" in live.out
    assert live("fetch", "model", tmp_path / "m") == 1
    assert "no finished commit" in live.err
    assert live("up", "--project", "nobody", "--pipelines", PIPELINES) == 1
    assert "nobody" in live.err


@pytest.mark.parametrize("name", ALL)
def test_the_server_renders_the_template_and_accepts_it(
    server: Server, secret: str, name: str
) -> None:
    from pachyderm_sdk import Client

    render = Client.from_pachd_address(ADDRESS).pps.render_template
    template = (PIPELINES / "capstan.jsonnet").read_text()
    rendered = render(template=template, args={"name": name}).json
    assert json.loads(rendered) == json.loads((PIPELINES / f"{name}.json").read_text())
    more = {"gpu": "nvidia.com/mig-1g.10gb", "gpus": "2", "nodes": "a/b=c", "claim": "ingest"}
    document = json.loads(render(template=template, args={"name": name, **more}).json)
    document["pipeline"]["project"] = {"name": server.project}
    for repo in [leaf.repo for leaf in leaves(read_file(PIPELINES / f"{name}.json")[0].input)]:
        if repo not in server.repos():
            server.create_repo(repo)
    server.put_pipeline(json.dumps(document), update=False, reprocess=False, dry_run=False)
