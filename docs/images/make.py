"""Make the images of README.md: two screenshots and a chart.

    capstan demo --output runs/demo
    python -m docs.images.make --run runs/demo

`report.png` is the top of that run's report, `service.png` the live page of `capstan ingest serve`
with jobs from a local web, `speed.svg` a chart of figures of benchmarks/RESULTS.md. Needs Debian's
chromium and the extra `dev`; asks nothing of the internet.
"""

import argparse
import asyncio
import io
import json
import random
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from PIL import Image

from benchmarks.ingestd_service import ServiceProcess
from capstan.demo.pictures import picture_files
from capstan.demo.shapes import caption, scenes
from capstan.errors import SettingError
from capstan.testing.web import Fault, Web
from tests.chromium import CHROMIUM, FLAGS

IMAGES = Path(__file__).parent
WIDTH = 1200  # pixels
LARGEST = 200_000  # bytes

# The speed chart


class SpeedBar(NamedTuple):
    """A part of `make bench-ingest` in benchmarks/RESULTS.md, "Ingest", 2026-11-28."""

    part: str
    says: str
    ours: int  # images/s
    peers: int  # images/s of img2dataset
    ratio: str


SPEED = (
    SpeedBar("kept", "originals, connections kept", 1816, 571, "3.18"),
    SpeedBar("new-connections", "originals, a new connection each", 1473, 586, "2.51"),
    SpeedBar("tls", "TLS, connections kept", 1181, 262, "4.51"),
    SpeedBar("tls-new", "TLS, a new connection each", 479, 240, "1.99"),
    SpeedBar("resized", "resized to 256 pixels, Pillow", 165, 124, "1.34"),
)
OURS, PEERS, INK, QUIET = "#1f6feb", "#aab4be", "#1f2328", "#59636e"
TOP, ROW, LEFT, SCALE = 64, 54, 270, 0.25  # pixels; the last: pixels per image/s


def chart() -> str:
    """Images downloaded per second by Capstan and by img2dataset, as SVG."""
    height = TOP + ROW * len(SPEED) + 44
    parts = [
        _text(20, 30, "Images downloaded per second, 2 cores", INK, size=17, weight=600),
        f'<rect x="{LEFT + 220}" y="19" width="12" height="12" fill="{OURS}"/>',
        _text(LEFT + 238, 30, "capstan ingest", INK),
        f'<rect x="{LEFT + 350}" y="19" width="12" height="12" fill="{PEERS}"/>',
        _text(LEFT + 368, 30, "img2dataset 1.47", INK),
    ]
    for index, bar in enumerate(SPEED):
        y = TOP + ROW * index
        parts += [
            _text(20, y + 15, bar.part, INK, weight=600),
            _text(20, y + 33, bar.says, QUIET, size=12),
            *_bar(y, bar.ours, OURS, f"{bar.ours:,}  ({bar.ratio} x)"),
            *_bar(y + 19, bar.peers, PEERS, f"{bar.peers:,}"),
        ]
    source = (
        "Medians of 3 alternated runs of whole processes, JPEGs of 90 KB from nginx on the same"
    )
    parts.append(_text(20, height - 26, f"{source} two cores.", QUIET, size=12))
    parts.append(_text(20, height - 10, "Source: benchmarks/RESULTS.md, Ingest.", QUIET, size=12))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" width="860" '
            f'height="{height}" font-family="system-ui, sans-serif" role="img">',
            "<title>Images per second: capstan ingest beside img2dataset</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _bar(y: int, value: int, colour: str, label: str) -> list[str]:
    width = round(value * SCALE)
    return [
        f'<rect x="{LEFT}" y="{y + 3}" width="{width}" height="16" fill="{colour}"/>',
        _text(LEFT + width + 6, y + 16, label, INK, size=13),
    ]


def _text(x: int, y: int, text: str, colour: str, size: int = 14, weight: int = 400) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}">'
        f"{text}</text>"
    )


# The screenshots


