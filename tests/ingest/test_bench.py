"""The instruments of `benchmarks.ingest`, without the peer."""

import os
import shutil
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from benchmarks.nginx import Behaviour, Nginx
from benchmarks.processes import run
from capstan.errors import CapstanError, SettingError
from capstan.testing.photolike import photo

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def test_a_photo_is_the_same_each_time() -> None:
    assert photo(3, 64, 48) == photo(3, 64, 48) != photo(4, 64, 48)
    assert 80_000 < len(photo(0)) < 100_000


def test_memory_of_all_processes_and_the_end_of_those_that_take_too_long(tmp_path: Path) -> None:
    child = "import time; block = bytearray(b'x') * (64 << 20); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ran = run([sys.executable, "-c", code], os.environ, tmp_path / "log", limit=2.0)
    assert ran.killed
    assert 2.0 <= ran.seconds < 10.0
    assert 64 << 20 < ran.peak < 128 << 20


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "print('so it goes'); raise SystemExit(3)"]
    with pytest.raises(CapstanError, match=r"ended with 3:\nso it goes"):
        run(words, os.environ, tmp_path / "log", limit=30.0)


@needs_nginx
@pytest.mark.parametrize("tls", [False, True])
def test_nginx_serves_a_folder(tmp_path: Path, tls: bool) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "cat.jpg").write_bytes(b"picture")
    with Nginx(root, tmp_path / "nginx", Behaviour(keep_alive=False, tls=tls)) as nginx:
        trust = ssl.create_default_context(cafile=str(nginx.authority)) if tls else None
        with urllib.request.urlopen(f"{nginx.address}/cat.jpg?row=1", context=trust) as response:
            assert response.read() == b"picture"
            assert response.headers["Connection"] == "close"
            assert response.headers["Content-Type"] == "image/jpeg"


def test_without_nginx_the_cure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(SettingError, match="install Debian's nginx-light"):
        Nginx(tmp_path, tmp_path, Behaviour()).__enter__()


@needs_nginx
def test_a_part_runs(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.ingest", "kept", "--no-peer", "--rounds", "1"]
    words += ["--rows", "10", "--folder", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "| originals, kept connections, 10 rows | images/s |" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_replay_needs_a_report(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.ingest", "replay", "--folder", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == ("error: this part replays a report; give its file with --report\n")
