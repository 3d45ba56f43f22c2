"""What an address of the local web answers: a function of the address and how often it was asked.

The first part of a path is a fault or a bare status, the rest names a picture: `/none/cat.jpg`,
`/flaky/cat.jpg?row=7`, `/410/cat.jpg`.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from math import ceil, inf
from urllib.parse import parse_qsl, unquote, urlencode

CHAIN = 3  # redirects before the picture
TYPES = {".png": "image/png", ".gif": "image/gif", ".webp": "image/webp", ".bmp": "image/bmp"}


class Fault(StrEnum):
    """What an address does instead of just answering with its picture."""

    NONE = "none"
    NOT_FOUND = "not_found"
    DENIED = "denied"
    BROKEN = "broken"  # 500 always
    FLAKY = "flaky"  # 500 the first time, then the picture
    BUSY = "busy"  # 429 with `Retry-After: 1` the first time, then the picture
    OVERLOADED = "overloaded"  # 429 with `Retry-After: 86400` always
    SLOW = "slow"  # the picture after `slow` seconds
    TRICKLE = "trickle"  # a byte every `slow` seconds
    STALLED = "stalled"  # no answer until `release` is called
    TRUNCATED = "truncated"  # the connection closes in mid-body
    RESET = "reset"  # the connection closes without an answer
    HTML = "html"  # a page that says 200 in place of a picture
    EMPTY = "empty"
    CORRUPT = "corrupt"  # half of the file, as if it were whole
    GZIPPED = "gzipped"  # Content-Encoding: gzip, asked for or not
    REDIRECT = "redirect"  # a chain of redirects to the picture
    REDIRECT_LOOP = "redirect_loop"
    OPTED_OUT = "opted_out"  # X-Robots-Tag: noai


STATUSES = {Fault.NOT_FOUND: 404, Fault.DENIED: 403, Fault.BROKEN: 500}
PASSING = {Fault.FLAKY, Fault.BUSY}  # they depend on how often they were asked


@dataclass(frozen=True, slots=True)
class Reply:
    """What a connection sends, and how."""

    status: int  # 0: none
    head: bytes
    body: bytes = b""
    delay: float = 0.0  # seconds before the first byte
    pace: float = inf  # bytes of body per second
    close: bool = False  # the connection ends with it
    stalled: bool = False  # it waits until stalled replies are released
    retry_after: float = 0.0  # seconds for which the host is to be left alone


@dataclass(frozen=True, slots=True)
class ParsedPath:
    """A path, taken apart."""

    path: str  # with its query
    fault: Fault
    status: int | None  # of a bare one
    name: str
    hop: int  # of a chain of redirects


@lru_cache(maxsize=4096)
def header(status: int, length: int, more: str = "") -> bytes:
    """The head of an answer; `more` is whole lines."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    kind = "" if "Content-Type" in more else "Content-Type: text/plain\r\n"
    first = f"HTTP/1.1 {status} {phrase}\r\nContent-Length: {length}\r\n"
    return f"{first}{kind}{more}\r\n".encode()


def plain(status: int, more: str = "", text: bytes = b"") -> Reply:
    """An answer without a picture."""
    return Reply(status, header(status, len(text), more), text)


def parse(path: str) -> ParsedPath:
    """Take a path apart; raises ValueError where it is none of the web's."""
    bare, _, query = path.partition("?")
    _, first, name = bare.split("/", 2)
    hop = int(dict(parse_qsl(query)).get("hop", "0")) if "hop=" in query else 0
    if first.isdecimal():
        return ParsedPath(path, Fault.NONE, int(first), unquote(name), hop)
    return ParsedPath(path, Fault(first), None, unquote(name), hop)


def reply_to(target: ParsedPath, body: bytes, times: int, slow: float) -> Reply:
    """The reply of an address that has been asked for so many times, this one included."""
    fault = target.fault
    if target.status not in (None, 200):
        return plain(target.status or 200)
    if fault is Fault.NONE:
        return picture(target, body)
    if fault in STATUSES:
        return plain(STATUSES[fault])
    if fault is Fault.OVERLOADED:
        return wait(86_400.0)
    if fault in PASSING:
        return picture(target, body) if times > 1 else passing(fault)
    if fault in (Fault.REDIRECT, Fault.REDIRECT_LOOP):
        return redirect(target) or picture(target, body)
    return misbehave(target, body, slow)


def picture(target: ParsedPath, body: bytes, more: str = "") -> Reply:
    """The picture, as it should be."""
    kind = TYPES.get(target.name[target.name.rfind(".") :], "image/jpeg")
    return Reply(200, header(200, len(body), f"Content-Type: {kind}\r\n{more}"), body)


def passing(fault: Fault) -> Reply:
    """What an address in trouble says the first time."""
    return wait(1.0) if fault is Fault.BUSY else plain(500)


def wait(seconds: float, now: float | None = None) -> Reply:
    """Too many requests: come back later; with the time of day, said as a date."""
    said = str(ceil(seconds)) if now is None else formatdate(ceil(now + seconds), usegmt=True)
    return Reply(429, header(429, 0, f"Retry-After: {said}\r\n"), retry_after=seconds)


def redirect(target: ParsedPath) -> Reply | None:
    """The next hop, None at the end of the chain."""
    if target.fault is Fault.REDIRECT and target.hop == CHAIN:
        return None
    bare, _, query = target.path.partition("?")
    asked = {**dict(parse_qsl(query)), "hop": target.hop + 1}
    return plain(302, f"Location: {bare}?{urlencode(asked)}\r\n")


def misbehave(target: ParsedPath, body: bytes, slow: float) -> Reply:
    """The faults that change how a picture is sent, or what is sent in its place."""
    whole = picture(target, body)
    page = b"<html>This picture has moved.</html>"
    ways: dict[Fault, Callable[[], Reply]] = {
        Fault.SLOW: lambda: replace(whole, delay=slow),
        Fault.TRICKLE: lambda: replace(whole, pace=1 / slow, close=True),
        Fault.STALLED: lambda: replace(whole, stalled=True),
        Fault.TRUNCATED: lambda: replace(whole, body=body[: len(body) // 2], close=True),
        Fault.RESET: lambda: Reply(0, b"", close=True),
        Fault.HTML: lambda: plain(200, "Content-Type: text/html\r\n", page),
        Fault.EMPTY: lambda: picture(target, b""),
        Fault.CORRUPT: lambda: picture(target, body[: len(body) // 2]),
        Fault.GZIPPED: lambda: picture(
            target, gzip.compress(body, mtime=0), "Content-Encoding: gzip\r\n"
        ),
        Fault.OPTED_OUT: lambda: picture(target, body, "X-Robots-Tag: noindex, noai\r\n"),
    }
    return ways[target.fault]()