async def shoot(url: str, seconds: float = 0.0) -> bytes:
    """A screenshot of a page, when it was open for so long."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page(viewport={"width": WIDTH, "height": 900})
        await page.goto(url)
        await asyncio.sleep(seconds)
        shot = await page.screenshot(full_page=True)
        await browser.close()
    return shot


def save(name: str, shot: bytes, top: int, bottom: int) -> None:
    """Keep these lines of a screenshot, in as many colours as keep the file small."""
    with Image.open(io.BytesIO(shot)) as image:
        part = image.convert("RGB").crop((0, top, image.width, min(bottom, image.height)))
    tries: list[Image.Image] = [part]
    tries += [part.quantize(colours, kmeans=2, dither=Image.Dither.NONE) for colours in (256, 64)]
    for each in tries:
        each.save(IMAGES / name, optimize=True)
        if (IMAGES / name).stat().st_size < LARGEST:
            return
    raise SettingError(f"{name}: not below {LARGEST:,} bytes; keep fewer lines")


def show_report(run: Path) -> None:
    """The top of a run's report."""
    save("report.png", asyncio.run(shoot((run / "report.html").resolve().as_uri())), 60, 1_330)


HOSTS = {  # shares of the rows
    "photos.localhost": 21,
    "museum.localhost": 18,
    "shop.localhost": 15,
    "news.localhost": 13,
    "wiki.localhost": 11,
    "travel.localhost": 9,
    "archive.localhost": 8,
    "blog.localhost": 5,
}
FAULTS = {  # in a hundred; the others answer with their image
    Fault.NOT_FOUND: 8,
    Fault.DENIED: 3,
    Fault.FLAKY: 3,
    Fault.HTML: 2,
    Fault.OPTED_OUT: 2,
    Fault.TRUNCATED: 1,
    Fault.CORRUPT: 1,
}
JOBS = (("animals.tsv", 3_000), ("food.tsv", 60_000), ("places.tsv", 20_000))  # rows
LIVE = 75.0  # seconds of the last jobs until the page is shown


@contextmanager
def local_web() -> Iterator[list[str]]:
    """Rows of captions and addresses of generated images, which answer within the block."""
    drawn, count = scenes(400, seed=1), max(rows for _, rows in JOBS)
    files, generator = picture_files(drawn), random.Random(0)
    hosts = generator.choices([*HOSTS], [*HOSTS.values()], k=count)
    shares = [*FAULTS.values(), 100 - sum(FAULTS.values())]
    faults = generator.choices([*FAULTS, Fault.SLOW], shares, k=count)
    with Web(files, slow=0.12) as web:
        yield [
            f"{caption(scene)}\t{web.url(name, fault, row).replace('127.0.0.1', host)}"
            for row, (scene, name, host, fault) in enumerate(
                zip(cycle(drawn), cycle(files), hosts, faults, strict=False)
            )
        ]


def ask(url: str, data: bytes | None = None) -> Any:
    """What the service answers."""
    headers = {"Content-Type": "text/tab-separated-values"} if data else {}
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def submit(service: ServiceProcess, name: str, rows: Sequence[str]) -> str:
    """Submit a job; returns its id."""
    query = urlencode({"name": name, "rows_per_chunk": 500})
    body = "".join(f"{row}\n" for row in rows).encode()
    return str(ask(f"{service.url}/api/jobs?{query}", body)["id"])


def show_service() -> None:
    """The live page, with one job that is done and two that run."""
    with (
        tempfile.TemporaryDirectory() as folder,
        local_web() as rows,
        ServiceProcess(Path(folder, "data"), ("--per-host", "8")) as service,
    ):
        (name, count), *others = JOBS
        first = submit(service, name, rows[:count])
        while ask(f"{service.url}/api/jobs/{first}")["state"] != "done":
            time.sleep(1)
        for name, count in others:
            submit(service, name, rows[:count])
        save("service.png", asyncio.run(shoot(service.url, LIVE)), 0, 1_000)


def show_speed() -> None:
    """The chart."""
    (IMAGES / "speed.svg").write_text(chart())


def main() -> None:
    """Make them all, or one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="a finished demo")
    parser.add_argument("--only", choices=("report", "service", "speed"), help="make this one")
    arguments = parser.parse_args()
    makers: dict[str, Callable[[], None]] = {
        "speed": show_speed,
        "report": partial(show_report, arguments.run),
        "service": show_service,
    }
    for name, make in makers.items():
        if arguments.only in (None, name):
            make()


if __name__ == "__main__":
    main()
