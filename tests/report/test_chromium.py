"""The page in a real browser: it shows, says nothing on the console and asks nothing of anyone."""

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capstan.report.page import write_report
from capstan.report.run import read_run
from capstan.report.web import write_web_report
from tests.chromium import Go
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
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=[False, True], ids=["light", "dark"])
def dark(request: pytest.FixtureRequest) -> bool:
    """Whether it is night."""
    return bool(request.param)


async def check(go: Go, page: Path, requests: list[str], dark: bool) -> None:
    """Look at a page on something as wide as a phone."""
    opened = await go(
        page.as_uri(),
        viewport={"width": 390, "height": 1600},
        color_scheme="dark" if dark else "light",
    )
    with Image.open(io.BytesIO(await opened.screenshot())) as image:
        grey = np.asarray(image.convert("L"))
    assert requests == []
    assert len(np.unique(grey)) > 100
    assert (grey[2, 2] < 60) == dark


async def test_page_in_chromium(
    make_run: Callable[[Plan], Path],
    requests_seen: tuple[str, list[str]],
    go: Go,
    dark: bool,
) -> None:
    address, requests = requests_seen
    attack = f'<img src="{address}/caption"><script src="{address}/script"></script>'
    run = make_run(
        Plan(rows=100, caption=lambda text: f"{text} {attack}", url=lambda _: f"{address}/row")
    )
    write_report(read_run(run), run / "report.html")
    await check(go, run / "report.html", requests, dark)


async def test_statistics_in_chromium(
    tmp_path: Path,
    requests_seen: tuple[str, list[str]],
    go: Go,
    dark: bool,
) -> None:
    address, requests = requests_seen
    attack = f'<img src="{address}/host"><script src="{address}/script"></script>'
    write_statistics(tmp_path, {f"{attack}{n}": (5, 3) for n in range(30)})
    write_web_report(tmp_path, tmp_path / "report.html")
    await check(go, tmp_path / "report.html", requests, dark)
