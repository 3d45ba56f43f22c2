"""The jsonnet template: the specs as they are, and what its arguments change of them."""

import json
from pathlib import Path
from typing import Any

import _jsonnet  # type: ignore[import-untyped, unused-ignore]
import pytest

from capstan.deploy.specs.read import read_file
from tests.paths import PIPELINES

ALL = sorted(file.stem for file in PIPELINES.glob("*.json"))
TEMPLATE = PIPELINES / "capstan.jsonnet"


def render(**arguments: str) -> Any:
    return json.loads(_jsonnet.evaluate_file(str(TEMPLATE), tla_vars=arguments))


def shipped(name: str) -> Any:
    return json.loads((PIPELINES / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ALL)
def test_without_arguments_it_is_the_shipped_spec(name: str) -> None:
    assert render(name=name) == shipped(name)


@pytest.mark.parametrize("name", ALL)
def test_registry_tag_and_workers(name: str) -> None:
    expected = shipped(name)
    target = expected["transform"]["image"].removeprefix("capstan/").removesuffix(":0.1.0")
    expected["transform"]["image"] = f"registry.example/people/{target}:2.0.0"
    expected["parallelism_spec"] = {"constant": 30}
    rendered = render(name=name, registry="registry.example/people", tag="2.0.0", workers="30")
    assert rendered == expected


@pytest.mark.parametrize("name", ALL)
def test_gpus(name: str) -> None:
    has_gpu = name in ("features", "model")
    mig = render(name=name, gpu="nvidia.com/mig-1g.10gb", gpus="2")
    assert mig["resource_limits"].get("gpu") == (
        {"type": "nvidia.com/mig-1g.10gb", "number": 2} if has_gpu else None
    )
    assert ("tolerations" in mig) == has_gpu == ("-gpu:" in mig["transform"]["image"])
    none = render(name=name, gpus="0")
    assert "gpu" not in none["resource_limits"]
    assert "tolerations" not in none and "-gpu" not in none["transform"]["image"]


@pytest.mark.parametrize("name", ALL)
def test_nodes(name: str) -> None:
    rendered = render(name=name, nodes="cloud.example/pool=gpus,zone=a=b")
    labels = {"cloud.example/pool": "gpus", "zone": "a=b"}
    assert rendered == shipped(name) | {"scheduling_spec": {"node_selector": labels}}


def test_a_volume_for_the_service(tmp_path: Path) -> None:
    rendered = render(name="ingest-service", claim="ingest")
    data = rendered["transform"]["cmd"][8]
    assert data == "/data/ingest"
    patch = json.loads(rendered["pod_patch"])
    assert [change["path"] for change in patch] == ["/volumes/-", "/containers/0/volumeMounts/-"]
    assert patch[0]["value"]["persistentVolumeClaim"] == {"claimName": "ingest"}
    assert patch[0]["value"]["name"] == patch[1]["value"]["name"]
    assert data.startswith(patch[1]["value"]["mountPath"])
    (tmp_path / "spec.json").write_text(json.dumps(rendered))
    assert read_file(tmp_path / "spec.json")


def test_a_name_that_is_none() -> None:
    with pytest.raises(RuntimeError, match="field does not exist: image"):
        render(name="image")
