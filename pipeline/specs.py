"""Reads pipeline specs as strictly as the Pachyderm server does, and says what to mend.

Every field is held against the message types of the installed pachyderm-sdk, whose own `from_dict`
drops what it does not know; then come the rules that the server enforces when a pipeline is made.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from posixpath import normpath
from typing import Any

from pachyderm_sdk.api import pps

from pipeline.errors import SettingError

COMBINATIONS = ("join", "cross", "union", "group")
KEYS = {"join": "join_on", "group": "group_by"}
RETIRED = {
    "atom": "use pfs",
    "batch": "remove it",
    "build": "build and push the image, and name it in transform.image",
    "cache_size": "size the sidecar with sidecar_resource_requests.memory",
    "chunk_spec": "use datum_set_spec",
    "coefficient": "use constant, a number of workers",
    "enable_stats": "remove it, statistics are always kept",
    "git": "use pfs, with a program that loads the repo",
    "hashtree_spec": "remove it",
    "incremental": "remove it, unchanged datums are always skipped",
    "max_queue_size": "remove it",
    "scale_down_threshold": 'use "autoscaling": true',
    "standby": 'use "autoscaling": true',
    "strategy": "give constant, a number of workers",
}
HOMES = {"constant": "parallelism_spec", "gpu": "resource_limits"} | dict.fromkeys(
    ("cmd", "env", "image", "stdin"), "transform"
)
Problems = list[str]  # one `field: what is wrong; cure` each


@dataclass(frozen=True)
class Pfs:
    """An input from a repo: one file or folder for each match of the glob."""

    name: str
    repo: str
    glob: str  # starts with a slash
    join_on: str = ""
    group_by: str = ""
    outer_join: bool = False
    empty_files: bool = False


@dataclass(frozen=True)
class Combination:
    """Inputs combined; `kind` is one of `COMBINATIONS`."""

    kind: str
    inputs: tuple["Input", ...]


Input = Pfs | Combination


@dataclass(frozen=True)
class Spec:
    """A pipeline, with the server's defaults. `document` is all its file says, in snake_case."""

    file: Path
    name: str
    command: tuple[str, ...]
    stdin: tuple[str, ...]
    env: Mapping[str, str]
    working_dir: str
    accepted: frozenset[int]  # exit statuses that count as success
    input: Input | None  # None for a spout
    forever: bool  # a spout or a service
    parallelism: int
    tries: int
    timeout: float | None  # seconds for one try of one datum
    document: Mapping[str, Any] = field(repr=False)


def leaves(tree: Input | None) -> list[Pfs]:
    """The repo inputs below an input, in order."""
    if tree is None or isinstance(tree, Pfs):
        return [] if tree is None else [tree]
    return [leaf for branch in tree.inputs for leaf in leaves(branch)]


def read_specs(directory: Path) -> list[Spec]:
    """Read all `*.json` of a folder; SettingError names the file, the fields and the cures."""
    specs: dict[str, Spec] = {}
    for spec in (spec for file in sorted(directory.glob("*.json")) for spec in read_file(file)):
        if twin := specs.get(spec.name):
            raise SettingError(f"{spec.file}: {spec.name} is in {twin.file} already; rename one")
        specs[spec.name] = spec
    if not specs:
        raise SettingError(f"{directory}: no pipeline specs (*.json) there; give their folder")
    return list(specs.values())


def read_file(file: Path) -> list[Spec]:
    """Read one spec, or a list of them, as `pachctl create pipeline -f` does."""
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=_object)
    except ValueError as error:
        raise SettingError(f"{file}: not JSON ({error}); mend it") from error
    return [_spec(file, each) for each in (content if isinstance(content, list) else [content])]


def normal(content: Any) -> dict[str, Any]:
    """A spec with its names in snake_case, less what this version of the SDK does not know."""
    return _message(pps.CreatePipelineRequest, content, "", [])


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} given twice")
    return dict(pairs)


def _spec(file: Path, content: Any) -> Spec:
    problems: Problems = []
    document = _message(pps.CreatePipelineRequest, content, "", problems)
    problems = problems or list(_rules(document))
    if problems:
        raise SettingError(f"{file}: {'; '.join(problems)}")
    transform, timeout = document["transform"], document.get("datum_timeout")
    return Spec(
        file=file,
        name=document["pipeline"]["name"],
        command=tuple(transform["cmd"]),
        stdin=tuple(transform.get("stdin", ())),
        env=transform.get("env", {}),
        working_dir=transform.get("working_dir", ""),
        accepted=frozenset({0, *transform.get("accept_return_code", ())}),
        input=_input(document["input"]) if "input" in document else None,
        forever="spout" in document or "service" in document,
        parallelism=document.get("parallelism_spec", {}).get("constant") or 1,
        tries=document.get("datum_tries") or 3,
        timeout=float(timeout[:-1]) if timeout else None,
        document=document,
    )


def _input(tree: Mapping[str, Any]) -> Input:
    kind, value = next(iter(tree.items()))
    if kind in COMBINATIONS:
        return Combination(kind, tuple(map(_input, value)))
    if kind == "cron":
        return Pfs(value["name"], value.get("repo") or value["name"], "/*")
    names = ("join_on", "group_by", "outer_join", "empty_files")
    given = {name: value[name] for name in names if name in value}
    return Pfs(_name(value), value["repo"], normpath("/" + value["glob"].strip("/")), **given)


