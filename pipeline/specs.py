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
from typing import Any

from pachyderm_sdk.api import pps

from pipeline.errors import SettingError

COMBINATIONS = ("join", "cross", "union", "group")
DEFAULT_TRIES = 3  # the server's, as are all defaults below
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,50}")
DURATION = re.compile(r"\d+(\.\d{1,9})?s")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kKMGTPE]i?)?")
EXPECTED = {"string": "a string", "bool": "true or false", "bytes": "a base64 string"}
RETIRED = {
    "CreatePipelineRequest.atom": "use input.pfs",
    "CreatePipelineRequest.batch": "remove it",
    "CreatePipelineRequest.build": "build and push the image, and name it in transform.image",
    "CreatePipelineRequest.cache_size": "size the sidecar with sidecar_resource_requests.memory",
    "CreatePipelineRequest.chunk_spec": "use datum_set_spec",
    "CreatePipelineRequest.enable_stats": "remove it, statistics are always kept",
    "CreatePipelineRequest.hashtree_spec": "remove it",
    "CreatePipelineRequest.incremental": "remove it, unchanged datums are always skipped",
    "CreatePipelineRequest.inputs": "use input",
    "CreatePipelineRequest.max_queue_size": "remove it",
    "CreatePipelineRequest.scale_down_threshold": 'use "autoscaling": true',
    "CreatePipelineRequest.standby": 'use "autoscaling": true',
    "Input.atom": "use pfs",
    "Input.git": "use pfs, with a program that loads the repo",
    "ParallelismSpec.coefficient": "use constant, a number of workers",
    "ParallelismSpec.strategy": "use constant, a number of workers",
    "PfsInput.from_commit": "remove it",
    "Spout.marker": "remove it, and keep state in the output repo",
    "Spout.overwrite": "remove it, and let the program overwrite",
    "Transform.build": "build and push the image, and name it in transform.image",
}


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
    """A pipeline. `document` is all that its file says, in snake_case."""

    file: Path
    name: str
    image: str
    command: tuple[str, ...]
    stdin: tuple[str, ...]
    env: Mapping[str, str]
    working_dir: str
    accepted: frozenset[int]  # exit statuses that count as success
    input: Input | None  # None when nothing here could feed it: cron, spout
    forever: bool  # a spout or a service
    parallelism: int
    tries: int
    timeout: float | None  # seconds for one try of one datum
    document: Mapping[str, Any] = field(repr=False)

    @property
    def repos(self) -> tuple[str, ...]:
        """Names of the repos it reads, each once."""
        return tuple(dict.fromkeys(pfs.repo for pfs in leaves(self.input)))


def leaves(tree: Input | None) -> Iterator[Pfs]:
    """The repo inputs below an input, in order."""
    if isinstance(tree, Pfs):
        yield tree
    elif tree is not None:
        for branch in tree.inputs:
            yield from leaves(branch)


def read_specs(directory: Path) -> list[Spec]:
    """Read all `*.json` of a folder; SettingError names the file, the fields and the cures."""
    files = sorted(directory.glob("*.json"))
    if not files:
        raise SettingError(f"{directory}: no pipeline specs (*.json) there; give their folder")
    specs: dict[str, Spec] = {}
    for spec in (spec for file in files for spec in read_spec_file(file)):
        if spec.name in specs:
            raise SettingError(
                f"{spec.file}: pipeline.name: {spec.name} is already in {specs[spec.name].file}; "
                "rename one"
            )
        specs[spec.name] = spec
    return list(specs.values())


def read_spec_file(file: Path) -> list[Spec]:
    """Read one spec, or a list of them, as `pachctl create pipeline -f` does."""
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=_object)
    except ValueError as error:
        raise SettingError(f"{file}: not JSON ({error}); mend it") from error
    return [_spec(file, document) for document in (content if isinstance(content, list) else [content])]


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    twice = {name for name, _ in pairs if [key for key, _ in pairs].count(name) > 1}
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))} given twice")
    return dict(pairs)


