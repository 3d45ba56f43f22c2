"""deploy/kubernetes: every overlay renders, validates, and says what the code does."""

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from capstan import __version__
from capstan.cli import COMMANDS
from capstan.deploy.jobset.jobset import (
    QUEUE_LABEL,
    container_of,
    mounts,
    read_template,
    worker_job,
)
from capstan.deploy.specs.read import read_file
from capstan.ingest.http.addresses import is_public
from capstan.ingest.service.auth import OPEN
from tests.deploy.jobset_schema import JOBSET
from tests.paths import ROOT

Json = dict[str, Any]
MANIFESTS = ROOT / "deploy" / "kubernetes"
KUSTOMIZATIONS = sorted(
    path.parent.relative_to(MANIFESTS).as_posix() for path in MANIFESTS.rglob("kustomization.yaml")
)
JOBSETS = [name for name in KUSTOMIZATIONS if "jobset" in name]
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
CRD = os.environ.get("CAPSTAN_TEST_JOBSET_CRD")


@cache
def rendered(name: str) -> list[Json]:
    """The objects that a kustomization makes."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which renders kustomizations")
    done = subprocess.run(
        ["kubectl", "kustomize", MANIFESTS / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # what it has to say of fields that are on their way out
    return list(yaml.safe_load_all(done.stdout))


def of_kind(kind: str, *names: str) -> list[Json]:
    """All objects of a kind, in some kustomizations or all."""
    return [
        item for name in names or KUSTOMIZATIONS for item in rendered(name) if item["kind"] == kind
    ]


def pods_in(items: list[Json]) -> Iterator[Json]:
    """Templates of pods, whatever makes them."""
    for item in items:
        if item["kind"] == "JobSet":
            yield worker_job(item)["template"]
        elif item["kind"] == "StatefulSet":
            yield item["spec"]["template"]


def all_pods() -> list[Json]:
    return [pod for name in KUSTOMIZATIONS for pod in pods_in(rendered(name))]


# The API's own rules


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_objects_are_valid(name: str, version: str) -> None:
    items = rendered(name)
    assert items
    for item in items:
        if item["kind"] == "JobSet":
            jsonschema.validate(item, JOBSET)
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}
            item = job | {"spec": worker_job(item)}
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.skipif(CRD is None, reason="CAPSTAN_TEST_JOBSET_CRD names JobSet's CRD file")
@pytest.mark.parametrize("name", JOBSETS)
def test_jobsets_hold_to_their_crd(name: str) -> None:
    crd = yaml.safe_load(Path(CRD or "").read_text())
    (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1alpha2"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    for jobset in of_kind("JobSet", name):
        jsonschema.validate(jobset, schema)


def closed(schema: Any) -> Any:
    """A schema that refuses fields it does not name, as the server does with --validate=strict."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: closed(each) for name, each in schema.items()}
    if "x-kubernetes-int-or-string" in schema:
        return {}
    if "properties" in schema and schema["properties"].keys() != {"apiVersion", "kind"}:
        result.setdefault("additionalProperties", False)
    if schema.get("properties", {}).keys() >= {"apiVersion", "kind", "metadata", "spec"}:
        result["properties"]["metadata"] = {"type": "object"}
    return result


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("maxRestarts", "maxRestart"),
        ("BlockingRecreate", "AllOrNothing"),
        ("replicas: 1", "replicas: -1"),
        ("PodFailurePolicy", "ExitCode2"),
        ("name: worker", "name: Worker"),
    ],
)
def test_the_schema_refuses(old: str, new: str) -> None:
    text = (MANIFESTS / "base/jobset/jobset.yaml").read_text()
    jsonschema.validate(yaml.safe_load(text), JOBSET)
    assert old in text
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text.replace(old, new)), JOBSET)


# Commands and images are ours


def parsed(words: list[str]) -> argparse.Namespace:
    """A `capstan` command line, read by the command's own parser."""
    assert words[0] == "capstan"
    name = next(each for each in (" ".join(words[1:3]), words[1]) if each in COMMANDS)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[name].module).configure(parser)
    return parser.parse_args(words[1 + len(name.split()) :])


