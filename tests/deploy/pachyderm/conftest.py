"""A Pachyderm to ask, and a way to ask it as people do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from capstan.cli import main
from capstan.testing.pachd import Pachd


class Capstan:
    """Runs commands in this process; `out` and `err` are what the last one wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object) -> int:
        status = main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err and "Exception" not in self.err
        return status


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of who runs the tests is used."""
    for name in ("PACHD_ADDRESS", "PACH_CONFIG", "PACH_CONTEXT", "PACH_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PACH_PYTHON_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("CAPSTAN_PROJECT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def pachd() -> Iterator[Pachd]:
    with Pachd() as server:
        yield server


@pytest.fixture
def capstan(
    pachd: Pachd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Capstan:
    """Commands against the fake."""
    monkeypatch.setenv("PACHD_ADDRESS", pachd.address)
    monkeypatch.setenv("CAPSTAN_PROJECT", "photos")
    return Capstan(capsys)
