"""The wheel: one name, all it needs inside, and commands that work away from any checkout."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import ROOT

ROOMS = ("ingest", "featurize", "train", "predict", "deploy", "report", "demo")
PROJECT = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
NOT_PACKAGED = {"deploy/docker", "deploy/kubernetes", "deploy/grafana"}

Run = Callable[..., subprocess.CompletedProcess[str]]


def pip(*words: object) -> None:
    """Run pip, which asks no registry."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout, for a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("capstan", *ROOMS):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=skip)
    for name in PROJECT:
        shutil.copy(ROOT / name, folder / "source")
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, folder / "source")
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run Python with the wheel installed, in an empty folder; libraries are those of the tests."""
    site = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-index", "--target", site, wheel)
    away = tmp_path_factory.mktemp("away")

    def python(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=away,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site), "HOME": str(away)},
            capture_output=True,
            text=True,
            check=False,
        )

    return python


def test_it_installs_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"capstan"}
    assert wheel.name.startswith("capstan_captions-")


def test_it_holds_every_module_page_and_spec(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    own = [path.relative_to(ROOT) for path in (ROOT / "capstan").rglob("*")]
    rooms = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*")]
    expected = {path.as_posix() for path in own} | {f"capstan/{path}" for path in rooms}
    expected = {
        name
        for name in expected
        if (ROOT / name).is_file()
        and "__pycache__" not in name
        and not any(name.startswith(f"capstan/{folder}/") for folder in NOT_PACKAGED)
    }
    assert expected - inside == set()
    assert len([name for name in inside if name.endswith(".json")]) >= 6


def test_it_is_what_runs_away_from_the_checkout(run: Run) -> None:
    code = "import capstan, capstan.ingest.run as run; print(capstan.__file__, run.__file__)"
    found = run("-c", code)
    assert found.returncode == 0, found.stderr
    assert str(ROOT) not in found.stdout


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (("run", "--output", "run"), "repo rawdata"),
        (("up", "--address", "grpc://127.0.0.1:9"), "127.0.0.1:9"),
    ],
)
def test_its_specs_are_read(run: Run, words: tuple[str, ...], cure: str) -> None:
    """What is wrong is said of what comes after them."""
    done = run("-m", "capstan.cli", *words)
    assert done.returncode in (1, 2)
    assert cure in done.stderr
    assert "no pipeline specs" not in done.stderr


def test_its_commands_run(run: Run, tmp_path: Path) -> None:
    tsv = tmp_path / "cc.tsv"
    tsv.write_text("a red circle\thttp://127.0.0.1:9/a.jpg\n")
    for words, file in (
        (("--version",), None),
        (("split", tsv, "--output", tmp_path / "rawdata"), tmp_path / "rawdata"),
        (
            ("plan", "--rows", "1000", "--no-changes", "--output", tmp_path / "plan.html"),
            tmp_path / "plan.html",
        ),
        (
            ("ingest", "--input", tmp_path / "rawdata", "--output", tmp_path / "images"),
            tmp_path / "images",
        ),
    ):
        done = run("-m", "capstan.cli", *words)
        assert done.returncode == 0, done.stderr
        assert file is None or file.exists()
