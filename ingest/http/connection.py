"""A connection and its HTTP/1.1 exchanges, one after another; answers are parsed by llhttp.

What a general client does for every request, of cookies, redirects, tracing and streams, took half
of the time of a picture; here an answer is read whole, up to a limit, and that is all.
"""

import asyncio
import zlib
from dataclasses import dataclass
from typing import cast

import httptools

from capstan.records import Reason

MAX_HEAD = 64 << 10  # bytes of headers
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
PACKED = {b"gzip", b"x-gzip", b"deflate"}
LENIENT = {  # as browsers are
    "lenient_headers": True,
    "lenient_optional_cr_before_lf": True,
    "lenient_spaces_after_chunk_size": True,
}


class ExchangeError(Exception):
    """There is no answer, or no whole one. Holds its status, if it had come that far."""

    def __init__(self, reason: Reason, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


class StaleError(ExchangeError):
    """A connection that was used before was closed instead of answering: try another."""


@dataclass(slots=True)
class HttpResponse:
    """To one request. The body is there for 2xx only."""

    status: int
    headers: dict[bytes, list[bytes]]  # by name in lower case
    body: bytes = b""

    def all(self, name: bytes) -> list[str]:
        """Values of all headers of a name."""
        return [value.decode(errors="replace") for value in self.headers.get(name, ())]

    def first(self, name: bytes) -> str | None:
        """Value of the first header of a name."""
        values = self.headers.get(name)
        return values[0].decode(errors="replace") if values else None


class Connection(asyncio.BufferedProtocol):
    """A connection to one host. `buffer` is where all of a loop's connections read into."""

    def __init__(self, buffer: memoryview) -> None:
        self.closed = False
        self.reusable = False  # the last answer was whole, and the host wants more
        self.idle_since = 0.0
        self._buffer = buffer
        self._used = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**LENIENT)
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begin(0)

    def _begin(self, limit: int) -> None:
        self._limit = limit
        self._answer = HttpResponse(0, {})
        self._pieces: list[bytes] = []
        self._head = self._size = 0  # bytes
        self._has_length = self._is_chunked = self._in_body = False

    @property
    def status(self) -> int | None:
        """Of the answer that is coming."""
        return self._answer.status or None

    def ask(self, request: bytes, limit: int, seconds: float) -> "asyncio.Future[HttpResponse]":
        """Send a request; its answer comes within so many seconds or not at all.

        The body may have `limit` bytes, packed and unpacked.
        """
        self._begin(limit)
        self.reusable = False
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        # Not `asyncio.timeout`, which would cancel the task: that costs five times as much.
        self._timer = loop.call_later(seconds, self._fail, Reason.TIMEOUT)
        if self.closed or self._transport is None:
            self._fail(Reason.DISCONNECTED)
        else:
            self._transport.write(request)
        return waiter

    def close(self) -> None:
        """Close at once."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._in_body:
            self._head += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except httptools.HttpParserError:
            self._fail(Reason.PROTOCOL)
        else:
            if not self._in_body and self._head > MAX_HEAD:
                self._fail(Reason.PROTOCOL)

    def eof_received(self) -> None:
        self._ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._ended(whole=exc is None)
        self._transport = None
        del self._parser  # which knows us: thousands would wait to be found as garbage

    def _ended(self, whole: bool = True) -> None:
        until_end = self._in_body and not (self._has_length or self._is_chunked)
        if until_end and whole:
            self._finish()
        else:
            self._fail(Reason.DISCONNECTED)

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._answer.headers.setdefault(name, []).append(value)
        if name == b"content-length":
            self._has_length = True
        elif name == b"transfer-encoding":
            self._is_chunked = b"chunked" in value.lower()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._begin(self._limit)  # another answer follows
            return
        self._answer.status, self._in_body = status, True
        if not 200 <= status < 300:
            self._finish()
        elif self._has_length:
            length = self._answer.first(b"content-length") or ""
            if length.isdecimal() and int(length) > self._limit:
                self._fail(Reason.TOO_LARGE)

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._limit:
            self._fail(Reason.TOO_LARGE)
        elif self._waiter is not None:  # else it follows a status that said enough
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._in_body:
            self.reusable = self._parser.should_keep_alive() and not self.closed
            self._finish()

    # How an exchange ends

    def _finish(self) -> None:
        if self._waiter is None or self._waiter.done():
            return
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        encoding = self._answer.first(b"content-encoding")
        if encoding and body:
            unpacked = unpack(body, encoding, self._limit)
            if isinstance(unpacked, Reason):
                self._fail(unpacked)
                return
            body = unpacked
        answer, self._answer, self._pieces = (
            self._answer,
            HttpResponse(0, {}),
            [],
        )  # to hold no picture
        answer.body, self._used = body, True
        self._settle().set_result(answer)

    def _fail(self, reason: Reason) -> None:
        self.close()
        if self._waiter is None or self._waiter.done():
            return
        stale = self._used and not self._head and reason is not Reason.TIMEOUT
        kind = StaleError if stale else ExchangeError
        self._settle().set_exception(kind(reason, self.status))

    def _settle(self) -> "asyncio.Future[HttpResponse]":
        assert self._waiter is not None
        assert self._timer is not None
        self._timer.cancel()
        waiter, self._waiter = self._waiter, None
        return waiter


def unpack(body: bytes, encoding: str, limit: int) -> bytes | Reason:
    """Undo a Content-Encoding; it was not asked for, but some hosts pack everything."""
    for name in reversed(encoding.lower().encode().split(b",")):
        name = name.strip()
        if name in (b"", b"identity"):
            continue
        if name not in PACKED:
            return Reason.PROTOCOL
        raw = name == b"deflate" and body[0] & 0x0F != zlib.DEFLATED  # not as RFC 9110 has it
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS if raw else GZIP_OR_ZLIB)
        try:
            body = unpacker.decompress(body, limit + 1)
        except zlib.error:
            return Reason.PROTOCOL
        if len(body) > limit:
            return Reason.TOO_LARGE
        if not unpacker.eof:
            return Reason.DISCONNECTED
    return body
