"""One connection of the local web: a bare HTTP/1.1 server that does what its site tells it to.

Bare, because the web must not be what a benchmark measures: prebuilt answers, no framework.
"""

import asyncio
import re
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol, cast

from capstan.testing.replies import Reply, plain

FIELDS = {
    name: re.compile(rf"^{name}:[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
    for name in ("host", "connection", "user-agent")
}
LONGEST_HEAD = 64 << 10
TICK = 0.05  # seconds between the pieces of a body that is sent slowly
SLOW = 4_000  # bytes per second
LONG_TICK = 1.0  # seconds between pieces after the first of what is sent so slowly
REFUSED = plain(400)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    path: str  # with its query
    agent: str
    host: str = ""  # as asked for, without its port


class Site(Protocol):
    """What decides on replies and is told when they end."""

    def opened(self, connection: "ServerConnection") -> None:
        """A client connected."""

    def begin(self, request: Request, connection: "ServerConnection") -> tuple[int, Reply]:
        """A request came: a number for it, and what to send."""

    def end(self, number: int, whole: bool) -> None:
        """The last byte of a reply is with the system, or else the client has gone before."""

    def closed(self, connection: "ServerConnection") -> None:
        """A client has gone."""


class ServerConnection(asyncio.Protocol):
    """Answers one request after another."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._heard = bytearray()
        self._number: int | None = None  # of the request that is being answered
        self._close = False
        self._full = False
        self._held: Reply | None = None  # a stalled reply
        self._ended = False  # the reply is written, though not all of it is sent
        self._timer: asyncio.TimerHandle | None = None
        self.address = ""  # the local one

    def __repr__(self) -> str:
        return f"<Connection {self.address}, answering {self._number}>"

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)
        self.address = transport.get_extra_info("sockname")[0]
        self._site.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._close, self._held = True, None
        if self._timer is not None:
            self._timer.cancel()
        self._over(whole=False)
        self._site.closed(self)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if self._number is None:
            self._next()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._ended:
            self._over()

    # The steps of an answer

    def _next(self) -> None:
        end = self._heard.find(b"\r\n\r\n")
        if end < 0:
            if len(self._heard) > LONGEST_HEAD:
                self._transport.close()
            return
        head = self._heard[:end].decode("latin-1")
        del self._heard[: end + 4]
        method, request, self._close = read_head(head)
        if request is None:
            self._transport.write(REFUSED.head)
            self._transport.close()
            return
        self._number, reply = self._site.begin(request, self)
        self._close |= reply.close
        if self._close and reply.head:
            reply = replace(reply, head=reply.head[:-2] + b"Connection: close\r\n\r\n")
        if method == "HEAD":
            reply = replace(reply, body=b"")
        if reply.stalled:
            self._held = reply
        elif reply.delay:
            self._timer = asyncio.get_running_loop().call_later(reply.delay, self._send, reply)
        else:
            self._send(reply)

    def release(self) -> None:
        """Send a stalled reply now."""
        held, self._held = self._held, None
        if held is not None:
            self._send(held)

    def abort(self) -> None:
        """Hang up."""
        self._transport.abort()

    def _send(self, reply: Reply) -> None:
        head, body = reply.head, reply.body
        if reply.pace == inf or not body:
            self._transport.writelines((head, body) if body else (head,))
            self._finish()
            return
        if reply.pace < SLOW:
            self._transport.write(head)
            head = b""
        self._send_slowly(head, memoryview(body), reply.pace, TICK)

    def _send_slowly(self, head: bytes, rest: memoryview, pace: float, tick: float) -> None:
        size = min(len(rest), max(1, int(pace * tick)))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(size / pace, self._send_piece, head, rest, size, pace)

    def _send_piece(self, head: bytes, rest: memoryview, size: int, pace: float) -> None:
        if not self._full:  # else later: the client is slower than that
            self._transport.writelines((head, rest[:size]) if head else (rest[:size],))
            head, rest = b"", rest[size:]
        if rest:
            self._send_slowly(head, rest, pace, LONG_TICK if pace < SLOW else TICK)
        else:
            self._finish()

    def _finish(self) -> None:
        if self._full:
            self._ended = True
        else:
            self._over()

    def _over(self, whole: bool = True) -> None:
        self._ended = False
        if self._number is not None:
            self._site.end(self._number, whole)
            self._number = None
        if self._close:
            self._transport.close()
        elif self._heard:
            self._next()


def read_head(head: str) -> tuple[str, Request | None, bool]:
    """Method, request (None for what is none) and whether the connection is to end with it."""
    first, _, fields = head.partition("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[0] not in ("GET", "HEAD"):
        return "", None, True
    host = field(fields, "host").rsplit(":", 1)[0].lower()
    asked_to_close = "close" in field(fields, "connection").lower() or words[2] == "HTTP/1.0"
    return words[0], Request(words[1], field(fields, "user-agent"), host), asked_to_close


def field(fields: str, name: str) -> str:
    """The value of a header field; empty where there is none."""
    found = FIELDS[name].search(fields)
    return found[1] if found else ""
