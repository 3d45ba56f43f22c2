"""The images built, and run as a careful cluster would, if asked for.

    CAPSTAN_TEST_DOCKER_BASE=python:3.12-slim-bookworm pytest tests/deploy/test_containers.py

takes gigabytes and minutes. CAPSTAN_TEST_DOCKER_FLAGS holds further flags of `docker build`.
"""

import json
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.paths import ROOT

BASE = os.environ.get("CAPSTAN_TEST_DOCKER_BASE")
INGEST_BYTES = 250_000_000


def docker(*words: str | Path) -> str:
    """What a docker command wrote."""
    environment = os.environ | {"DOCKER_BUILDKIT": "1"}
    done = subprocess.run(
        ["docker", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """The images of the five pipelines, built; name to id."""
    if BASE is None:
        pytest.skip("builds images; CAPSTAN_TEST_DOCKER_BASE=IMAGE asks for it")
    flags = shlex.split(os.environ.get("CAPSTAN_TEST_DOCKER_FLAGS", ""))
    file = ["--file", "deploy/docker/Dockerfile", "--build-arg", f"BASE={BASE}", "--quiet"]
    return {
        target: docker("build", *flags, *file, "--target", target, ".").strip()
        for target in ("ingest", "featurize", "train")
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a web server with 24 pictures, 0.jpg and on."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(24):
        Image.new("RGB", (300, 280), (number * 10, 90, 40)).save(folder / f"{number}.jpg")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


# Any user, nothing writable but /tmp and what is mounted, no capability.
SAFE = ["--read-only", "--user=1000", "--tmpfs=/tmp", "--cap-drop=ALL"]
SAFE += ["--security-opt=no-new-privileges"]


def run_datum(
    pfs: Path, images: dict[str, str], name: str, inputs: dict[str, str], *more: str
) -> None:
    """Run a pipeline's own command in its image, its inputs (name under /pfs: folder) read-only."""
    transform: Any = json.loads((ROOT / f"deploy/pipelines/{name}.json").read_text())["transform"]
    target = transform["image"].removeprefix("capstan/").partition(":")[0].removesuffix("-gpu")
    command = [word for word in transform["cmd"] if word != "--datum-batching"]  # needs a worker
    environment = [word for item in transform["env"].items() for word in ("--env", "=".join(item))]
    output = pfs / name
    output.mkdir()
    output.chmod(0o777)
    mounts = [f"--volume={pfs / folder}:/pfs/{target}:ro" for target, folder in inputs.items()]
    mounts.append(f"--volume={output}:/pfs/out")
    network = "--network=host" if name == "images" else "--network=none"
    docker("run", "--rm", *SAFE, network, *mounts, *environment, images[target], *command, *more)


@pytest.fixture(scope="module")
def pfs(tmp_path_factory: pytest.TempPathFactory, images: dict[str, str], pictures: str) -> Path:
    """What a datum of every pipeline made, in folders named for the repos."""
    pfs = tmp_path_factory.mktemp("pfs")
    chunk = pfs / "rawdata" / "cc.tsv" / "0000000000000000"
    chunk.parent.mkdir(parents=True)
    chunk.write_text("".join(f"number {n % 5} of all\t{pictures}/{n}.jpg\n" for n in range(24)))
    (pfs / "inpredict").mkdir()
    Image.new("RGB", (300, 280), (90, 90, 40)).save(pfs / "inpredict" / "image.png")
    run = partial(run_datum, pfs, images)

    run("images", {"rawdata": "rawdata"}, "--allow-private")
    run("features", {"images": "images"}, "--weights", "random:0")
    run("consolidate", {"rawdata": "rawdata", "features": "features", "vectors": "features"})
    run("model", {"consolidate": "consolidate", "vectors": "features"}, "--epochs", "1")
    run("predict", {"model": "model", "inpredict": "inpredict"})
    return pfs


def test_a_datum_of_every_pipeline(pfs: Path) -> None:
    stats = json.loads((pfs / "images/cc.tsv/0000000000000000_stats.json").read_text())
    assert stats["images"] == 24
    assert (pfs / "predict" / "image.png.txt").is_file()


def first_health(name: str) -> str:
    """The first thing that Docker says of a container's health, or that it ended."""
    events = ["--filter=event=health_status", "--filter=event=die", f"--filter=container={name}"]
    command = ["docker", "events", "--since=10m", "--format={{.Status}}", *events]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        said = watching.stdout.readline().strip()
        watching.kill()
    return said


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("train", "capstan serve --model /pfs/model/saved --port 8123"),
        ("ingest", "capstan ingest serve --host 0.0.0.0 --port=8124 --data /tmp/data --token t"),
    ],
)
def test_what_serves_says_that_it_is_healthy(
    target: str, command: str, images: dict[str, str], pfs: Path
) -> None:
    flags = ["--network=none", "--health-interval=1s", "--health-start-period=120s"]
    flags.append(f"--volume={pfs / 'model'}:/pfs/model:ro")
    name = docker("run", "--detach", *SAFE, *flags, images[target], *command.split()).strip()
    try:
        assert first_health(name) == "health_status: healthy", docker("logs", name)
    finally:
        docker("rm", "--force", name)


def test_ingest_is_small_and_has_no_tensorflow(images: dict[str, str]) -> None:
    assert BASE is not None
    sizes = [
        docker("image", "inspect", "--format={{.Size}}", image)
        for image in (images["ingest"], BASE)
    ]
    assert int(sizes[0]) - int(sizes[1]) <= INGEST_BYTES
    find = "import importlib.util as u; assert u.find_spec('tensorflow') is None"
    docker("run", "--rm", "--read-only", "--user=1000", images["ingest"], "python", "-c", find)
