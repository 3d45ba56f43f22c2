"""Pipeline specs put beside what a server has: in which order, and what differs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from capstan.deploy.pachyderm.order import in_order
from capstan.deploy.specs.read import Spec, leaves, normal
from capstan.pachyderm.server import Pipeline


@dataclass(frozen=True)
class PipelineUpdate:
    """A pipeline to make or update: what to send, and the difference it makes."""

    name: str
    json: str
    new: bool
    diff: str  # empty if there is nothing to do


def reads(specs: Sequence[Spec]) -> dict[str, Iterable[str]]:
    """The repos that each spec reads."""
    return {spec.name: [leaf.repo for leaf in leaves(spec.input)] for spec in specs}


def input_repos(specs: Sequence[Spec]) -> list[str]:
    """The repos that are read and that no pipeline makes."""
    inputs = reads(specs)
    return sorted({repo for repos in inputs.values() for repo in repos} - set(inputs))


def steps(specs: Sequence[Spec], present: Sequence[Pipeline], project: str) -> list[PipelineUpdate]:
    """What to do for the server to have these specs, in order."""
    by_name, known = {spec.name: spec for spec in specs}, {each.name: each for each in present}
    return [_step(by_name[name], known.get(name), project) for name in in_order(reads(specs))]


def _step(spec: Spec, present: Pipeline | None, project: str) -> PipelineUpdate:
    wanted = _in_project(spec.document, project)
    found = _in_project(normal(json.loads(present.spec or "{}")), project) if present else {}
    diff = unified_diff(
        _lines(found), _lines(wanted), f"{spec.name} as it is", f"{spec.name} of {spec.file}"
    )
    return PipelineUpdate(spec.name, json.dumps(wanted), present is None, "".join(diff))


def _in_project(document: Any, project: str) -> dict[str, Any]:
    """The spec with its project named; without what only says how it was sent."""
    kept = {key: value for key, value in document.items() if key not in ("update", "reprocess")}
    return kept | {"pipeline": {**document.get("pipeline", {}), "project": {"name": project}}}


def _lines(document: dict[str, Any]) -> list[str]:
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    return text.splitlines(keepends=True) if document else []