def _spec(file: Path, content: Any) -> Spec:
    problems: list[str] = []
    document = _message(pps.CreatePipelineRequest, content, "", problems)
    if not problems:
        problems += _rules(document)
    if problems:
        raise SettingError(f"{file}: {'; '.join(problems)}")
    transform = document["transform"]
    timeout = document.get("datum_timeout")
    return Spec(
        file=file,
        name=document["pipeline"]["name"],
        image=transform["image"],
        command=tuple(transform["cmd"]),
        stdin=tuple(transform.get("stdin", ())),
        env=transform.get("env", {}),
        working_dir=transform.get("working_dir", ""),
        accepted=frozenset({0, *transform.get("accept_return_code", ())}),
        input=_input(document.get("input", {})),
        forever="spout" in document or "service" in document,
        parallelism=document.get("parallelism_spec", {}).get("constant") or 1,
        tries=document.get("datum_tries") or DEFAULT_TRIES,
        timeout=float(timeout[:-1]) if timeout else None,
        document=document,
    )


# Shape: names and types of all fields


def _message(kind: Any, value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    """The object with its names in snake_case; all that does not fit goes to `problems`."""
    fields = kind()._betterproto.meta_by_field_name
    if not isinstance(value, dict):
        problems.append(f"{where or 'the spec'}: must be an object of {', '.join(fields)}")
        return {}
    names = {name: name for name in fields} | {_camel(name): name for name in fields}
    result: dict[str, Any] = {}
    for key, item in value.items():
        place = f"{where}.{key}".lstrip(".")
        name = names.get(key)
        if name is None:
            if place != "$schema":  # editors add it and the server drops it
                problems.append(f"{place}: {_cure(kind, key, fields)}")
        elif name in result:
            problems.append(f"{place}: given twice, in snake_case and in camelCase; keep one")
        elif item is not None:  # null is the same as absent
            result[name] = _field(kind, name, item, (place, problems))
    return result


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _cure(kind: Any, key: str, fields: Mapping[str, Any]) -> str:
    if retired := RETIRED.get(f"{kind.__name__}.{re.sub('([A-Z])', r'_\1', key).lower()}"):
        return f"gone since Pachyderm 2; {retired}"
    close = get_close_matches(key, fields, 1)
    return f"no such field; did you mean {close[0]}?" if close else "no such field; remove it"


def _field(kind: Any, name: str, value: Any, report: tuple[str, list[str]]) -> Any:
    """A field's value: repeated, map or single."""
    types = kind()._betterproto
    meta, (place, problems) = types.meta_by_field_name[name], report
    if meta.proto_type == "map":
        if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
            return value
        problems.append(f"{place}: must be an object of strings")
        return {}
    if types.default_gen[name] is not list:
        return _value(meta, types.default_gen[name], value, report)
    if not isinstance(value, list):
        problems.append(f"{place}: must be a list")
        return []
    single = types.cls_by_field[name]
    return [
        _value(meta, single, item, (f"{place}[{index}]", problems))
        for index, item in enumerate(value)
    ]


def _value(meta: Any, kind: Any, value: Any, report: tuple[str, list[str]]) -> Any:
    place, problems = report
    proto_type = meta.wraps or meta.proto_type
    if proto_type == "message" and kind not in (timedelta, datetime):
        return _message(kind, value, place, problems)
    if isinstance(value, str) and proto_type.endswith(("int32", "int64")):
        value = int(value) if re.fullmatch(r"-?\d+", value) else value  # protojson takes both
    expected = _expected(proto_type, kind, value)
    if expected is not None:
        problems.append(f"{place}: must be {expected}, not {json.dumps(value)}")
    return value


def _expected(proto_type: str, kind: Any, value: Any) -> str | None:
    """What the value should have been, None when it fits."""
    if kind is timedelta:
        fits, expected = _matches(DURATION, value), 'a duration in seconds such as "1800s"'
    elif kind is datetime:
        fits, expected = isinstance(value, str), "a time such as 2026-01-31T00:00:00Z"
    elif proto_type == "enum":
        fits, expected = value in kind.__members__, f"one of {', '.join(kind.__members__)}"
    elif proto_type in EXPECTED:
        fits = isinstance(value, bool if proto_type == "bool" else str)
        expected = EXPECTED[proto_type]
    elif proto_type in ("float", "double"):
        fits, expected = type(value) in (int, float), "a number"
    else:
        bits, low = int(proto_type[-2:]), 0 if proto_type.startswith("u") else -1
        fits = type(value) is int and low * 2 ** (bits - 1) <= value < 2 ** (bits + low)
        expected = f"a whole number{' from 0' if low == 0 else ''}"
    return None if fits else expected


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


# Rules: what the server refuses though the fields are right


def _rules(document: Mapping[str, Any]) -> Iterator[str]:
    if not _matches(NAME, document.get("pipeline", {}).get("name", "")):
        yield (
            "pipeline.name: give one of letters, digits, _ and -, that starts with a letter or "
            "digit and has at most 51 characters"
        )
    transform = document.get("transform", {})
    yield from (f"transform.{name}: missing; give it" for name in ("image", "cmd") if not transform.get(name))
    sets = document.get("datum_set_spec")
    if sets is not None and not any(sets.values()):
        yield "datum_set_spec: empty, and the server divides by zero; give per_worker or remove it"
    if sets and sets.get("per_worker") and (sets.get("number") or sets.get("size_bytes")):
        yield "datum_set_spec: per_worker is ignored beside number or size_bytes; keep one"
    yield from _kind_rules(document)
    yield from _resource_rules(document)
    if document.get("input") is not None:
        yield from _input_rules(document["input"], "input")
        yield from _name_rules(document["input"])


def _kind_rules(document: Mapping[str, Any]) -> Iterator[str]:
    spout = document.get("spout")
    if "tf_job" in document:
        yield "tf_job: the server supports none; use transform"
    if spout is None and "input" not in document:
        yield "input: missing; give one of pfs, join, cross, union, group, cron"
    if spout is not None and "service" not in spout and "input" in document:
        yield "input: a spout without a service has none; remove it"
    if spout is not None and document.get("autoscaling"):
        yield "autoscaling: a spout cannot have it; remove it"
    if document.get("s3_out") and (spout is not None or "service" in document):
        yield "s3_out: a spout or service cannot have it; remove it"
    if document.get("parallelism_spec", {}).get("constant", 1) != 1 and "service" in document:
        yield "parallelism_spec.constant: a service has 1"
    if document.get("reprocess_spec", "every_job") not in ("until_success", "every_job"):
        yield "reprocess_spec: must be until_success or every_job"


def _resource_rules(document: Mapping[str, Any]) -> Iterator[str]:
    for name in ("resource_requests", "resource_limits", "sidecar_resource_requests", "sidecar_resource_limits"):
        resources = document.get(name, {})
        for key in ("memory", "disk"):
            if not _matches(QUANTITY, resources.get(key, "1")):
                yield f"{name}.{key}: {resources[key]} is no quantity; write it as 512Mi or 8Gi"
        if "gpu" in resources and name != "resource_limits":
            yield f"{name}.gpu: Kubernetes wants it in resource_limits; move it there"


def _input_rules(tree: Mapping[str, Any], where: str, parent: str = "") -> Iterator[str]:
    if len(tree) != 1:
        found = ", ".join(tree) or "none"
        yield f"{where}: give exactly one of pfs, join, cross, union, group, cron, not {found}"
    for kind in COMBINATIONS:
        for index, branch in enumerate(tree.get(kind, ())):
            nested = kind if kind in ("join", "group") else parent
            yield from _input_rules(branch, f"{where}.{kind}[{index}]", nested)
        if kind in tree and not tree[kind]:
            yield f"{where}.{kind}: empty; give it inputs"
    if "pfs" in tree:
        yield from _pfs_rules(tree["pfs"], f"{where}.pfs", parent)


def _pfs_rules(pfs: Mapping[str, Any], where: str, parent: str) -> Iterator[str]:
    for name in ("repo", "glob"):
        if not pfs.get(name):
            yield f"{where}.{name}: missing; give it"
    if not pfs.get("glob", "/").startswith("/"):
        yield f"{where}.glob: must start with /"
    for kind, name in (("join", "join_on"), ("group", "group_by")):
        if parent == kind and not pfs.get(name):
            yield f'{where}.{name}: missing; give what to {kind} on, such as "$1"'
    if pfs.get("commit"):
        yield f"{where}.commit: inputs follow a branch; remove it"
    if pfs.get("s3") and (pfs.get("glob") != "/" or pfs.get("lazy") or pfs.get("empty_files")):
        yield f'{where}.s3: wants glob "/" and neither lazy nor empty_files'


def _name_rules(tree: Mapping[str, Any], taken: frozenset[str] = frozenset()) -> Iterator[str]: ...


def _input(tree: Mapping[str, Any]) -> Input | None: ...
