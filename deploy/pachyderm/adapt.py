"""Specs as flags want them: another registry, tag, number of workers, GPU or node.

What `capstan.jsonnet` beside the specs does for `pachctl`.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from capstan.errors import SettingError

if TYPE_CHECKING:
    from capstan.deploy.specs.read import Spec

CUDA = "-gpu"  # what names of images with CUDA end with
TAINT = "nvidia.com/gpu"  # of nodes that those who need no GPU are to keep off


@dataclass(frozen=True)
class SpecChanges:
    """What is to be otherwise than in the specs; None for what stays."""

    registry: str | None = None
    tag: str | None = None
    workers: Mapping[str, int] = field(default_factory=dict)  # by pipeline
    gpu: str | None = None  # nvidia.com/gpu, nvidia.com/mig-1g.10gb...
    gpus: int | None = None  # for each worker that has any
    gpu_nodes: Mapping[str, str] = field(default_factory=dict)  # labels


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `changes` reads."""
    group = parser.add_argument_group("changes to the specs")
    group.add_argument("--registry", metavar="HOST/PATH", help="where images are, before /NAME:TAG")
    group.add_argument("--tag", help="of all images")
    group.add_argument(
        "--workers", action="append", default=[], metavar="PIPELINE=N", help="of a pipeline"
    )
    group.add_argument("--gpu", metavar="RESOURCE", help="such as nvidia.com/mig-1g.10gb")
    group.add_argument(
        "--gpus",
        type=int,
        metavar="N",
        help="GPUs of each worker that has any; 0 for none, and for images without CUDA",
    )
    group.add_argument(
        "--gpu-node",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="label of the nodes that workers with GPUs may run on",
    )


def changes(arguments: argparse.Namespace) -> SpecChanges:
    """What the flags say; SettingError for what cannot be."""
    if arguments.gpus is not None and arguments.gpus < 0:
        raise SettingError(f"--gpus {arguments.gpus}: give 0 or more")
    return SpecChanges(
        arguments.registry.rstrip("/") if arguments.registry else None,
        arguments.tag,
        {name: _number(name, text) for name, text in _pairs("--workers", arguments.workers)},
        arguments.gpu,
        arguments.gpus,
        dict(_pairs("--gpu-node", arguments.gpu_node)),
    )


def _pairs(flag: str, words: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for word in words:
        name, _, value = word.partition("=")
        if not (name and value):
            raise SettingError(f"{flag} {word}: give NAME=VALUE")
        pairs.append((name, value))
    return pairs


def _number(name: str, text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise SettingError(f"--workers {name}={text}: give a number of workers, at least 1")
    return int(text)


def adapt(specs: Sequence["Spec"], wanted: SpecChanges) -> list["Spec"]:
    """The specs so changed; SettingError if a pipeline that is named is not among them."""
    names = {spec.name for spec in specs}
    if unknown := [name for name in wanted.workers if name not in names]:
        raise SettingError(
            f"--workers {unknown[0]}: no such pipeline; there are {', '.join(sorted(names))}"
        )
    return [replace(spec, document=_adapted(spec.document, wanted)) for spec in specs]


def _adapted(document: Mapping[str, Any], wanted: SpecChanges) -> dict[str, Any]:
    result = dict(document)
    image, limits = document["transform"]["image"], document.get("resource_limits", {})
    if "gpu" in limits and wanted.gpus == 0:
        image = image.replace(f"{CUDA}:", ":")
        result["resource_limits"] = {name: limits[name] for name in limits if name != "gpu"}
        result |= _untolerant(result.pop("tolerations", ()))
    elif "gpu" in limits:
        result |= _on_gpus(document, wanted)
    result["transform"] = document["transform"] | {"image": _image(image, wanted)}
    if number := wanted.workers.get(document["pipeline"]["name"]):
        result["parallelism_spec"] = {"constant": number}
    return result


def _untolerant(tolerations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    others = [each for each in tolerations if each.get("key") != TAINT]
    return {"tolerations": others} if others else {}


def _on_gpus(document: Mapping[str, Any], wanted: SpecChanges) -> dict[str, Any]:
    limits, scheduling = document["resource_limits"], document.get("scheduling_spec", {})
    given = {"type": wanted.gpu, "number": wanted.gpus}
    gpu = limits["gpu"] | {name: value for name, value in given.items() if value is not None}
    result: dict[str, Any] = {"resource_limits": limits | {"gpu": gpu}}
    if wanted.gpu_nodes:
        labels = scheduling.get("node_selector", {}) | wanted.gpu_nodes
        result["scheduling_spec"] = scheduling | {"node_selector": labels}
    return result


def _image(image: str, wanted: SpecChanges) -> str:
    """`registry/name:tag` with what is wanted in place of its own."""
    registry, _, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    registry = registry if wanted.registry is None else wanted.registry
    tag = wanted.tag or tag
    return (f"{registry}/" if registry else "") + name + (f":{tag}" if tag else "")
