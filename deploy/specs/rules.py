"""What the server, or Kubernetes behind it, refuses though every field has its type.

After `validatePipelineRequest`, `validatePipeline`, `validateInput` and `getWorkerOptions` of the
server's `src/server/pps/server` (2.12).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from capstan.deploy.specs.fields import matches

COMBINATIONS = ("join", "cross", "union", "group")
KEYS = {"join": "join_on", "group": "group_by"}
RESOURCES = (
    "resource_requests",
    "resource_limits",
    "sidecar_resource_requests",
    "sidecar_resource_limits",
)
QUANTITY = r"\d+(\.\d+)?([KMGTPE]i|[mkMGTPE])?"  # such as 8Gi
SERVICES = ("NodePort", "ClusterIP", "LoadBalancer")  # the first is the server's default


def broken_rules(document: Mapping[str, Any]) -> Iterator[str]:
    """What to mend, a `field: what is wrong; cure` each; `document` has its names in snake_case."""
    if not matches("[a-zA-Z0-9][a-zA-Z0-9_-]{0,50}", document.get("pipeline", {}).get("name")):
        yield "pipeline.name: give 1 to 51 letters, digits, _ or -, the first a letter or digit"
    yield from _transform_rules(document.get("transform", {}))
    yield from _set_rules(document.get("datum_set_spec", {"number": 1}))
    yield from _resource_rules(document)
    yield from _pod_rules(document)
    yield from _service_rules(document)
    if "input" in document:
        yield from _input_rules(document["input"], "input")
        yield from _name_rules(document["input"], set())


def _transform_rules(transform: Mapping[str, Any]) -> Iterator[str]:
    for name in ("image", "cmd"):
        if not transform.get(name):
            yield f"transform.{name}: missing; give it"
    for index, secret in enumerate(transform.get("secrets", ())):
        if secret.get("env_var") and not secret.get("key"):
            yield f"transform.secrets[{index}].key: missing, and env_var is of one; give it"


def _set_rules(sets: Mapping[str, Any]) -> Iterator[str]:
    if not any(sets.values()):
        yield "datum_set_spec: empty, and the server divides by zero; give per_worker or remove it"
    if sets.get("per_worker") and (sets.get("number") or sets.get("size_bytes")):
        yield "datum_set_spec: per_worker excludes number and size_bytes; keep one"


def _resource_rules(document: Mapping[str, Any]) -> Iterator[str]:
    """The server drops an amount that it cannot read, and a worker then has no limit at all."""
    for place in RESOURCES:
        resources = document.get(place, {})
        for name in ("memory", "disk"):
            if name in resources and not matches(QUANTITY, resources[name]):
                yield f'{place}.{name}: no amount of Kubernetes\'; give one such as "8Gi"'
        if "gpu" in resources and place != "resource_limits":
            yield f"{place}.gpu: the GPU belongs in resource_limits; move it there"
        elif "gpu" in resources and not resources["gpu"].get("type"):
            yield f"{place}.gpu.type: missing; give one such as nvidia.com/gpu"


def _pod_rules(document: Mapping[str, Any]) -> Iterator[str]:
    for index, toleration in enumerate(document.get("tolerations", ())):
        if toleration.get("operator", "EMPTY") == "EMPTY":
            yield f"tolerations[{index}].operator: missing; give EXISTS or EQUAL"
    for name in ("pod_spec", "pod_patch"):
        if document.get(name) and not _is_json(document[name]):
            yield f"{name}: not JSON in a string; mend it"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _service_rules(document: Mapping[str, Any]) -> Iterator[str]:
    spout, service = document.get("spout"), document.get("service")
    if "tf_job" in document:
        yield "tf_job: the server has no support for it; use transform"
    if spout is None and "input" not in document:
        yield "input: missing; give one of pfs, join, cross, union, group, cron"
    if spout is not None and "service" not in spout and "input" in document:
        yield "input: a spout without a service has none; remove it"
    if spout is not None and document.get("autoscaling"):
        yield "autoscaling: a spout cannot have it; remove it"
    if spout is not None and service is not None:
        yield "service: a spout has its service inside; move it to spout.service"
    if document.get("s3_out") and (spout is not None or service is not None):
        yield "s3_out: a spout or a service cannot have it; remove it"
    if service is not None:
        if document.get("parallelism_spec", {}).get("constant", 1) != 1:
            yield "parallelism_spec.constant: a service has 1 worker; give 1"
        yield from _port_rules("service", service)
    if spout and "service" in spout:
        yield from _port_rules("spout.service", spout["service"])


def _port_rules(place: str, service: Mapping[str, Any]) -> Iterator[str]:
    for name in ("internal_port", "external_port"):
        if not 0 < service.get(name, 0) < 65_536:
            yield f"{place}.{name}: no port; give one from 1 to 65535"
    if service.get("type", SERVICES[0]) not in SERVICES:
        yield f"{place}.type: no service of Kubernetes'; give one of {', '.join(SERVICES)}"


def _input_rules(tree: Mapping[str, Any], where: str, parent: str = "") -> Iterator[str]:
    if len(tree) != 1:
        kinds = f"pfs, cron, {', '.join(COMBINATIONS)}"
        yield f"{where}: give exactly one of {kinds}, not {' and '.join(tree) or 'none'}"
    for kind in COMBINATIONS:
        for index, branch in enumerate(tree.get(kind, ())):
            above = kind if kind in KEYS else parent
            yield from _input_rules(branch, f"{where}.{kind}[{index}]", above)
    pfs = tree.get("pfs", {"repo": "-", "glob": "-", KEYS.get(parent): "-"})
    for name in ("repo", "glob", *([KEYS[parent]] if parent else [])):
        if not pfs.get(name):
            yield f"{where}.pfs.{name}: missing; give it"
    if pfs.get("commit"):
        yield f"{where}.pfs.commit: an input follows a branch; remove it"


def _name_rules(tree: Mapping[str, Any], taken: set[str]) -> Iterator[str]:
    """Names are unique, but for branches of a union, of which a datum has only one."""
    for leaf in (tree[kind] for kind in ("pfs", "cron") if kind in tree):
        if (name := input_name(leaf)) in {*taken, "out", ".env", ""}:
            yield f"input name {name!r}: taken or reserved; give this input another name"
        taken.add(name)
    for kind in COMBINATIONS:
        outside = set(taken)
        for branch in tree.get(kind, ()):
            names = set(outside) if kind == "union" else taken
            yield from _name_rules(branch, names)
            taken |= names


def input_name(leaf: Mapping[str, Any]) -> str:
    """What an input is called below /pfs."""
    return str(leaf.get("name") or leaf.get("repo", ""))
