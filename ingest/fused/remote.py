"""The extractor as an ingest process sees it: pixels go to its process, vectors come back.

Both are of fixed length and keep the order of the pictures, so that nothing needs a number. That
the extractor's process has died is not said here: the parent knows it too, and why, and ends us.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from socket import socket

from capstan.featurize.config import DIMENSIONS
from capstan.featurize.pictures import decode
from capstan.ingest.fused.config import NetworkOptions
from capstan.records import Extractor, Failure, Image

VECTOR_BYTES = 2 * DIMENSIONS  # float16
AHEAD = 2  # batches of pictures that wait for the network, per process; bounds memory
REMEMBERED = 4_096  # vectors of pictures that may come again, such as "no longer available"


class RemoteExtractor:
    """One end of a socket to `ingest.fused.serve`; `identity` is known once it is opened."""

    identity: Extractor

    def __init__(self, connection: socket, network: NetworkOptions) -> None:
        self._connection, self._network = connection, network
        self._waiting: deque[asyncio.Future[bytes]] = deque()  # for the vectors of pixels sent
        self._known: dict[str, bytes] = {}  # vectors by the SHA-256 of their picture

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Wait until the network is ready, then let vectors come in."""
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(AHEAD * self._network.batch_size)
        reader, self._writer = await asyncio.open_unix_connection(sock=self._connection)
        with closing(self._writer), ThreadPoolExecutor(1, "pixels") as self._decoder:
            while not (greeting := await reader.readline()):  # it died: wait for our end
                await self._loop.create_future()
            self.identity = Extractor(**json.loads(greeting))
            receiving = asyncio.create_task(self._receive(reader))
            try:
                yield
            finally:
                receiving.cancel()

    async def room(self) -> None:
        """Wait until one more picture may be given to `extract`."""
        await self._places.acquire()

    async def extract(self, image: Image) -> bytes | Failure:
        """The picture's vector, (2048,) float16 as bytes, or why its JPEG cannot be decoded."""
        try:
            return self._known.get(image.sha256) or await self._extract(image)
        finally:
            self._places.release()

    async def _extract(self, image: Image) -> bytes | Failure:
        pixels = await self._loop.run_in_executor(
            self._decoder, decode, image.data, self._network.feature_size
        )
        if isinstance(pixels, Failure):
            return pixels
        vector: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting.append(vector)
        if not self._writer.is_closing():  # it is when the other process has died
            self._writer.write(pixels.reshape(-1).data)
        self._known[image.sha256] = await vector
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return vector.result()

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                data = await reader.readexactly(VECTOR_BYTES)
                vector = self._waiting.popleft()
                if not vector.done():  # its row may have been cancelled
                    vector.set_result(data)

    def __repr__(self) -> str:
        return f"<RemoteExtractor: {len(self._waiting)} pictures there>"
