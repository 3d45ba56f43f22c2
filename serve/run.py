"""Start, serve until told to stop, and stop without losing a request."""

import asyncio
import errno
import logging
import signal
import socket

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline.errors import SettingError
from predict.captions import Predictor, Settings
from serve.app import make_app
from serve.config import Limits
from serve.service import Service

logger = logging.getLogger(__name__)

DRAIN = 8.0  # seconds for requests in hand
CLOSE = 1.0  # seconds for connections, after that


def serve(settings: Settings, limits: Limits, host: str, port: int) -> None:
    """Serve captions until SIGTERM or SIGINT; raises SettingError for an address that is taken."""
    with bind(host, port) as listener:  # before the model is loaded, which takes long
        predictor = Predictor(settings)
        predictor.warm_up()
        asyncio.run(_serve(Service(predictor, limits), listener))


def bind(host: str, port: int) -> socket.socket:
    """A socket with that address, which does not listen yet; port 0 is any free one."""
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


def is_ours(record: logging.LogRecord) -> bool:
    """Whether what aiohttp logs is a fault of the server: broken requests get a 400, no traceback.

    A filter for its logger.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


async def _serve(service: Service, listener: socket.socket) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    runner = web.AppRunner(
        make_app(service), access_log=None, handler_cancellation=True, shutdown_timeout=CLOSE
    )
    logging.getLogger("aiohttp.server").addFilter(is_ours)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=1024).start()
    host, port = listener.getsockname()[:2]
    logger.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    await told.wait()
    logger.info("stopping: %d pictures in hand", service.gate.held)
    await service.gate.drain(DRAIN)
    await runner.cleanup()
    logger.info("stopped")
