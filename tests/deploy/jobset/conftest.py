"""A cluster, its API server, and `capstan launch` as a process that speaks with it."""

import base64
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
import yaml

from capstan.deploy.jobset.jobset import Json, container_of
from tests.deploy.jobset.api_server import NAMESPACE, ApiServer
from tests.deploy.jobset.local_cluster import JOBSETS, Cluster
from tests.paths import ROOT

MANIFESTS = ROOT / "deploy" / "kubernetes"
SILENT = 0.2  # seconds of a watch without news


def role_rules() -> list[dict[str, list[str]]]:
    """What the launcher's Role grants."""
    documents = yaml.safe_load_all((MANIFESTS / "base/training/launcher.yaml").read_text())
    (rules,) = [each["rules"] for each in documents if each["kind"] == "Role"]
    return list(rules)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def server(cluster: Cluster, context: ssl.SSLContext) -> Iterator[ApiServer]:
    server = ApiServer(cluster, context)
    server.rules = role_rules()
    yield server
    server.stop()


@pytest.fixture
def kubeconfig(
    server: ApiServer, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A kubeconfig for the server, which KUBECONFIG names."""
    certificate = base64.b64encode(authority.cert_pem.bytes()).decode()
    address = f"https://127.0.0.1:{server.server_port}"
    config = {
        "current-context": "test",
        "contexts": [
            {
                "name": "test",
                "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE},
            }
        ],
        "clusters": [
            {
                "name": "test",
                "cluster": {"server": address, "certificate-authority-data": certificate},
            }
        ],
        "users": [{"name": "test", "user": {"token": "token"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


class Launcher:
    """Starts `capstan launch` with a volume, an input and an output of this test."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.volume, self.input = folder / "volume", folder / "input"
        self.output, self.template = folder / "output", folder / "jobset.yaml"
        self._cluster = cluster
        self.volume.mkdir()
        self.input.mkdir()
        (self.input / "shard.parquet").write_bytes(b"rows")
        jobset = yaml.safe_load((MANIFESTS / "base/jobset/jobset.yaml").read_text())
        for mount in container_of(jobset)["volumeMounts"]:
            if mount["name"] == "training":
                mount["mountPath"] = str(self.volume)
        self.write(jobset)

    def write(self, template: Json) -> None:
        self.template.write_text(yaml.safe_dump(template))

    def read(self) -> Json:
        """The template."""
        template: Json = yaml.safe_load(self.template.read_text())
        return template

    def flags(self, *more: str) -> list[str]:
        paths = {"input": self.input, "output": self.output}
        paths |= {"volume": self.volume, "template": self.template}
        return [*(f"--{name}={path}" for name, path in paths.items()), *more]

    @contextmanager
    def run(self, *command: str, flags: tuple[str, ...] = ()) -> Iterator["Process"]:
        """The launcher of JobSet `job`, over a worker's command."""
        words = ["launch", *self.flags("--name=job", "--patience=30", *flags), "--", *command]
        environment = {each: os.environ[each] for each in os.environ if each != "PACH_JOB_ID"}
        with subprocess.Popen(
            [sys.executable, "-m", "capstan.cli", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as process:
            try:
                yield Process(process)
            finally:
                process.kill()


class Process:
    """A launcher that runs, and what it has said."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.said: list[str] = []

    def until(self, text: str) -> str:
        """The line in which it says so."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {''.join(self.said)}")

    def end(self) -> int:
        """Its exit status, once it has ended; all it said is known then."""
        assert self._process.stderr is not None
        self.said += self._process.stderr
        return self._process.wait(60)

    def send(self, number: signal.Signals) -> None:
        """As Pachyderm does: to all of its process group."""
        os.killpg(self._process.pid, number)

    @property
    def error(self) -> str:
        """Its last line."""
        return self.said[-1]

    @property
    def log(self) -> str:
        return "".join(self.said)


@pytest.fixture
def launcher(tmp_path: Path, cluster: Cluster, kubeconfig: Path) -> Launcher:
    return Launcher(tmp_path, cluster)


def is_gone(cluster: Cluster, name: str = "job") -> bool:
    """Whether nothing of a JobSet is left."""
    return cluster.get(JOBSETS, name) is None and not cluster.pods_of(name)
