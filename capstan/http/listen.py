"""Listening: an address taken early, and an application served there until it is told to stop."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from capstan.errors import SettingError

logger = logging.getLogger(__name__)

CLOSE = 1.0  # seconds for connections, after what was in hand is answered
IDLE = (
    75.0  # seconds until the header of a request is there, from the connection or the last answer
)


def bind(host: str, port: int) -> socket.socket:
    """A socket with that address, which does not listen yet; port 0 is any free one.

    Raises SettingError for an address that is not to be had.
    """
    try:
        if port not in range(1 << 16):
            raise OSError(errno.EINVAL, "no such port")
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SettingError(
            f"{host}:{port}: cannot serve there ({error.strerror}); give another --host or --port"
        ) from error
    return listener


async def serve_until_told(
    app: web.Application, listener: socket.socket, drain: Callable[[], Awaitable[None]]
) -> None:
    """Serve until SIGTERM or SIGINT, then wait for `drain` and close.

    While it drains, requests are still answered: the application says with what.
    """
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=CLOSE,
        keepalive_timeout=IDLE,
    )
    logging.getLogger("aiohttp.server").addFilter(is_ours)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=1024).start()
    host, port = listener.getsockname()[:2]
    logger.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    await told.wait()
    await drain()
    await runner.cleanup()


def is_ours(record: logging.LogRecord) -> bool:
    """Whether what aiohttp logs is a fault of the server: broken requests get a 400, no traceback.

    A filter for its logger.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)
