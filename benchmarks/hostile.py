"""Uploads that mean no good, for `benchmarks.serve`: the n-th is always the same."""

import asyncio
import base64
import gzip
import random
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession, FormData

SIDE = 30_000  # pixels of a bomb: 2.7 GB once decoded
ZEROS = 64 << 20  # bytes of a body that is small on the wire
SLOW = 0.5  # seconds between the bytes of a slow body


class HostileUploads:
    """Sends the n-th upload, and returns the status that it is answered with."""

    unanswered = (ClientConnectionError, ClientPayloadError, TimeoutError)

    def __init__(self, picture: bytes) -> None:
        """`picture` is a good one, to spoil."""
        self._picture, self._bomb = picture, bomb()
        self._zipped = gzip.compress(bytes(ZEROS))
        self._kinds: tuple[Callable[[random.Random], bytes], ...] = (
            self._truncated,
            self._flipped,
            self._flipped,
            lambda _: self._bomb,
            lambda _: b"",
            lambda _: b"<html><body>404</body></html>",
            lambda _: b"\x89PNG\r\n\x1a\n",
            lambda chance: chance.randbytes(chance.randrange(1, 100_000)),
        )

    def _truncated(self, chance: random.Random) -> bytes:
        return self._picture[: chance.randrange(1, len(self._picture))]

    def _flipped(self, chance: random.Random) -> bytes:
        data = bytearray(self._picture)
        for _ in range(chance.randrange(1, 40)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(data)

    def spoilt(self, number: int) -> bytes:
        """The picture, or what stands for it, of the n-th upload."""
        chance = random.Random(number)
        return chance.choice(self._kinds)(chance)

    async def send(self, session: ClientSession, number: int) -> int:
        """Send one; raises one of `unanswered` where there is no answer."""
        chance, data = random.Random(number), self.spoilt(number)
        path, body = self._request(chance, number, data)
        async with session.post(path, **body) as response:
            await response.read()
        return response.status

    def _request(
        self, chance: random.Random, number: int, data: bytes
    ) -> tuple[str, dict[str, Any]]:
        text = base64.b64encode(data).decode()
        form = FormData()
        form.add_field("picture", data, filename="../../etc/passwd")
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
        match number % 10:
            case 0 | 1 | 2:
                return "/caption", {"data": data}
            case 3:
                return "/caption", {"data": form}
            case 4:
                instances = [{"b64": text}] * chance.choice(
                    (0, 1, 3, 1000 if len(data) < 99 else 1)
                )
                return "/v1/models/capstan:predict", {"json": {"instances": instances}}
            case 5:
                return "/v2/models/capstan/infer", {"json": {"inputs": [tensor]}}
            case 6:  # JSON that is none, too deep, or of other things
                wrong = (b"{", b"[" * 100_000, b'{"instances": 7}', b'{"inputs": [null]}', b"\xff")
                return "/v1/models/capstan:predict", {"data": chance.choice(wrong)}
            case 7:
                return "/caption", {"data": data, "headers": {"X-Filler": "x" * 65_536}}
            case 8:  # a body that is larger than it seems, or is not as it says
                zipped = chance.choice((self._zipped, data))
                return "/caption", {"data": zipped, "headers": {"Content-Encoding": "gzip"}}
            case _:
                return "/caption", {"data": slowly(data)}


async def slowly(data: bytes) -> AsyncIterator[bytes]:
    """A body that does not end for minutes."""
    for start in range(min(len(data), 600)):
        yield data[start : start + 1]
        await asyncio.sleep(SLOW)
    while True:
        yield b"\0"
        await asyncio.sleep(SLOW)


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it is a picture of SIDE x SIDE."""

    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")
