"""The page in a real browser: it shows, says nothing on the console and asks nothing of anyone."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from report.page import write_report
from report.run import read_run
from tests.report.conftest import Plan

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
]


@pytest.fixture
def requests_seen() -> Iterator[tuple[str, list[str]]]:
    """A web server's address, and the paths that it was asked for."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on this machine")
@pytest.mark.parametrize("flags", [[], ["--force-dark-mode"]], ids=["light", "dark"])
def test_page_in_chromium(
    make_run: Callable[[Plan], Path],
    tmp_path: Path,
    requests_seen: tuple[str, list[str]],
    flags: list[str],
) -> None:
    address, seen = requests_seen
    attack = f'<img src="{address}/caption"><script src="{address}/script"></script>'
    run = make_run(
        Plan(rows=100, caption=lambda text: f"{text} {attack}", url=lambda _: f"{address}/row")
    )
    write_report(read_run(run), run / "report.html")
    picture = tmp_path / "page.png"
    result = subprocess.run(
        [
            str(CHROMIUM),
            *FLAGS,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={picture}",
            "--window-size=390,1600",
            (run / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in result.stderr
    assert seen == []
    with Image.open(picture) as image:
        grey = np.asarray(image.convert("L"))
    assert len(np.unique(grey)) > 100
    assert (grey[2, 2] < 60) == bool(flags)  # night or paper
