"""The jsonnet template: the specs as they are, and what its arguments change of them."""

import json
from typing import Any

import _jsonnet  # type: ignore[import-untyped, unused-ignore]
import pytest

from tests.cluster.test_pipelines import NAMES, SHIPPED

TEMPLATE = SHIPPED / "capstan.jsonnet"


def render(**arguments: str) -> Any:
    return json.loads(_jsonnet.evaluate_file(str(TEMPLATE), tla_vars=arguments))


def shipped(name: str) -> Any:
    return json.loads((SHIPPED / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_without_arguments_it_is_the_shipped_spec(name: str) -> None:
    assert render(name=name) == shipped(name)


@pytest.mark.parametrize("name", NAMES)
def test_registry_tag_and_workers(name: str) -> None:
    expected = shipped(name)
    target = expected["transform"]["image"].removeprefix("capstan/").removesuffix(":0.1.0")
    expected["transform"]["image"] = f"registry.example/people/{target}:2.0.0"
    expected["parallelism_spec"] = {"constant": 30}
    rendered = render(name=name, registry="registry.example/people", tag="2.0.0", workers="30")
    assert rendered == expected


@pytest.mark.parametrize("name", NAMES)
def test_gpus(name: str) -> None:
    has_gpu = name in ("features", "model")
    mig = render(name=name, gpu="nvidia.com/mig-1g.10gb", gpus="2")["resource_limits"].get("gpu")
    assert mig == ({"type": "nvidia.com/mig-1g.10gb", "number": 2} if has_gpu else None)
    assert "gpu" not in render(name=name, gpus="0")["resource_limits"]


def test_a_name_that_is_none() -> None:
    with pytest.raises(RuntimeError, match="field does not exist: image"):
        render(name="image")
