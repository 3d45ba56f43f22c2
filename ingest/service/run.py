"""The service and its HTTP, from start to SIGTERM."""

import asyncio
import logging
import resource
import socket

import uvloop

from capstan.http.listen import bind, serve_until_told
from capstan.ingest.service.app import App
from capstan.ingest.service.config import ServiceSettings
from capstan.ingest.service.service import open_service

logger = logging.getLogger(__name__)


def run(settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT; raises SettingError for an address that is taken."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a stream is a descriptor
    with (
        bind(settings.listen.host, settings.listen.port) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(serve(settings, listener))


async def serve(settings: ServiceSettings, listener: socket.socket) -> None:
    """Serve until told to stop; requests, then rows, have some seconds to end."""
    async with open_service(settings) as service:
        app = App(service)
        await serve_until_told(app.application(), listener, app.drain)
    logger.info("stopped")
