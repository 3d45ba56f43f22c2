"""Reads pipeline specs as strictly as the Pachyderm server does, and says what to mend."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import normpath
from typing import Any

from capstan.deploy.specs.fields import read_fields
from capstan.deploy.specs.rules import COMBINATIONS, broken_rules, input_name
from capstan.errors import SettingError


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
    recovery: tuple[str, ...]  # err_cmd: if it succeeds, a datum that failed does not fail the job
    recovery_stdin: tuple[str, ...]
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
    """Read all `*.json` of a folder; SettingError names each file, its fields and the cures."""
    specs: list[Spec] = []
    refused: list[str] = []
    for file in sorted(directory.glob("*.json")):
        try:
            specs += read_file(file)
        except SettingError as error:
            refused.append(str(error))
    refused += _twins(specs)
    if refused:
        raise SettingError("; ".join(refused))
    if not specs:
        raise SettingError(f"{directory}: no pipeline specs (*.json) there; give their folder")
    return specs


def _twins(specs: Sequence[Spec]) -> Iterator[str]:
    first: dict[str, Spec] = {}
    for spec in specs:
        if (twin := first.setdefault(spec.name, spec)) is not spec:
            yield f"{spec.file}: {spec.name} is in {twin.file} already; rename one"


def read_file(file: Path) -> list[Spec]:
    """Read one spec, or a list of them, as `pachctl create pipeline -f` does."""
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=_object)
    except ValueError as error:
        raise SettingError(f"{file}: not JSON ({error}); mend it") from error
    return [_spec(file, each) for each in (content if isinstance(content, list) else [content])]


def normal(content: Any) -> dict[str, Any]:
    """A spec with its names in snake_case, less what this version of the SDK does not know."""
    return read_fields(content)[0]


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} given twice")
    return dict(pairs)


def _spec(file: Path, content: Any) -> Spec:
    document, problems = read_fields(content)
    problems = problems or list(broken_rules(document))
    if problems:
        raise SettingError(f"{file}: {'; '.join(problems)}")
    transform, timeout = document["transform"], document.get("datum_timeout")
    return Spec(
        file=file,
        name=document["pipeline"]["name"],
        command=tuple(transform["cmd"]),
        stdin=tuple(transform.get("stdin", ())),
        recovery=tuple(transform.get("err_cmd", ())),
        recovery_stdin=tuple(transform.get("err_stdin", ())),
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
    return Pfs(input_name(value), value["repo"], normpath("/" + value["glob"].strip("/")), **given)
