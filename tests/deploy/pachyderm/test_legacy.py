"""The same commands through `python-pachyderm`, in an environment of its own without the SDK.

What is fetched and captioned is what the SDK's client gets; only the process is another.
"""

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from capstan.chunks import cut
from capstan.testing.pachd import Pachd
from tests.deploy.pachyderm.test_files import MODEL, files, pictures, predicting
from tests.deploy.pachyderm.test_pipelines import NAMES, specs, up
from tests.paths import PIPELINES, ROOT

__all__ = ["pictures", "predicting", "specs", "up"]  # fixtures
VARIABLE = "CAPSTAN_TEST_PYTHON_PACHYDERM"
pytestmark = pytest.mark.skipif(
    not os.environ.get(VARIABLE),
    reason=f"makes an environment with python-pachyderm: ask for it with {VARIABLE}=1",
)
Old = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the old client and what Capstan always needs."""
    folder = tmp_path_factory.mktemp("old")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    wanted = ("python-pachyderm==7.6.0", "numpy>=2.0", "pyarrow>=20.0")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


@pytest.fixture
def old(python: Path, pachd: Pachd) -> Old:
    """Run a command there, against the fake."""
    environment = {"PACHD_ADDRESS": pachd.address, "CAPSTAN_PROJECT": "photos"}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [str(python), "-m", "capstan.cli", *map(str, words)]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
        return done

    return run


def test_it_is_an_environment_of_its_own(python: Path) -> None:
    assert python != Path(sys.executable)
    done = subprocess.run([python, "-c", "import pachyderm_sdk"], capture_output=True)
    assert done.returncode == 1


def test_load_and_load_again(pachd: Pachd, old: Old, tmp_path: Path) -> None:
    tsv = tmp_path / "cc.tsv"
    tsv.write_bytes(b"a caption\thttp://a.test/1.jpg\n" * 25)
    pachd.repos["rawdata"] = []
    done = old("load", tsv, "--rows", 10)
    assert done.returncode == 0, done.stderr
    cut(tsv, 10, tmp_path / "split")
    split = {f"/cc.tsv/{path.name}": path.read_bytes() for path in tmp_path.glob("split/*")}
    assert pachd.files("rawdata") == split
    assert "3 unchanged; nothing to do" in old("load", tsv, "--rows", 10).stderr
    assert len(pachd.streams) == 1


def test_a_load_that_fails_publishes_nothing(pachd: Pachd, old: Old, tmp_path: Path) -> None:
    tsv = tmp_path / "cc.tsv"
    tsv.write_bytes(b"a caption\thttp://a.test/1.jpg\n" * 25)
    pachd.put("rawdata", {})
    pachd.on_call = lambda method: os.utime(tsv, ns=(1, 1)) if method == "WalkFile" else None
    done = old("load", tsv, "--rows", 10)
    assert done.returncode == 1
    assert pachd.broken.wait(10)
    assert len(pachd.repos["rawdata"]) == 1
    assert "cc.tsv: changed while it was loaded; run again" in done.stderr


def test_caption(predicting: Pachd, old: Old, pictures: list[Path]) -> None:
    done = old("caption", *pictures)
    assert done.stdout == f"{pictures[0]}\ta cat\n{pictures[1]}\ta dog\n", done.stderr


def test_fetch(pachd: Pachd, old: Old, tmp_path: Path) -> None:
    pachd.put("model", MODEL)
    pachd.put("model", {"/log": b"half"}, error="a datum failed")
    done = old("fetch", "model", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "m") == MODEL


@pytest.mark.filterwarnings("ignore:ListPipelineRequest.details")  # old servers want it
def test_status_and_logs(up: Pachd, old: Old) -> None:
    up.job("images", data_total=3, data_processed=2, data_skipped=1)
    done = old("status")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert lines[1].split()[1:4] == ["running", "success", "3/3"]
    assert old("logs", "images").returncode == 0


def test_what_takes_the_sdk_says_so(pachd: Pachd, old: Old) -> None:
    done = old("up", "--pipelines", PIPELINES)
    assert done.returncode == 2
    assert "capstan up needs pachyderm_sdk; pip install 'capstan-captions[run]'" in done.stderr


def test_a_server_that_is_not_there(old: Old) -> None:
    done = old("status", "--address", "grpc://127.0.0.1:1")
    assert done.returncode == 1
    assert "nothing answers as it should" in done.stderr
