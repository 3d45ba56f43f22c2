"""A small local web of pictures with faults, for tests, the demo and benchmarks.

The fault is part of the path, so what an address answers depends on the address alone, and for
faults that pass, on how often it was asked:

    with Web({"cat.jpg": data}) as web:
        web.url("cat.jpg")                   # http://127.0.0.1:PORT/none/cat.jpg
        web.url("cat.jpg", Fault.FLAKY)      # 500 the first time
        web.url("cat.jpg", row=7)            # the same picture under an address of its own

`capstan.testing.simulated_web` has many hosts. `python -m capstan.testing.web FOLDER --port 8000`
serves a folder from a process of its own.
"""

import argparse
import asyncio
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self
from urllib.parse import quote

from capstan.testing.connection import Request, ServerConnection
from capstan.testing.replies import CHAIN, Fault, Reply, parse, plain, reply_to

__all__ = ["CHAIN", "Fault", "Request", "Web"]


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
        self._connections: set[ServerConnection] = set()
        self._released = False
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
        self._loop.call_soon_threadsafe(self._release)

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
        self._stopped = asyncio.Event()
        try:
            server = await self._loop.create_server(
                lambda: ServerConnection(self), "127.0.0.1", self._port, backlog=1024
            )
        except OSError as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(server.sockets[0].getsockname()[1])
        await self._stopped.wait()
        server.close()
        for connection in [*self._connections]:
            connection.abort()
        await asyncio.sleep(0)  # for the connections to be told

    def _release(self) -> None:
        self._released = True
        for connection in self._connections:
            connection.release()

    # What its connections call

    def opened(self, connection: ServerConnection) -> None:
        """A client connected."""
        self._connections.add(connection)

    def closed(self, connection: ServerConnection) -> None:
        """A client has gone."""
        self._connections.remove(connection)

    def begin(self, request: Request, connection: ServerConnection) -> tuple[int, Reply]:
        """Log a request and decide on its reply."""
        with self._changed:
            number = len(self.log)
            self.log.append(request)
            self.open += 1
            self.most_open = max(self.open, self.most_open)
            self._changed.notify_all()
        reply = self._reply(request.path)
        return number, replace(reply, stalled=reply.stalled and not self._released)

    def end(self, number: int, whole: bool) -> None:
        """A request is answered."""
        self.open -= 1

    def _reply(self, path: str) -> Reply:
        try:
            target = parse(path)
            body = self._picture(target.name)
        except (ValueError, KeyError, OSError):
            return plain(404)
        self._counts[path] += 1
        return reply_to(target, body, self._counts[path], self._slow)

    def _picture(self, name: str) -> bytes:
        if isinstance(self._pictures, Path):
            return (self._pictures / name).read_bytes()
        return self._pictures[name]


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
