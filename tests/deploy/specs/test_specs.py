"""Specs: what is shipped is accepted, what the server refuses is refused with a cure."""

import argparse
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pachyderm_sdk.api import pps

from capstan.deploy.specs.read import Combination, Pfs, Spec, leaves, read_file, read_specs
from capstan.errors import SettingError
from capstan.ingest.service.config import ServiceSettings
from tests.deploy.specs.seed import SEED
from tests.paths import PIPELINES

GOOD: dict[str, Any] = {
    "pipeline": {"name": "edges"},
    "transform": {"image": "x:1", "cmd": ["edges"]},
    "input": {"pfs": {"repo": "images", "glob": "/*"}},
}
PORTS = {"internal_port": 8080, "external_port": 30080}
# All that specs for Pachyderm 1 could have and that is gone.
OLD = {
    "pipeline": {"name": "images"},
    "transform": {"image": "x:1", "cmd": ["python", "/app/images.py"]},
    "parallelism_spec": {"coefficient": 1},
    "input": {"atom": {"repo": "rawdata", "glob": "/*/*"}},
    "enable_stats": True,
    "standby": True,
    "chunk_spec": {"number": 5},
    "cache_size": "5G",
    "resource_requests": {"memory": "2G", "gpu": 1},
}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Any], list[Spec]]:
    def write_and_read(content: Any) -> list[Spec]:
        file = tmp_path / "spec.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_file(file)

    return write_and_read


