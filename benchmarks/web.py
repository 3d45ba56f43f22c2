"""A small local web of pictures with faults, for tests, the demo and benchmarks.

The fault is part of the path, so what an address answers depends on the address alone, and for
faults that pass, on how often it was asked:

    with Web({"cat.jpg": data}) as web:
        web.url("cat.jpg")                   # http://127.0.0.1:PORT/none/cat.jpg
        web.url("cat.jpg", Fault.FLAKY)      # 500 the first time
        web.url("cat.jpg", row=7)            # the same picture under an address of its own

`python -m benchmarks.web FOLDER --port 8000` serves a folder from a process of its own.
"""

import argparse
import asyncio
import gzip
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import quote

from aiohttp import web

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


@dataclass(frozen=True, slots=True)
class Request:
    """A line of the server's log."""

    path: str  # with its query
    agent: str


class Web:
    """Serves pictures on 127.0.0.1 from a thread of its own while the `with` block runs."""

    def __init__(
        self, pictures: Mapping[str, bytes] | Path, slow: float = 2.0, port: int = 0
    ) -> None:
        self.log: list[Request] = []
        self.open = self.most_open = 0  # requests being answered, now and at most
        self._pictures, self._slow, self._port = pictures, slow, port
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def url(self, name: str, fault: Fault = Fault.NONE, row: int | None = None) -> str:
        """Address of a picture; `row` makes it one of many addresses of the same picture."""
        query = "" if row is None else f"?row={row}"
        return f"{self.address}/{fault}/{quote(name)}{query}"

    @property
    def address(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self._ready.result()}"

    def paths(self) -> Counter[str]:
        """How often each path was asked for."""
        with self._changed:
            return Counter(request.path for request in self.log)

    def wait_for(self, requests: int, timeout: float = 30.0) -> None:
        """Wait until the log has so many lines; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.log) >= requests, timeout):
                raise TimeoutError(f"{len(self.log)} requests of {requests} after {timeout} s")

    def release(self) -> None:
        """Let stalled addresses answer from now on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def __repr__(self) -> str:
        return f"<Web {self.address}: {len(self.log)} requests, {self.open} open>"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped, self._released = asyncio.Event(), asyncio.Event()
        app = web.Application()
        app.router.add_get("/{fault}/{name:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        try:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
            self._ready.set_result(runner.addresses[0][1])
            await self._stopped.wait()
        except OSError as error:
            self._ready.set_exception(error)
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        with self._changed:
            self.log.append(Request(request.path_qs, request.headers.get("User-Agent", "")))
            self.open += 1
            self.most_open = max(self.open, self.most_open)
            self._changed.notify_all()
        try:
            return await self._misbehave(request)
        finally:
            self.open -= 1

    async def _misbehave(self, request: web.Request) -> web.StreamResponse:
        try:
            fault = Fault(request.match_info["fault"])
            body = self._picture(request.match_info["name"])
        except (ValueError, KeyError, OSError):
            return web.Response(status=404)
        self._counts[request.path_qs] += 1
        if fault is Fault.SLOW:
            await asyncio.sleep(self._slow)
        elif fault is Fault.STALLED:
            await self._released.wait()
        elif fault in (Fault.TRICKLE, Fault.TRUNCATED, Fault.RESET):
            return await self._break_off(request, fault, body)
        return answer(request, fault, body, self._counts[request.path_qs])

    def _picture(self, name: str) -> bytes:
        if isinstance(self._pictures, Path):
            return (self._pictures / name).read_bytes()
        return self._pictures[name]

    async def _break_off(
        self, request: web.Request, fault: Fault, body: bytes
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        if fault is not Fault.RESET:
            await response.prepare(request)
        if fault is Fault.TRUNCATED:
            await response.write(body[: len(body) // 2])
        elif fault is Fault.TRICKLE:
            for position in range(len(body)):
                await response.write(body[position : position + 1])
                await asyncio.sleep(self._slow)
        if request.transport is not None:
            request.transport.close()
        return response


def answer(request: web.Request, fault: Fault, body: bytes, times: int) -> web.StreamResponse:
    """The whole answer of an address that has been asked for so many times."""
    path = Path(request.path)
    response = web.Response(body=body, content_type=TYPES.get(path.suffix, "image/jpeg"))
    if fault in STATUSES:
        return web.Response(status=STATUSES[fault])
    if fault in (Fault.FLAKY, Fault.BUSY, Fault.OVERLOADED):
        return passing_failure(fault, times) or response
    if fault in (Fault.REDIRECT, Fault.REDIRECT_LOOP):
        hop = int(request.query.get("hop", "0"))
        if fault is Fault.REDIRECT and hop == CHAIN:
            return response
        return web.Response(
            status=302, headers={"Location": str(request.rel_url.update_query(hop=hop + 1))}
        )
    if fault is Fault.HTML:
        return web.Response(text="<html>This picture has moved.</html>", content_type="text/html")
    if fault is Fault.EMPTY:
        response.body = b""
    elif fault is Fault.CORRUPT:
        response.body = body[: len(body) // 2]
    elif fault is Fault.GZIPPED:
        response.body = gzip.compress(body, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
    elif fault is Fault.OPTED_OUT:
        response.headers["X-Robots-Tag"] = "noindex, noai"
    return response


def passing_failure(fault: Fault, times: int) -> web.Response | None:
    """What an address in trouble says, None once it is well again."""
    if fault is Fault.OVERLOADED:
        return web.Response(status=429, headers={"Retry-After": "86400"})
    if times > 1:
        return None
    if fault is Fault.BUSY:
        return web.Response(status=429, headers={"Retry-After": "1"})
    return web.Response(status=500)


def main() -> None:
    """Serve a folder until interrupted."""
    parser = argparse.ArgumentParser(description="Serve a folder of pictures, with faults.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--slow", type=float, default=2.0, metavar="SECONDS")
    arguments = parser.parse_args()
    with Web(arguments.folder, arguments.slow, arguments.port) as server:
        print(f"{server.address}/FAULT/NAME, FAULT one of {', '.join(Fault)}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
