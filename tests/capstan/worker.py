"""A Pachyderm worker that batches datums, as the server's source has it, on this machine.

After `src/server/worker/pipeline/transform` of 2.12: inputs, `out` and `.env` are links that are
set anew for each datum; `NextDatum` blocks until they are; a failed datum has the process killed
and started again; so has a process that ends; after the last datum it is killed.
"""

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import grpc
from pachyderm_sdk.api.worker import NextDatumRequest, NextDatumResponse

Reply = SimpleQueue[list[str] | None]


@dataclass
class Datum:
    """A datum's inputs by name, and what came of it."""

    name: str
    inputs: Mapping[str, Path]
    out: Path
    errors: list[str] = field(default_factory=list)
    done: bool = False


class Worker:
    """Runs a command over datums; `log` is all that it said."""

    def __init__(self, root: Path, command: Sequence[str], tries: int = 1) -> None:
        self._root, self._command, self._tries = root, command, tries
        self._asked: SimpleQueue[tuple[str, Reply | None]] = SimpleQueue()
        self._reply: Reply | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._refusal = ""
        self.log, self.starts = "", 0
        root.mkdir()

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(
            self._next_datum,
            request_deserializer=NextDatumRequest.FromString,
            response_serializer=NextDatumResponse.SerializeToString,
        )
        methods = {"NextDatum": handler}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("pachyderm.worker.Worker", methods),)
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._server.stop(None).wait()

    def _next_datum(self, request: NextDatumRequest, context: Any) -> NextDatumResponse:
        if self._refusal:
            context.abort(grpc.StatusCode.UNKNOWN, self._refusal)
        reply: Reply = SimpleQueue()
        self._asked.put((request.error, reply))
        environment = reply.get()
        if environment is None:
            context.abort(grpc.StatusCode.CANCELLED, "the process was killed")
        return NextDatumResponse(env=environment or [])

    def run(self, datums: Sequence[Datum]) -> None:
        """Process all datums, each up to as often as there are tries."""
        self._start()
        for datum in datums:
            while not datum.done and len(datum.errors) < self._tries:
                self._link(datum)
                assert self._reply is not None
                self._reply.put([f"PACH_DATUM_ID={datum.name}"])
                if error := self._wait():
                    datum.errors.append(error)
                    self._stop()
                    self._start()
                else:
                    datum.done = True
                self._unlink()
        self._stop()

    def ends(self) -> int:
        """Start the command, which is to end by itself; return its exit status."""
        self._start()
        assert self._process is not None
        return self._process.wait()

    def refuse(self, why: str) -> None:
        """Answer from now on as a worker does whose pipeline has no datum batching."""
        self._refusal = why

    def _start(self) -> None:
        self.starts += 1
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | {"PPS_WORKER_GRPC_PORT": str(self._port)},
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,))
        self._reader.start()
        self._wait()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            self.log += process.stderr.read().decode()
        self._asked.put((f"user code ended with {process.wait()}", None))

    def _wait(self) -> str:
        """Until the process asks for a datum, or ends; return what went wrong, if anything."""
        error, self._reply = self._asked.get()
        return error

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._reader.join()
        self._process = None
        if self._reply is not None:
            self._reply.put(None)
            self._reply = None
        while not self._asked.empty():  # its end
            self._asked.get()

    def _link(self, datum: Datum) -> None:
        datum.out.mkdir(parents=True, exist_ok=True)
        for name, target in {**datum.inputs, "out": datum.out}.items():
            (self._root / name).symlink_to(target)

    def _unlink(self) -> None:
        for link in self._root.iterdir():
            link.unlink()