def test_commands_parse() -> None:
    pods = all_pods()
    assert pods
    for pod in pods:
        for container in pod["spec"]["containers"]:
            parsed([*container["command"], *container["args"]])


def test_images_are_built_here() -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile(), re.MULTILINE)
    for pod in all_pods():
        for container in pod["spec"]["containers"]:
            name, tag = container["image"].removeprefix("capstan/").split(":")
            assert name in targets
            assert tag == __version__
            assert name.endswith("-gpu") == ("nvidia.com/gpu" in container["resources"]["limits"])


def dockerfile() -> str:
    return (ROOT / "deploy" / "docker" / "Dockerfile").read_text()


def test_the_service_is_reached_and_asked_where_it_answers() -> None:
    for name in ("base/ingestion", "overlays/ingestion-pachyderm"):
        (stateful,) = of_kind("StatefulSet", name)
        (service,) = of_kind("Service", name)
        template = stateful["spec"]["template"]
        (container,) = template["spec"]["containers"]
        arguments = parsed([*container["command"], *container["args"]])
        (port,) = container["ports"]
        assert (port["name"], port["containerPort"]) == ("http", arguments.port)
        assert service["spec"]["ports"][0]["targetPort"] == "http"
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        assert stateful["spec"]["serviceName"] == service["metadata"]["name"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == "http"
            assert asked["path"] in OPEN  # of which no token is asked
        assert "CAPSTAN_TOKEN" in {each["name"] for each in container["env"]}
        written = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert written == {str(arguments.data), "/tmp"}


def test_pods_may_do_little() -> None:
    for pod in all_pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


# Trainings


@pytest.mark.parametrize("name", JOBSETS)
def test_jobsets_are_templates_of_the_launcher(name: str, tmp_path: Path) -> None:
    (jobset,) = rendered(name)
    path = tmp_path / "jobset.yaml"
    path.write_text(yaml.safe_dump(jobset))
    template = read_template(path)
    assert mounts(template) == [Path("/training")]
    queued = name.endswith("queue")
    assert (QUEUE_LABEL in template["metadata"]["labels"]) == queued
    assert template["spec"].get("suspend", False) == queued
    (claim,) = of_kind("PersistentVolumeClaim", "base/training")
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in worker_job(template)["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [claim["metadata"]["name"]]


def test_all_start_again_when_one_fails_unless_the_setting_is_bad() -> None:
    for jobset in of_kind("JobSet"):
        job, policy = worker_job(jobset), jobset["spec"]["failurePolicy"]
        assert job["backoffLimit"] == 0
        assert job["template"]["spec"]["restartPolicy"] == "Never"
        assert policy["restartStrategy"] == "BlockingRecreate"
        assert policy["maxRestarts"] > 0
        (rule,) = job["podFailurePolicy"]["rules"]
        assert rule["action"] == "FailJob"
        assert rule["onExitCodes"]["values"] == [2]
        assert rule["onExitCodes"]["containerName"] == container_of(jobset)["name"]
        assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_the_pipeline_that_launches() -> None:
    (spec,) = read_file(MANIFESTS / "overlays" / "pachyderm" / "model.json")
    assert spec.name == "model"
    arguments = parsed(list(spec.command))
    assert arguments.command == ["capstan", "train"]
    patch = json.loads(spec.document["pod_patch"])
    added = {each["path"]: each["value"] for each in patch if "/volumes/" not in each["path"]}
    items = {item["kind"]: item["metadata"]["name"] for item in rendered("overlays/pachyderm")}
    assert added["/serviceAccountName"] == items["ServiceAccount"]
    volumes = {
        each["value"]["name"]: each["value"] for each in patch if "/volumes/" in each["path"]
    }
    places = {
        each["value"]["mountPath"]: volumes[each["value"]["name"]]
        for each in patch
        if "/volumeMounts/" in each["path"]
    }
    claim = places[str(arguments.volume)]["persistentVolumeClaim"]["claimName"]
    assert claim == items["PersistentVolumeClaim"]
    assert str(arguments.template.parent) in places
    assert arguments.volume in mounts(read_template(MANIFESTS / "base/jobset/jobset.yaml"))


def test_rights_go_to_the_launcher_alone() -> None:
    for name in ("base/training", "overlays/pachyderm"):
        (role,) = of_kind("Role", name)
        (account,) = of_kind("ServiceAccount", name)
        for binding in of_kind("RoleBinding", name):
            (subject,) = binding["subjects"]
            assert subject["kind"] == "ServiceAccount"
            assert subject["name"] == account["metadata"]["name"]
            assert binding["roleRef"]["name"] in (role["metadata"]["name"], "pachyderm-worker")
        assert "*" not in json.dumps(role["rules"])
    assert not of_kind("ClusterRole")
    assert not of_kind("ClusterRoleBinding")


# The network


def selects(selector: Json, pod: Json) -> bool:
    """Whether a selector of labels selects a pod."""
    wanted: Json = selector["matchLabels"]
    return bool(wanted.items() <= pod["metadata"]["labels"].items())


def policies_of(name: str, pod: Json, kind: str) -> list[Json]:
    """The network policies of a kustomization that hold for a pod."""
    return [
        policy["spec"]
        for policy in of_kind("NetworkPolicy", name)
        if kind in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod)
    ]


def test_every_pod_is_fenced() -> None:
    for name in ("base/ingestion", "overlays/ingestion-pachyderm"):
        for pod in pods_in(rendered(name)):
            assert policies_of(name, pod, "Ingress")
            assert policies_of(name, pod, "Egress")
    for name in JOBSETS:
        for pod in pods_in(rendered(name)):
            for kind in ("Ingress", "Egress"):
                assert policies_of("base/training", pod, kind)


def test_workers_reach_each_other_and_no_address() -> None:
    (pod,) = pods_in(rendered("base/jobset"))
    (policy,) = policies_of("base/training", pod, "Egress")
    peers = [peer for rule in policy["egress"] for peer in rule["to"]]
    assert not [peer for peer in peers if "ipBlock" in peer]
    assert any("podSelector" in peer and selects(peer["podSelector"], pod) for peer in peers)


def blocks() -> list[Json]:
    """Addresses that fetchers may reach."""
    (policy,) = of_kind("NetworkPolicy", "base/public-egress")
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule["to"]]
    return [peer["ipBlock"] for peer in peers if "ipBlock" in peer]