def _name(leaf: Mapping[str, Any]) -> str:
    return str(leaf.get("name") or leaf.get("repo", ""))


# Shape: names and types of all fields


def _message(kind: Any, value: Any, where: str, problems: Problems) -> dict[str, Any]:
    """The object with its names in snake_case; all that does not fit goes to `problems`."""
    fields: dict[str, Any] = kind()._betterproto.meta_by_field_name
    if not isinstance(value, dict):
        problems.append(f"{where or 'the spec'}: must be an object of {', '.join(fields)}")
        return {}
    spellings = {_camel(name): name for name in fields}
    result: dict[str, Any] = {}
    for key, item in value.items():
        place, name = f"{where}.{key}".lstrip("."), spellings.get(key, key)
        if name not in fields and key != "$schema":  # editors add that, the server drops it
            problems.append(f"{place}: {_cure(key, fields)}")
        elif name in result:
            problems.append(f"{place}: given twice, as {name} too; keep one")
        elif name in fields and item is not None:  # null is the same as absent
            result[name] = _field(kind()._betterproto, name, item, (place, problems))
    return result


def _camel(name: str) -> str:
    return re.sub("_(.)", lambda match: match[1].upper(), name)


def _cure(key: str, fields: Mapping[str, Any]) -> str:
    if retired := RETIRED.get(re.sub("([A-Z])", "_\\1", key).lower()):
        return f"gone since Pachyderm 2; {retired}"
    if home := HOMES.get(key):
        return f"no such field here; it belongs in {home}"
    close = get_close_matches(key, fields, 1)
    return f"no such field; did you mean {close[0]}?" if close else "no such field; remove it"


def _field(types: Any, name: str, value: Any, report: tuple[str, Problems]) -> Any:
    """A field's value, be it a list, a map or single."""
    meta, (place, problems) = types.meta_by_field_name[name], report
    if types.default_gen[name] is list and isinstance(value, list):
        places = [(f"{place}[{index}]", problems) for index in range(len(value))]
        return [
            _value(meta, types.cls_by_field[name], *each)
            for each in zip(value, places, strict=True)
        ]
    if types.default_gen[name] is list:
        problems.append(f"{place}: must be a list")
    elif meta.proto_type != "map":
        return _value(meta, types.cls_by_field[name], value, report)
    elif not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        problems.append(f"{place}: must be an object of strings")
    return value


def _value(meta: Any, kind: Any, value: Any, report: tuple[str, Problems]) -> Any:
    place, problems = report
    proto_type = meta.wraps or meta.proto_type
    if proto_type == "message" and kind not in (timedelta, datetime):
        return _message(kind, value, place, problems)
    if proto_type.endswith(("int32", "int64")) and _matches(r"-?\d+", value):
        value = int(value)  # protojson takes both
    expected, fits = _expectation(proto_type, kind, value)
    if not fits:
        problems.append(f"{place}: must be {expected}, not {json.dumps(value)}")
    return value


def _expectation(proto_type: str, kind: Any, value: Any) -> tuple[str, bool]:
    """What the value should be, and whether it is."""
    if kind is timedelta:
        return 'a duration in seconds such as "1800s"', _matches(r"\d+(\.\d{1,9})?s", value)
    if proto_type == "enum":
        return f"one of {', '.join(kind.__members__)}", value in list(kind.__members__)
    if proto_type == "bool":
        return "true or false", isinstance(value, bool)
    if proto_type in ("float", "double"):
        return "a number", type(value) in (int, float)
    if proto_type.endswith(("int32", "int64")):
        low = 0 if proto_type.startswith("u") else -(2**63)
        return "a whole number", type(value) is int and low <= value < 2 ** int(proto_type[-2:])
    return "a string", isinstance(value, str)


def _matches(pattern: str, value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


# Rules: what the server refuses though every field has its type


def _rules(document: Mapping[str, Any]) -> Iterator[str]:
    if not _matches("[a-zA-Z0-9][a-zA-Z0-9_-]{0,50}", document.get("pipeline", {}).get("name")):
        yield "pipeline.name: give 1 to 51 letters, digits, _ or -, the first a letter or digit"
    for name in ("image", "cmd"):
        if not document.get("transform", {}).get(name):
            yield f"transform.{name}: missing; give it"
    sets = document.get("datum_set_spec", {"number": 1})
    if not any(sets.values()):
        yield "datum_set_spec: empty, and the server divides by zero; give per_worker or remove it"
    if sets.get("per_worker") and (sets.get("number") or sets.get("size_bytes")):
        yield "datum_set_spec: per_worker excludes number and size_bytes; keep one"
    for name in ("resource_requests", "sidecar_resource_requests", "sidecar_resource_limits"):
        if "gpu" in document.get(name, {}):
            yield f"{name}.gpu: the GPU belongs in resource_limits; move it there"
    yield from _service_rules(document)
    if "input" in document:
        yield from _input_rules(document["input"], "input")
        yield from _name_rules(document["input"], set())


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
    if service is not None and document.get("parallelism_spec", {}).get("constant", 1) != 1:
        yield "parallelism_spec.constant: a service has 1 worker; give 1"


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
        if (name := _name(leaf)) in {*taken, "out", ".env", ""}:
            yield f"input name {name!r}: taken or reserved; give this input another name"
        taken.add(name)
    for kind in COMBINATIONS:
        outside = set(taken)
        for branch in tree.get(kind, ()):
            names = set(outside) if kind == "union" else taken
            yield from _name_rules(branch, names)
            taken |= names
