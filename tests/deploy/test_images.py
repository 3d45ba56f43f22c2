"""The images: what Dockerfile, locks, compose file, pipelines and setup.cfg promise each other."""

import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from capstan import __version__
from capstan.ingest.service.config import ServiceSettings
from tests.paths import ROOT
from tests.requirements import requirements

IMAGES = ROOT / "deploy" / "docker"
LOCKS = {path.name: path for path in (IMAGES / "locks").glob("*.txt")}
LOCKS["requirements-dev.txt"] = ROOT / "requirements-dev.txt"
DEPLOYED = sorted(
    path
    for folder in ("pipelines", "kubernetes")
    for path in (ROOT / "deploy" / folder).rglob("*")
    if path.suffix in {".json", ".yaml"} and re.search(r"\bimage\"?:", path.read_text())
)
STAGES = re.findall(r"^FROM (\S+) AS (\S+)$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
FINAL = {"ingest", "featurize", "train", "featurize-gpu", "train-gpu"}


def locked(file: Path) -> dict[str, list[str]]:
    """Versions by library; several where Pythons differ."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", file.read_text(), re.MULTILINE):
        versions.setdefault(name, []).append(version)
    return versions


def extras_of_locks() -> dict[str, list[str]]:
    """The extras that lock.sh gives each lock file."""
    script = (IMAGES / "lock.sh").read_text().replace("\\\n", "")
    calls = re.findall(r"^lock (?:\$locks/)?(\S+\.txt) (.*)$", script, re.MULTILINE)
    return {file: re.findall(r"--extra (\S+)", flags) for file, flags in calls}


@pytest.mark.parametrize("file", DEPLOYED, ids=lambda file: file.stem)
def test_every_image_that_is_deployed_is_a_target_of_this_version(file: Path) -> None:
    images = re.findall(r"\bcapstan/([\w-]+):([\w.-]+)", file.read_text())
    assert images
    assert {name for name, _ in images} <= FINAL
    assert {tag for _, tag in images} <= {__version__}


def test_every_pipeline_of_the_template_has_its_image() -> None:
    template = (ROOT / "deploy" / "pipelines" / "capstan.jsonnet").read_text()
    named = re.findall(r"\"image\": (\w*image)\('([\w-]+)'\)", template)
    assert named
    assert {name for _, name in named} <= FINAL
    assert {f"{name}-gpu" for kind, name in named if kind == "gpu_image"} <= FINAL


def test_the_version_is_capstans() -> None:
    version = re.search(r"^ARG VERSION=(\S+)$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    assert version is not None
    assert version[1] == __version__


@pytest.mark.parametrize("target", sorted(FINAL))
def test_images_run_as_nobody_in_particular(target: str) -> None:
    parents = {name: parent for parent, name in STAGES}
    parent = parents[target]
    while parents.get(parent) is not None and parent != "runtime":
        parent = parents[parent]
    assert parent == "runtime"
    runtime = (IMAGES / "Dockerfile").read_text().partition(" AS runtime\n")[2]
    user = re.search(r"^USER (\d+):(\d+)$", runtime.partition("\nFROM ")[0], re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_locks_pin_every_library_by_hash(name: str) -> None:
    text = re.sub(r"^ *#.*\n", "", LOCKS[name].read_text(), flags=re.MULTILINE).replace("\\\n", "")
    for line in text.splitlines():
        assert re.fullmatch(r"[\w.-]+==\S+( ; [^\\]+?)?\s+(--hash=sha256:[0-9a-f]{64}\s*)+", line)


@pytest.mark.parametrize("name", sorted(LOCKS.keys() - {"build.txt"}))
def test_locks_have_what_setup_cfg_asks_for(name: str) -> None:
    versions = locked(LOCKS[name])
    extras = extras_of_locks()[name]
    assert extras
    for extra in extras:
        for wanted in requirements(extra):
            assert versions.get(wanted.name), f"{wanted.name}: run deploy/docker/lock.sh"
            assert all(wanted.specifier.contains(version) for version in versions[wanted.name])


def test_ingest_has_no_tensorflow_and_gpus_differ_by_cuda_alone() -> None:
    ingest, cpu, gpu = (
        locked(IMAGES / "locks" / f"{name}.txt")
        for name in ("ingest", "tensorflow", "tensorflow-gpu")
    )
    assert not {"tensorflow", "keras"} & set(ingest)
    assert {name: gpu[name] for name in cpu} == cpu
    assert all(name.startswith("nvidia-") for name in set(gpu) - set(cpu))


def compose() -> Any:
    """docker-compose.yml, read."""
    return yaml.safe_load((IMAGES / "docker-compose.yml").read_text())


def test_compose_names_targets_and_files_that_exist() -> None:
    services, volumes = compose()["services"], compose()["volumes"]
    assert set(services) == {"ingest", "prometheus", "tensorboard"}
    for service in services.values():
        assert service["read_only"] is True
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in volumes or source.startswith("${") or (IMAGES / source).is_file()
    for service in (services["ingest"], services["tensorboard"]):
        target = service["build"]["target"]
        assert target in FINAL
        assert (IMAGES / service["build"]["context"]).resolve() == ROOT
        assert (
            service["image"]
            == f"${{CAPSTAN_REGISTRY:-capstan}}/{target}:${{CAPSTAN_TAG:-{__version__}}}"
        )


def test_the_service_knows_the_flags_that_compose_gives_it() -> None:
    command = compose()["services"]["ingest"]["command"]
    assert command[:3] == ["capstan", "ingest", "serve"]
    parser = ArgumentParser(exit_on_error=False)
    ServiceSettings.configure(parser)
    parser.parse_args(command[3:])


def test_prometheus_scrapes_the_ingestion_service_with_its_token() -> None:
    services = compose()["services"]
    prometheus = yaml.safe_load((IMAGES / "prometheus.yml").read_text())
    assert set(prometheus) == {"global", "scrape_configs"}  # it refuses keys that it does not know
    (job,) = prometheus["scrape_configs"]
    assert set(job) == {"job_name", "authorization", "static_configs"}
    command = services["ingest"]["command"]
    port = command[command.index("--port") + 1]
    assert job["static_configs"] == [{"targets": [f"ingest:{port}"]}]
    assert job["authorization"] == {"credentials_file": "/run/secrets/token"}
    assert services["prometheus"]["secrets"] == services["ingest"]["secrets"] == ["token"]
