"""The local web of `tests/ingest` with more pictures, and an extractor that is quickly computed."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from socket import socket, socketpair
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray

from capstan.chunks import find_chunks
from capstan.featurize.config import DIMENSIONS
from capstan.ingest.config import IngestSettings
from capstan.ingest.fused import serve
from capstan.ingest.fused.config import NetworkOptions
from capstan.ingest.fused.remote import RemoteExtractor
from capstan.ingest.fused.sink import feature_sink
from capstan.ingest.messages import ShardDone, Told
from capstan.ingest.resources import PoolInfo
from capstan.ingest.work import work
from capstan.records import Extractor
from tests.ingest.conftest import capstan, encode, gradient, settings, web

__all__ = ["capstan", "settings", "web"]  # fixtures

SIZE = 32
NETWORK = NetworkOptions(weights="random:3", feature_size=SIZE, batch_size=4)


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """Pictures that all differ, by file name."""
    named = {
        "wide.jpg": encode(gradient(640, 400), quality=90),
        "tall.png": encode(gradient(300, 500), "PNG"),
        "small.gif": encode(gradient(40, 30), "GIF"),
    }
    return named | {f"{n}.jpg": encode(gradient(100 + 9 * n, 120)) for n in range(30)}


def fingerprints(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Of pixels (N, S, S, 3) something like features, (N, 2048)."""
    return pixels.reshape(len(pixels), -1)[:, :DIMENSIONS].astype(np.float16)


@dataclass
class Fake:
    """An extractor in a thread of its own; `sizes` are those of its batches."""

    batch_size: int = 4
    identity: Extractor = field(
        default_factory=lambda: Extractor("fake", "none", "0", SIZE, "none")
    )
    sizes: list[int] = field(default_factory=list)

    def extract(self, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
        """See `fingerprints`."""
        self.sizes.append(len(pictures))
        return fingerprints(pictures)

    @contextmanager
    def serving(self, count: int) -> Iterator[list[RemoteExtractor]]:
        """Serve so many clients as `capstan.ingest.fused.serve` does."""
        pairs = [socketpair() for _ in range(count)]
        theirs = [their for _, their in pairs]
        thread = Thread(target=self._serve, args=(theirs,))
        thread.start()
        yield [RemoteExtractor(ours, NETWORK) for ours, _ in pairs]
        for ours, _ in pairs:
            ours.close()
        thread.join()
        for their in theirs:
            their.close()

    def _serve(self, clients: list[socket]) -> None:
        inbox: serve.Inbox = SimpleQueue()
        Thread(target=serve.receive, args=(clients, inbox, (SIZE, SIZE, 3))).start()
        for client in clients:
            serve.greet(client, self.identity)
        serve.answer(inbox, self)


async def settle() -> None:
    """Let all that can go on without an answer from elsewhere go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def fuse(settings: IngestSettings, network: NetworkOptions = NETWORK) -> list[str]:
    """Make what changed in this process; return the names of the chunks."""
    sink = feature_sink(network)
    said: list[Told] = []
    with Fake().serving(1) as (extractor,):
        share = replace(sink, extractor=extractor)
        asyncio.run(work(find_chunks(settings.input), settings, PoolInfo(), said.append, share))
    done = (message for message in said if isinstance(message, ShardDone) and message.is_new)
    return sorted(shard.stats["chunk"] for shard in done)