def changed(path: str, value: Any) -> dict[str, Any]:
    """A good spec with one field set; a value of None removes it."""
    document = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place.setdefault(parent, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


def test_shipped_specs_are_the_five_pipelines_and_a_service() -> None:
    specs = {spec.name: spec for spec in read_specs(PIPELINES)}
    service = specs.pop("ingest-service")
    assert service.forever and service.input is None and service.parallelism == 1
    reads = {name: [leaf.repo for leaf in leaves(spec.input)] for name, spec in specs.items()}
    assert reads == {
        "images": ["rawdata"],
        "features": ["images"],
        "consolidate": ["rawdata", "features", "features"],
        "model": ["consolidate"],
        "predict": ["model", "inpredict"],
    }
    for name, spec in specs.items():
        assert spec.file.name == f"{name}.json"
        assert spec.command[0] == "capstan" and spec.document["description"]
        assert spec.timeout and spec.document["autoscaling"] is True


def test_shipped_specs_survive_the_sdk() -> None:
    """What goes to the server is what the file says: the SDK drops nothing of it."""
    for spec in read_specs(PIPELINES):
        request = pps.CreatePipelineRequest().from_dict(json.loads(spec.file.read_text()))
        assert request.transform.cmd == list(spec.command)
        assert request.datum_timeout.total_seconds() == (spec.timeout or 0)
        assert request.transform.err_cmd == list(spec.recovery)
        assert request.parallelism_spec.constant == spec.parallelism


def test_shipped_gpus_are_limits() -> None:
    gpu = {"type": "nvidia.com/gpu", "number": 1}
    limits = {
        spec.name: spec.document["resource_limits"].get("gpu") for spec in read_specs(PIPELINES)
    }
    assert limits == {
        "images": None,
        "features": gpu,
        "consolidate": None,
        "model": gpu,
        "predict": None,
        "ingest-service": None,
    }


def test_shipped_requests_and_limits_are_there_for_worker_and_sidecar() -> None:
    for spec in read_specs(PIPELINES):
        assert set(spec.document["resource_requests"]) == {"cpu", "memory", "disk"}
        assert "memory" in spec.document["resource_limits"]
        assert "memory" in spec.document["sidecar_resource_requests"]
        assert "memory" in spec.document["sidecar_resource_limits"]


def test_a_bad_chunk_stops_only_itself_where_chunks_are_apart() -> None:
    recovering = {spec.name for spec in read_specs(PIPELINES) if spec.recovery}
    assert recovering == {"images", "features", "consolidate"}


def test_the_service_understands_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    (spec,) = read_file(PIPELINES / "ingest-service.json")
    monkeypatch.setenv(spec.document["transform"]["secrets"][0]["env_var"], "a token")
    parser = argparse.ArgumentParser()
    ServiceSettings.configure(parser)
    settings = ServiceSettings.from_arguments(parser.parse_args(spec.command[3:]))
    assert settings.listen.port == spec.document["spout"]["service"]["internal_port"]
    assert settings.delivery.pachyderm_repo == spec.name
    assert settings.token == "a token"


def test_defaults_are_the_servers(read: Callable[[Any], list[Spec]]) -> None:
    (spec,) = read(GOOD)
    assert spec.input == Pfs("images", "images", "/*")
    assert (spec.parallelism, spec.tries, spec.timeout, spec.forever) == (1, 3, None, False)
    assert spec.accepted == {0}


def test_camel_case_strings_for_numbers_and_null_as_protojson(
    read: Callable[[Any], list[Spec]],
) -> None:
    more = {
        "$schema": "https://example.com/x.json",
        "datumTries": "5",
        "datum_timeout": "1.5s",
        "parallelismSpec": {"constant": 2},
        "description": None,
        "tolerations": [{"key": "gpu", "operator": "EXISTS", "tolerationSeconds": 3}],
        "schedulingSpec": {"nodeSelector": {"zone": "a"}},
    }
    (spec,) = read(GOOD | more)
    assert (spec.tries, spec.timeout, spec.parallelism) == (5, 1.5, 2)
    assert spec.document["scheduling_spec"] == {"node_selector": {"zone": "a"}}
    assert "description" not in spec.document


def test_inputs_nest_and_globs_are_cleaned(read: Callable[[Any], list[Spec]]) -> None:
    tree = {
        "cross": [
            {"pfs": {"repo": "a", "glob": "*/"}},
            {"union": [{"pfs": {"repo": "b", "glob": "/"}}, {"pfs": {"repo": "b", "glob": "/x"}}]},
        ]
    }
    (spec,) = read(GOOD | {"input": tree})
    assert spec.input == Combination(
        "cross",
        (
            Pfs("a", "a", "/*"),
            Combination("union", (Pfs("b", "b", "/"), Pfs("b", "b", "/x"))),
        ),
    )


def test_a_file_may_hold_several(read: Callable[[Any], list[Spec]]) -> None:
    other = changed("pipeline", {"name": "other"})
    assert [spec.name for spec in read([GOOD, other])] == ["edges", "other"]


def test_the_tutorials_five_specs_are_refused_with_what_replaces_their_fields(
    tmp_path: Path,
) -> None:
    for name, document in SEED.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    with pytest.raises(SettingError) as refused:
        read_specs(tmp_path)
    stats = "enable_stats: gone since Pachyderm 2; remove it, statistics are always kept"
    standby = 'standby: gone since Pachyderm 2; use "autoscaling": true'
    expected = [
        f"{tmp_path / f'{name}.json'}: {stats}" + (f"; {standby}" if name == "images" else "")
        for name in sorted(SEED)
    ]
    assert str(refused.value) == "; ".join(expected)


def test_the_tutorials_specs_as_that_says_are_accepted(
    read: Callable[[Any], list[Spec]],
) -> None:
    for document in SEED.values():
        mended = {
            key: value for key, value in document.items() if key not in ("enable_stats", "standby")
        }
        assert read(mended | {"autoscaling": True})


def test_retired_fields_are_named_all_at_once(read: Callable[[Any], list[Spec]]) -> None:
    with pytest.raises(SettingError) as refused:
        read(OLD)
    message = str(refused.value)
    assert "\n" not in message
    for field, cure in {
        "enable_stats": "remove it",
        "standby": 'use "autoscaling": true',
        "chunk_spec": "use datum_set_spec",
        "cache_size": "sidecar_resource_requests.memory",
        "parallelism_spec.coefficient": "use constant",
        "input.atom": "use pfs",
    }.items():
        assert re.search(
            rf"{re.escape(field)}: gone since Pachyderm 2; [^;]*{re.escape(cure)}", message
        )
    assert "resource_requests.gpu: must be an object of type, number" in message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # names and types
        ("datum_trys", 3, "datum_trys: no such field; did you mean datum_tries?"),
        ("frobnicate", 3, "frobnicate: no such field; remove it"),
        ("enableStats", True, "enableStats: gone since Pachyderm 2; remove it"),
        ("transform.command", ["x"], "transform.command: no such field"),
        ("datum_tries", 1.5, "datum_tries: must be a whole number, not 1.5"),
        ("datum_tries", True, "datum_tries: must be a whole number, not true"),
        ("parallelism_spec.constant", -1, "parallelism_spec.constant: must be a whole number"),
        ("autoscaling", "yes", 'autoscaling: must be true or false, not "yes"'),
        ("transform.cmd", "edges", "transform.cmd: must be a list"),
        ("transform.cmd", ["edges", 3], "transform.cmd[1]: must be a string, not 3"),
        ("transform.env", {"A": 1}, "transform.env: must be an object of strings"),
        ("transform.env", ["A"], "transform.env: must be an object of strings"),
        ("transform", [], "transform: must be an object of image, cmd,"),
        ("datum_timeout", "30m", 'datum_timeout: must be a duration in seconds such as "1800s"'),
        ("datum_timeout", 30, 'datum_timeout: must be a duration in seconds such as "1800s"'),
        ("resource_limits.cpu", "2", 'resource_limits.cpu: must be a number, not "2"'),
        ("resource_limits.gpu", {"type": 1}, "resource_limits.gpu.type: must be a string"),
        ("tolerations", [{"operator": "IS"}], "tolerations[0].operator: must be one of EMPTY,"),
        ("input.pfs.emptyfiles", True, "did you mean empty_files?"),
        # rules of the server
        ("pipeline.name", "a b", "pipeline.name: give 1 to 51 letters"),
        ("pipeline.name", "_a", "pipeline.name: give 1 to 51 letters"),
        ("pipeline.name", "a" * 52, "pipeline.name: give 1 to 51 letters"),
        ("pipeline", None, "pipeline.name: give 1 to 51 letters"),
        ("transform", None, "transform.image: missing; give it; transform.cmd: missing; give it"),
        ("transform.cmd", [], "transform.cmd: missing; give it"),
        ("datum_set_spec", {}, "datum_set_spec: empty, and the server divides by zero"),
        ("datum_set_spec", {"per_worker": 0}, "datum_set_spec: empty"),
        ("datum_set_spec", {"per_worker": 1, "number": 2}, "per_worker excludes number"),
        ("resource_requests.gpu", {"number": 1}, "resource_requests.gpu: the GPU belongs in"),
        ("resource_limits.gpu", {"number": 1}, "resource_limits.gpu.type: missing; give one such"),
        ("resource_limits.memory", "8GB", "resource_limits.memory: no amount of Kubernetes'; give"),
        ("sidecar_resource_limits.disk", "", "sidecar_resource_limits.disk: no amount"),
        ("tolerations", [{"key": "gpu"}], "tolerations[0].operator: missing; give EXISTS or EQUAL"),
        ("pod_patch", "[{]", "pod_patch: not JSON in a string; mend it"),
        ("transform.secrets", [{"name": "s", "env_var": "T"}], "transform.secrets[0].key: missing"),
        ("service", {}, "service.internal_port: no port; give one from 1 to 65535"),
        (
            "service",
            {"internal_port": 1, "external_port": 1, "type": "Web"},
            "service.type: no service of Kubernetes'; give one of NodePort, ClusterIP",
        ),
        ("tf_job", {"tf_job": "x"}, "tf_job: the server has no support for it"),
        ("input", None, "input: missing; give one of pfs"),
        ("input", {}, "input: give exactly one of pfs, cron, join, cross, union, group, not none"),
        ("input.cron", {"name": "c", "spec": "@daily"}, "input: give exactly one of"),
        ("input.pfs", {"glob": "/"}, "input.pfs.repo: missing; give it"),
        ("input.pfs", {"repo": "a"}, "input.pfs.glob: missing; give it"),
        ("input.pfs.commit", "abc", "input.pfs.commit: an input follows a branch"),
        ("input.pfs.name", "out", "input name 'out': taken or reserved"),
        ("spout", {}, "input: a spout without a service has none"),
        ("input", {"join": [{"pfs": {"repo": "a", "glob": "/(*)"}}]}, "pfs.join_on: missing"),
        ("input", {"group": [{"pfs": {"repo": "a", "glob": "/(*)"}}]}, "pfs.group_by: missing"),
        (
            "input",
            {"cross": [{"pfs": {"repo": "a", "glob": "/"}}, {"pfs": {"repo": "a", "glob": "/*"}}]},
            "input name 'a': taken or reserved; give this input another name",
        ),
    ],
)
def test_what_the_server_refuses(
    read: Callable[[Any], list[Spec]], path: str, value: Any, message: str
) -> None:
    with pytest.raises(SettingError, match=re.escape(message)) as refused:
        read(changed(path, value))
    assert re.match(r".*/spec\.json: [^\n]+$", str(refused.value))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"autoscaling": True}, "autoscaling: a spout cannot have it; remove it"),
        ({"s3_out": True}, "s3_out: a spout or a service cannot have it; remove it"),
        ({"service": PORTS}, "service: a spout has its service inside; move it to spout.service"),
        ({"spout": {"service": {"internal_port": 80}}}, "spout.service.external_port: no port"),
    ],
)
def test_what_a_spout_cannot_have(
    read: Callable[[Any], list[Spec]], more: dict[str, Any], message: str
) -> None:
    spout = {name: GOOD[name] for name in ("pipeline", "transform")} | {"spout": {"service": PORTS}}
    (good,) = read(spout)
    assert good.forever and good.input is None
    with pytest.raises(SettingError, match=re.escape(message)):
        read(spout | more)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"a": 1, "a": 2}', "not JSON (a given twice)"),
        ("3", "the spec: must be an object of pipeline, "),
        ('{"datumTries": 1, "datum_tries": 1}', "datum_tries: given twice, as datum_tries too"),
    ],
)
def test_what_is_not_a_spec(read: Callable[[Any], list[Spec]], text: str, message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)):
        read(text)


def test_folders_without_specs_and_names_given_twice(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no pipeline specs"):
        read_specs(tmp_path)
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(GOOD))
    with pytest.raises(SettingError, match=r"b\.json: edges is in .*a\.json already"):
        read_specs(tmp_path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["pfs", "cross", "repo", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = st.sampled_from(list(pps.CreatePipelineRequest()._betterproto.meta_by_field_name))


@given(st.dictionaries(fields, values, max_size=3))
def test_no_document_makes_it_crash(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(GOOD | document))
    try:
        assert all(isinstance(spec, Spec) for spec in read_file(file))
    except SettingError as refused:
        assert "\n" not in str(refused)
