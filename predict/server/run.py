"""Start, serve until told to stop, and stop without losing a request."""

import asyncio
import logging
import socket

from capstan.http.listen import bind, serve_until_told
from capstan.predict.captions import Predictor, PredictSettings
from capstan.predict.server.app import make_app
from capstan.predict.server.config import ServerLimits
from capstan.predict.server.service import CaptionService

logger = logging.getLogger(__name__)

DRAIN = 8.0  # seconds for requests in hand


def serve(settings: PredictSettings, limits: ServerLimits, host: str, port: int) -> None:
    """Serve captions until SIGTERM or SIGINT; raises SettingError for an address that is taken."""
    with bind(host, port) as listener:  # before the model is loaded, which takes long
        predictor = Predictor(settings)
        predictor.warm_up()
        asyncio.run(_serve(CaptionService(predictor, limits), listener))


async def _serve(service: CaptionService, listener: socket.socket) -> None:
    async def drain() -> None:
        logger.info("stopping: %d pictures in hand", service.gate.held)
        await service.gate.drain(DRAIN)

    await serve_until_told(make_app(service), listener, drain)
    logger.info("stopped")
