"""A server in this process, with a real model or with one that waits until it may go on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from numpy.typing import NDArray

from capstan.predict.captions import Captions, Pixels, Predictor, PredictSettings, View
from capstan.predict.server.app import make_app
from capstan.predict.server.config import ServerLimits
from capstan.predict.server.service import CaptionService, Model
from capstan.records import Failure
from capstan.train.captioner import Caption
from tests.networks import loaded
from tests.predict.conftest import model

__all__ = ["model"]  # fixtures

Client = TestClient[Any, Any]
Start = Callable[[Model, ServerLimits], Awaitable[tuple[Client, CaptionService]]]
SAID = (Caption("a dog", -1.5, (-0.5, -0.5, -0.5)), Caption("a cat", -2.0, (-1.0, -0.5, -0.5)))


class Held:
    """A model that says `SAID` of every picture, once `go` is set; `computing` tells it began."""

    def __init__(self) -> None:
        self.description = {"model_sha256": "0" * 64}
        self.computing, self.go = threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def pixels(self, data: bytes) -> Pixels | Failure:
        """One black pixel."""
        return np.zeros((1, 1, 3), np.uint8)

    def look(self, data: bytes) -> View | Failure:
        """All of it."""
        pixels = self.pixels(data)
        return pixels if isinstance(pixels, Failure) else View(pixels, (1.0, 1.0))

    def word_log_probabilities(self, pixels: Sequence[Pixels], caption: str) -> NDArray[np.float32]:
        """Half a nat each."""
        return np.full((len(pixels), len(caption.split()) + 1), -0.5, np.float32)

    def captions(self, pixels: Sequence[Pixels]) -> list[Captions]:
        """The same for all."""
        self.computing.set()
        assert self.go.wait(30)
        self.sizes.append(len(pixels))
        return [SAID for _ in pixels]


async def begun(held: Held) -> None:
    """Return when the model computes."""
    assert await asyncio.get_running_loop().run_in_executor(None, held.computing.wait, 30)


@asynccontextmanager
async def starting() -> AsyncIterator[Start]:
    """Start servers for models; they end with the block."""
    async with AsyncExitStack() as stack:

        async def begin(model: Model, limits: ServerLimits) -> tuple[Client, CaptionService]:
            service = CaptionService(model, limits)
            server = TestServer(make_app(service))
            return await stack.enter_async_context(TestClient(server)), service

        yield begin


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a server for a model; it ends with the test."""
    async with starting() as begin:
        yield begin


@pytest.fixture(scope="session")
def predictor(model: Path) -> Predictor:
    """The real model, searched so that even this one finds words."""
    search = {"beam": 6, "length_penalty": 20.0, "no_repeat": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capstan.featurize.extractor.ResNetExtractor", loaded)
        return Predictor(PredictSettings(model, top=2, search=search))


@pytest.fixture
async def client(start: Start, predictor: Predictor) -> Client:
    """A client of a server with the real model."""
    client, _ = await start(predictor, ServerLimits())
    return client


async def metric(session: ClientSession | Client, name: str, url: str = "") -> float:
    """A number of /metrics, zero where it is not there yet."""
    async with session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    values = [line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == name]
    return float(values[0]) if values else 0.0
