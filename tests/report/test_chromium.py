"""The page in a real browser: it shows, says nothing on the console and asks nothing of anyone."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from capstan.report.page import write_report
from capstan.report.run import read_run
from capstan.report.web import write_web_report
from tests.chromium import CHROMIUM, FLAGS
from tests.report.conftest import Plan, write_statistics


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


@dataclass(frozen=True)
class Seen:
    """What a browser showed and said."""

    said: str
    grey: NDArray[np.uint8]


@pytest.fixture(params=[False, True], ids=["light", "dark"])
def dark(request: pytest.FixtureRequest) -> bool:
    """Whether it is night."""
    return bool(request.param)


@pytest.fixture
def look(tmp_path: Path, dark: bool) -> Callable[[Path], Seen]:
    """Open a page on something as wide as a phone."""
    if CHROMIUM is None:
        pytest.skip("no `chromium` on this machine")

    def show(page: Path) -> Seen:
        picture = tmp_path / "page.png"
        command = [
            str(CHROMIUM),
            *FLAGS,
            "--headless",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            *(["--force-dark-mode"] if dark else []),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={picture}",
            "--window-size=390,1600",
            page.as_uri(),
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        with Image.open(picture) as image:
            return Seen(result.stderr, np.asarray(image.convert("L")))

    return show


def check(seen: Seen, requests: list[str], dark: bool) -> None:
    assert "CONSOLE" not in seen.said
    assert requests == []
    assert len(np.unique(seen.grey)) > 100
    assert (seen.grey[2, 2] < 60) == dark


def test_page_in_chromium(
    make_run: Callable[[Plan], Path],
    requests_seen: tuple[str, list[str]],
    look: Callable[[Path], Seen],
    dark: bool,
) -> None:
    address, requests = requests_seen
    attack = f'<img src="{address}/caption"><script src="{address}/script"></script>'
    run = make_run(
        Plan(rows=100, caption=lambda text: f"{text} {attack}", url=lambda _: f"{address}/row")
    )
    write_report(read_run(run), run / "report.html")
    check(look(run / "report.html"), requests, dark)


def test_statistics_in_chromium(
    tmp_path: Path,
    requests_seen: tuple[str, list[str]],
    look: Callable[[Path], Seen],
    dark: bool,
) -> None:
    address, requests = requests_seen
    attack = f'<img src="{address}/host"><script src="{address}/script"></script>'
    write_statistics(tmp_path, {f"{attack}{n}": (5, 3) for n in range(30)})
    write_web_report(tmp_path, tmp_path / "report.html")
    check(look(tmp_path / "report.html"), requests, dark)