def reachable(address: str) -> bool:
    """Whether a fetcher may reach an address, as network plugins read the policy."""
    ip = ip_address(address)

    def within(network: str) -> bool:
        return ip in ip_network(network)

    return any(
        within(block["cidr"]) and not any(map(within, block["except"])) for block in blocks()
    )


def test_edges_of_the_public_ranges() -> None:
    """No range of the policy is a bit too wide or too narrow."""
    for block in blocks():
        for network in map(ip_network, [block["cidr"], *block["except"]]):
            first, last = int(network[0]), int(network[-1])
            for number in (first - 1, first, last, last + 1):
                if 0 <= number < 2**network.max_prefixlen:
                    check(str(type(network[0])(number)))


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_the_policy_agrees_with_what_ingest_thinks_public(address: Any) -> None:
    check(str(address))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "172.20.0.1", "100.64.1.1"),
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "8.8.8.8", "192.88.99.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1"),
        *("2001:4860:4860::8888", "2002:a00:1::1", "2001::1", "2001:db8::1", "64:ff9b::a00:1"),
        *("3fff::1", "2606:4700::1111", "4000::1", "64:ff9b:1::1"),
    ],
)
def test_well_known_addresses(address: str) -> None:
    check(address)


# What ingest lets through and the policy does not: IPv4 in IPv6, which a NAT64 reaches in the
# fetcher's stead; of the blocks for protocols some that no server of the web has; and one for
# documentation that the standard library of Python 3.11 does not know yet.
STRICTER = ["::ffff:0:0/96", "64:ff9b::/96", "192.0.0.0/24", "2001::/23", "3fff::/20"]


def check(address: str) -> None:
    """What the policy lets through is public to ingest, and the other way but for STRICTER."""
    assert is_public(address) >= reachable(address)
    if not any(ip_address(address) in ip_network(block) for block in STRICTER):
        assert is_public(address) == reachable(address)
