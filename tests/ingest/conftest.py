"""Pictures, a local web that serves them, and chunks of rows that point there."""

import asyncio
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import uvloop

from capstan.chunks import find_chunks
from capstan.ingest.config import HttpOptions as WebSettings
from capstan.ingest.config import IngestSettings, RetryPolicy
from capstan.ingest.messages import ShardDone, Told
from capstan.ingest.resources import PoolInfo
from capstan.ingest.work import work
from capstan.testing.web import Fault, Web
from tests.paths import SHARED_DATA

Capstan = Callable[..., subprocess.CompletedProcess[str]]


def encode(picture: PIL.Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def gradient(width: int, height: int) -> PIL.Image.Image:
    """An RGB picture whose corners all differ."""
    red = PIL.Image.linear_gradient("L").resize((width, height))
    green = PIL.Image.radial_gradient("L").resize((width, height))
    blue = red.transpose(PIL.Image.Transpose.ROTATE_90).resize((width, height))
    return PIL.Image.merge("RGB", (red, green, blue))


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """Pictures of several kinds by file name."""
    return {
        "wide.jpg": encode(gradient(640, 400), quality=90),
        "tall.png": encode(gradient(300, 500), "PNG"),
        "small.gif": encode(gradient(40, 30), "GIF"),
        "flat.bmp": encode(PIL.Image.new("RGB", (100, 100), "teal"), "BMP"),
    }


@pytest.fixture
def web(pictures: dict[str, bytes]) -> Iterator[Web]:
    """A local web of `pictures`."""
    with Web(pictures, slow=0.02) as served:
        yield served


@pytest.fixture
def settings(tmp_path: Path) -> IngestSettings:
    """Settings for the local web, without waits."""
    return IngestSettings(
        input=tmp_path / "in",
        output=tmp_path / "out",
        web=WebSettings(allow_private=True, timeout=20.0),
        patience=RetryPolicy(first_wait=0.0, longest_wait=0.0),
    )


def write_chunk(settings: IngestSettings, name: str, rows: list[tuple[str, str]]) -> Path:
    """Write rows of caption and URL as a chunk of the input directory."""
    path = settings.input / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{caption}\t{url}\n" for caption, url in rows))
    return path


def all_faults(web: Web) -> list[tuple[str, str]]:
    """A row for each fault that ends soon, among rows without one."""
    endless = {Fault.STALLED, Fault.TRICKLE, Fault.OVERLOADED, Fault.BUSY}
    rows = [(f"{fault}", web.url("wide.jpg", fault)) for fault in Fault if fault not in endless]
    return [*rows, ("tall", web.url("tall.png")), ("small", web.url("small.gif"))]


def work_here(settings: IngestSettings) -> list[dict[str, Any]]:
    """Ingest what changed in this process; return the stats of the shards written."""
    said: list[Told] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(find_chunks(settings.input), settings, PoolInfo(), said.append))
    return [message.stats for message in said if isinstance(message, ShardDone) and message.is_new]


def files(directory: Path) -> dict[str, bytes]:
    """All files below a directory by relative path."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def fewer(settings: IngestSettings, in_flight: int) -> IngestSettings:
    """The same settings with so many rows in flight."""
    return replace(settings, load=replace(settings.load, in_flight=in_flight))


def capstan_command(*words: str | Path) -> list[str]:
    """The command line of `capstan`, as this environment runs it."""
    return [sys.executable, "-m", "capstan.cli", *map(str, words)]


@pytest.fixture
def capstan() -> Capstan:
    """Run `capstan` in a process of its own."""

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            capstan_command(*words), capture_output=True, text=True, timeout=300, check=False
        )

    return run


@pytest.fixture(scope="session")
def captions() -> Path:
    """The folder of Conceptual Captions, where it is."""
    folder = SHARED_DATA / "conceptual-captions"
    if not folder.is_dir():
        pytest.skip(f"no Conceptual Captions at {folder}; set CAPSTAN_SHARED_DATA")
    return folder
