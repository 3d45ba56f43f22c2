"""The extractor's process: gathers the pixels of all ingest processes and answers with vectors.

A thread reads them while the network computes; what waits is bounded by those who send.
"""

import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from queue import Empty, SimpleQueue
from socket import socket
from threading import Thread
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from capstan.cli import LOG_FORMAT_VARIABLE, import_tensorflow, set_up_logging
from capstan.errors import CapstanError
from capstan.ingest.fused.config import NetworkOptions
from capstan.progress import INTERVAL_VARIABLE
from capstan.records import Extractor

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]  # (S, S, 3)
LONGEST_WAIT = 2.0  # seconds that a batch waits to be full
Request = tuple[socket, Pixels]
Inbox = SimpleQueue[Request | None]  # None: nobody is left to ask


class Features(Protocol):
    """What is needed of `capstan.featurize.extractor.ResNetExtractor`."""

    batch_size: int
    identity: Extractor

    def extract(self, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Features (N, 2048) of RGB pictures (N, S, S, 3)."""


def serve(parent: Connection, clients: Sequence[socket], network: NetworkOptions) -> None:
    """What the process runs until all clients are gone; sends the parent a CapstanError at worst.

    A client first gets the extractor's identity, then the vectors of its pictures in their order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too and ends us
    set_up_logging(os.environ[LOG_FORMAT_VARIABLE], float(os.environ[INTERVAL_VARIABLE]))
    inbox: Inbox = SimpleQueue()
    size = network.feature_size
    Thread(target=receive, args=(clients, inbox, (size, size, 3)), daemon=True).start()
    try:
        extractor = load(network)
        logger.info("extractor: %r", extractor)
        for client in clients:
            greet(client, extractor.identity)
        answer(inbox, extractor)
    except (CapstanError, OSError) as error:
        parent.send(error)


def load(network: NetworkOptions) -> Features:
    """The extractor, after a first picture: all that is slow or may fail at first is behind it."""
    import_tensorflow()
    from capstan.featurize.extractor import ResNetExtractor

    size = network.feature_size
    extractor = ResNetExtractor(
        network.weights, size, network.batch_size, network.precision, network.runtime
    )
    extractor.extract(np.zeros((1, size, size, 3), np.uint8))
    return extractor


def greet(client: socket, identity: Extractor) -> None:
    """Tell a client that pictures may come, and whose features it gets: one line of JSON."""
    send(client, json.dumps(asdict(identity)).encode() + b"\n")


def receive(clients: Sequence[socket], inbox: Inbox, shape: tuple[int, ...]) -> None:
    """Put the pixels that clients send into the inbox; end the process if its parent is gone."""
    parent = multiprocessing.parent_process()
    talking = set(clients)
    while talking:
        for ready in wait([*talking, *([parent.sentinel] if parent else [])]):
            if not isinstance(ready, socket):
                os._exit(1)
            pixels = np.empty(shape, np.uint8)
            if read_into(ready, pixels.reshape(-1).data):
                inbox.put((ready, pixels))
            else:
                talking.remove(ready)
    inbox.put(None)


def read_into(client: socket, buffer: memoryview) -> bool:
    """Fill the buffer from a socket; whether the other end sent that much."""
    with suppress(ConnectionResetError):
        while buffer and (count := client.recv_into(buffer)):
            buffer = buffer[count:]
    return not buffer


def answer(inbox: Inbox, extractor: Features) -> None:
    """Answer batch by batch, and say in the end how busy the network was.

    A batch waits to be full for as long as the last one took: at worst that doubles an answer's
    time, and a network that is fed too slowly computes half-empty batches half as often.
    """
    began, busy, pictures, batches = time.monotonic(), 0.0, 0, 0
    patience = 0.0
    while batch := gather(inbox, extractor.batch_size, patience):
        start = time.monotonic()
        hand_out(batch, extractor.extract(np.stack([pixels for _, pixels in batch])))
        seconds = time.monotonic() - start
        patience = min(seconds, LONGEST_WAIT)
        busy, pictures, batches = busy + seconds, pictures + len(batch), batches + 1
    logger.info(
        "extractor: %s pictures in %s batches of %d, busy %.0f %% of the time",
        f"{pictures:,}",
        f"{batches:,}",
        extractor.batch_size,
        100 * busy / (time.monotonic() - began),
    )


def gather(inbox: Inbox, size: int, patience: float) -> list[Request]:
    """Up to `size` requests, or fewer after `patience` seconds; none when nobody is left to ask."""
    batch: list[Request] = []
    until: float | None = None
    with suppress(Empty):
        while len(batch) < size:
            timeout = None if until is None else max(0.0, until - time.monotonic())
            if (request := inbox.get(timeout=timeout)) is None:
                return []
            batch.append(request)
            until = until or time.monotonic() + patience
    return batch


def hand_out(batch: Sequence[Request], vectors: NDArray[np.float16]) -> None:
    """Give each client its own of the vectors (N, 2048)."""
    rows: dict[socket, list[int]] = {}
    for row, (client, _) in enumerate(batch):
        rows.setdefault(client, []).append(row)
    for client, own in rows.items():
        send(client, vectors[own].tobytes())


def send(client: socket, data: bytes) -> None:
    """Send all, or to nobody if the client has died: the parent knows it too."""
    with suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(data)
